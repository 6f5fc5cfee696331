"""All collections that are kept in one Milvus."""

import asyncio
from uuid import uuid4

from services.common.versions import Version
from services.search.core.change_feed import Table
from services.search.engines.milvus.client import Milvus
from services.search.engines.milvus.collection_index import MilvusCollectionIndex, fits
from services.search.engines.milvus.errors import MilvusUnavailableError
from services.search.engines.milvus.options import MilvusOptions
from services.search.engines.milvus.version_pointer import VersionPointers


class MilvusCollectionFactory:
    """Makes the indexes of collections. Nothing is connected to before one is written or looked for."""

    def __init__(self, options: MilvusOptions) -> None:
        self._milvus = Milvus(options)
        self._writer = uuid4().hex

    def close(self) -> None:
        """Let the connection go."""
        self._milvus.close()

    def create(self, table: Table) -> MilvusCollectionIndex:
        """Return an index to be filled anew, which replaces what there is at its first version."""
        return MilvusCollectionIndex(self._milvus, table, self._writer)

    async def restore(self, table: Table) -> MilvusCollectionIndex | None:
        """Return the index that Milvus holds already; None where it holds none.

        Raises:
            UnavailableError: Milvus does not answer.
        """
        return await asyncio.to_thread(self._restore, table)

    async def erase(self, collection: str, version: Version) -> int:
        """Remove at once the rows that no version from `version` on shows; return 0, for there are no snapshots.

        Raises:
            UnavailableError: Milvus does not answer, or does not hold `version` yet.
        """
        return await asyncio.to_thread(self._erase, collection, version)

    def _erase(self, collection: str, version: Version) -> int:
        pointer = VersionPointers(self._milvus).read(version.uid)
        if pointer is None or pointer.number < version.number:
            problem = f"does not hold version {version} of {collection} yet"
            raise MilvusUnavailableError(self._milvus.options.uri, "erasing", problem)
        for stored in pointer.spaces.values():
            self._milvus.delete(stored.name, f"died <= {pointer.round_number}")
        return 0

    def _restore(self, table: Table) -> MilvusCollectionIndex | None:
        stored = VersionPointers(self._milvus).read(table.version.uid)
        if stored is None or not fits(stored, {space.name: space for space in table.spaces}):
            return None
        return MilvusCollectionIndex(self._milvus, table, self._writer, stored)
