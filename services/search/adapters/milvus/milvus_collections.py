"""All collections that are kept in one Milvus."""

import asyncio
from uuid import uuid4

from services.search.adapters.milvus.client import Milvus
from services.search.adapters.milvus.collection import MilvusCollectionIndex, fits
from services.search.adapters.milvus.markers import Markers
from services.search.adapters.milvus.options import MilvusOptions
from services.search.feed import Table


class MilvusCollections:
    """Makes the indexes of collections. Nothing is connected to before one is written or looked for."""

    def __init__(self, options: MilvusOptions) -> None:
        self._milvus = Milvus(options)
        self._writer = uuid4().hex

    def close(self) -> None:
        """Let the connection go."""
        self._milvus.close()

    def fresh(self, table: Table) -> MilvusCollectionIndex:
        """Return an index to be filled anew, which replaces what there is at its first version."""
        return MilvusCollectionIndex(self._milvus, table, self._writer)

    async def kept(self, table: Table) -> MilvusCollectionIndex | None:
        """Return the index that Milvus holds already; None where it holds none.

        Raises:
            UnavailableError: Milvus does not answer.
        """
        return await asyncio.to_thread(self._kept, table)

    def _kept(self, table: Table) -> MilvusCollectionIndex | None:
        kept = Markers(self._milvus).read(table.version.uid)
        if kept is None or not fits(kept, {space.name: space for space in table.spaces}):
            return None
        return MilvusCollectionIndex(self._milvus, table, self._writer, kept)
