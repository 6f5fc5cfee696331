"""What exact scans read can be changed while the space is searched."""

import numpy as np

from services.common.index_config import Exact, Hnsw, IndexConfig, VectorStorage
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.ann.build_scheduler import BuildScheduler
from services.search.ann.manager import BuildContext, RefreshPolicy
from services.search.ann.recall_monitor import RecallMonitor
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors
from services.search.core.collection_index import Mode, Search
from services.search.engines.faiss.factory import FaissAnnFactory
from services.search.engines.faiss.vector_index import FaissIndex

DIMENSIONS, COUNT = 128, 2000
FLOAT32_BYTES = 4 * DIMENSIONS * COUNT
INT8, FLOAT32 = IndexConfig(Exact()), IndexConfig(Exact(VectorStorage.FLOAT32))
HNSW = IndexConfig(Hnsw(m=8, ef_construction=16))


class Collection:
    def __init__(self, config: IndexConfig) -> None:
        self.scheduler = BuildScheduler()
        context = BuildContext(
            FaissAnnFactory(), self.scheduler, RecallMonitor(0.0), RefreshPolicy(min_modified=100, rest_factor=0)
        )
        self.index = LocalCollectionIndex(
            [_space(config)],
            lambda space: FaissIndex(DIMENSIONS, space.metric, storage=space.config.scanned),
            context,
        )
        self.vectors = np.random.default_rng(0).standard_normal((COUNT, DIMENSIONS)).astype(np.float32)
        ids = [str(number) for number in range(COUNT)]
        self.commits = 0
        self.commit(ChangeBatch(ids, ["{}"] * COUNT, {"a": SpaceVectors(np.arange(COUNT), self.vectors)}))

    def commit(self, batch: ChangeBatch) -> None:
        self.commits += 1
        self.index.write(batch)
        self.index.publish(Version("u", self.commits))

    def configure(self, config: IndexConfig) -> None:
        self.commit(ChangeBatch(spaces=[_space(config)]))

    def exact_bytes(self) -> int:
        return self.index._spaces["a"]._index.memory_bytes

    def found(self) -> tuple[Mode, list[str]]:
        (found,) = self.index.search(Search("a", 10), self.vectors[7:8])
        return found.mode, [hit.item_id for hit in found.hits]


def _space(config: IndexConfig) -> Space:
    return Space("a", DIMENSIONS, Metric.COSINE, config=config)


def test_an_exact_index_goes_from_one_storage_to_another() -> None:
    collection = Collection(INT8)
    before = collection.found()
    assert collection.exact_bytes() > FLOAT32_BYTES
    collection.configure(FLOAT32)
    assert (collection.exact_bytes(), collection.found()) == (FLOAT32_BYTES, before)
    collection.configure(INT8)
    assert collection.exact_bytes() > FLOAT32_BYTES
    assert collection.found() == before


def test_codes_are_kept_until_an_approximate_index_answers() -> None:
    collection = Collection(INT8)
    collection.configure(HNSW)
    assert collection.exact_bytes() > FLOAT32_BYTES
    while collection.scheduler.step() is not None:
        pass
    assert collection.found()[0] is Mode.APPROXIMATE
    collection.commit(ChangeBatch())
    assert collection.exact_bytes() == FLOAT32_BYTES
    collection.configure(INT8)
    assert collection.found()[0] is Mode.EXACT
    assert collection.exact_bytes() > FLOAT32_BYTES
