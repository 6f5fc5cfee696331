"""A change feed in this process that remembers every change: the oracle of the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from services.common.errors import CollectionNotFoundError
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space, Table


class MemoryChangeFeed:
    """`ChangeFeed` over lists; `create`, `commit`, `configure` and `drop` are its store."""

    def __init__(self) -> None:
        self._tables: dict[str, _KeptTable] = {}
        self._created = 0

    def create(self, collection: str, spaces: Sequence[Space]) -> Version:
        """Make a collection without items; return its version."""
        self._created += 1
        kept = _KeptTable(collection, spaces, f"uid{self._created}")
        self._tables[collection] = kept
        return kept.version

    def commit(self, collection: str, *parts: ChangeBatch) -> Version:
        """Add a change; return the version that holds it."""
        return self._kept(collection).commit(parts)

    def configure(self, collection: str, space: str, config: IndexConfig) -> Version:
        """Change how a space is indexed; return the version that holds it."""
        spaces = [
            replace(each, config=config) if each.name == space else each for each in self._kept(collection).spaces
        ]
        return self.commit(collection, ChangeBatch(spaces=spaces))

    def drop(self, collection: str) -> None:
        """Remove a collection."""
        self._tables.pop(collection).drop()

    def _kept(self, collection: str) -> "_KeptTable":
        if collection not in self._tables:
            raise CollectionNotFoundError(collection)
        return self._tables[collection]

    async def tables(self) -> list[Table]:
        """See `ChangeFeed`."""
        return [await self.table(collection) for collection in sorted(self._tables)]

    async def table(self, collection: str) -> Table:
        """See `ChangeFeed`."""
        kept = self._kept(collection)
        return Table(collection, kept.spaces, kept.version)

    async def changes(self, collection: str, after: Version | None) -> AsyncIterator[ChangeBatch]:
        """See `ChangeFeed`."""
        kept = self._kept(collection)
        known = after is not None and after.uid == kept.version.uid
        if after is not None and not known:
            yield ChangeBatch(reset=True)
        applied = after.number if after is not None and known else 0
        told: Sequence[Space] = ()
        if not kept.committed[applied:]:
            told = kept.spaces
            yield ChangeBatch(version=kept.version, spaces=told)
        while True:
            for number, parts in enumerate(kept.committed[applied:], start=applied + 1):
                for part in parts[:-1]:
                    yield part
                spaces = kept.spaces_at[number]
                yield replace(parts[-1], version=Version(kept.uid, number), spaces=spaces if spaces != told else ())
                applied, told = number, spaces
            await kept.newer_than(applied)


class _KeptTable:
    """One collection: each change since it was made, and the spaces as of each version."""

    def __init__(self, collection: str, spaces: Sequence[Space], uid: str) -> None:
        self.collection = collection
        self.spaces_at = [spaces]
        self.uid = uid
        self.committed: list[Sequence[ChangeBatch]] = []
        self._dropped = False
        self._changed = asyncio.Event()

    @property
    def version(self) -> Version:
        return Version(self.uid, len(self.committed))

    @property
    def spaces(self) -> Sequence[Space]:
        return self.spaces_at[-1]

    def commit(self, parts: Sequence[ChangeBatch]) -> Version:
        self.committed.append(parts)
        self.spaces_at.append(next((part.spaces for part in parts if part.spaces), self.spaces))
        self._wake()
        return self.version

    def drop(self) -> None:
        self._dropped = True
        self._wake()

    async def newer_than(self, number: int) -> None:
        while len(self.committed) <= number and not self._dropped:
            await self._changed.wait()
        if self._dropped:
            raise CollectionNotFoundError(self.collection)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
