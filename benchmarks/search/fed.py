"""`python -m benchmarks.search.fed FOLDER --index hnsw`: a search service fed from the disk, with no store.

What is searched is the service itself; only what it follows is another. So a million items come in as fast as the
service takes them.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.search.corpus import Corpus
from medley.v1 import search_service_pb2_grpc as pb_grpc
from services.common.index_config import Exact, Hnsw, IndexConfig, VectorStorage
from services.common.process import run_process
from services.common.rpc.server import run_server, wait_for_signal
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over

COLLECTION, SPACE = "collections/bench", "name"
VERSION = Version("bench", 1)
ROWS_A_PART = 10_000
CONFIGS = {
    "exact-float32": IndexConfig(Exact(VectorStorage.FLOAT32)),
    "exact-int8": IndexConfig(Exact(VectorStorage.INT8)),
    "hnsw": IndexConfig(Hnsw()),
}


class CorpusFeed:
    """`ChangeFeed` of one collection, whose only change is a corpus."""

    def __init__(self, folder: Path, config: IndexConfig) -> None:
        self._folder = folder
        self._space = Space(SPACE, Corpus.load(folder).vectors.shape[1], Metric.COSINE, config=config)

    async def tables(self) -> list[Table]:
        """See `ChangeFeed`."""
        return [await self.table(COLLECTION)]

    async def table(self, collection: str) -> Table:
        """See `ChangeFeed`."""
        return Table(collection, [self._space], VERSION)

    async def changes(self, collection: str, after: Version | None) -> AsyncIterator[ChangeBatch]:
        """See `ChangeFeed`."""
        for part in self._parts() if after != VERSION else ():
            yield part
        yield ChangeBatch(version=VERSION, spaces=[self._space])
        await asyncio.Event().wait()

    def _parts(self) -> Iterator[ChangeBatch]:
        corpus = Corpus.load(self._folder)
        for begin in range(0, len(corpus.vectors), ROWS_A_PART):
            vectors = np.array(corpus.vectors[begin : begin + ROWS_A_PART])
            metadata = list(map(json.dumps, corpus.metadata(begin, begin + ROWS_A_PART)))
            ids = [str(row) for row in range(begin, begin + len(vectors))]
            yield ChangeBatch(ids, metadata, {SPACE: SpaceVectors(np.arange(len(vectors)), vectors)})


async def serve(settings: SearchSettings, feed: CorpusFeed) -> None:
    """Serve until a signal comes."""
    async with search_servicer_over(settings, feed) as servicer:
        register = partial(pb_grpc.add_SearchServiceServicer_to_server, servicer)
        async with run_server(settings, "medley.v1.SearchService", register):
            await wait_for_signal()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.fed", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the corpus is")
    parser.add_argument("--index", choices=CONFIGS, default="exact-int8")
    options = parser.parse_args()
    feed = CorpusFeed(options.folder, CONFIGS[options.index])
    run_process("search", lambda: serve(SearchSettings(), feed))


if __name__ == "__main__":
    main()
