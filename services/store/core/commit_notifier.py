"""Who waits for the next commit of a table."""

import asyncio

from services.common.errors import CollectionNotFoundError


class CommitNotifier:
    """The newest commit of a table, and a bell for those who wait for a newer one."""

    def __init__(self, collection: str, newest: int) -> None:
        self._collection = collection
        self._newest = newest
        self._dropped = False
        self._ring = asyncio.Event()

    @property
    def newest(self) -> int:
        """The newest commit."""
        return self._newest

    @property
    def dropped(self) -> bool:
        """Whether the table is gone."""
        return self._dropped

    def committed(self, version: int) -> None:
        """Tell everyone who waits of commit `version`; an older one than the newest is no news."""
        if version > self._newest:
            self._newest = version
            self._wake()

    def drop(self) -> None:
        """Tell everyone that the table is gone."""
        self._dropped = True
        self._wake()

    def check(self) -> None:
        """Raise `CollectionNotFoundError` if the table is gone."""
        if self._dropped:
            raise CollectionNotFoundError(self._collection)

    async def newer_than(self, version: int) -> int:
        """Return the newest commit as soon as it is over `version`.

        Raises:
            CollectionNotFoundError: the table is gone.
        """
        self.check()
        while self._newest <= version:
            await self._ring.wait()
            self.check()
        return self._newest

    def _wake(self) -> None:
        ring, self._ring = self._ring, asyncio.Event()
        ring.set()
