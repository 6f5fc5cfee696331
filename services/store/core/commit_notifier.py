"""Waiting for the next commit of a table."""

import asyncio

from services.common.errors import CollectionNotFoundError


class CommitNotifier:
    """The newest commit of a table; wakes callers that wait for a newer one."""

    def __init__(self, collection: str, newest: int) -> None:
        self._collection = collection
        self._newest = newest
        self._dropped = False
        self._changed = asyncio.Event()

    @property
    def newest(self) -> int:
        """The newest commit."""
        return self._newest

    @property
    def dropped(self) -> bool:
        """Whether the table was dropped."""
        return self._dropped

    def notify(self, version: int) -> None:
        """Announce commit `version`; one that is not newer than the newest is ignored."""
        if version > self._newest:
            self._newest = version
            self._wake()

    def mark_dropped(self) -> None:
        """Announce that the table was dropped."""
        self._dropped = True
        self._wake()

    def raise_if_dropped(self) -> None:
        """Raise `CollectionNotFoundError` if the table was dropped."""
        if self._dropped:
            raise CollectionNotFoundError(self._collection)

    async def wait(self, after: int) -> int:
        """Wait for a commit newer than `after`; return the newest one.

        Raises:
            CollectionNotFoundError: the table was dropped.
        """
        self.raise_if_dropped()
        while self._newest <= after:
            await self._changed.wait()
            self.raise_if_dropped()
        return self._newest

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
