from functools import partial

import pytest

from services.common.index_config import Hnsw, IndexConfig, Ivf, VectorStorage
from services.common.vectors import Metric
from services.search.ann.build_scheduler import BuildScheduler
from services.search.ann.manager import BuildContext, RefreshPolicy
from services.search.ann.recall_monitor import RecallMonitor
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.candidate_index import AnnFactory
from services.search.core.change_feed import Space, Table
from services.search.core.collection_index import Mode, Search
from services.search.core.vector_index import VectorIndex
from services.search.engines.faiss.factory import FaissAnnFactory
from services.search.engines.faiss.vector_index import FaissIndex
from services.search.engines.memory.candidate_index import MemoryAnnFactory
from services.search.engines.memory.vector_index import MemoryIndex
from tests.contract.collection_index import ORIGIN, CollectionIndexContract, MakeCollection, Mirror, at

HNSW = IndexConfig(Hnsw(64, 400, 10_000), exact_below_selectivity=1e-9)
IVF = IndexConfig(Ivf(4, 4), exact_below_selectivity=1e-9)


def memory(space: Space) -> VectorIndex:
    return MemoryIndex(space.dimensions, space.metric)


def faiss(storage: VectorStorage, space: Space) -> VectorIndex:
    return FaissIndex(space.dimensions, space.metric, storage=storage)


def approximate(factory: AnnFactory, config: IndexConfig) -> MakeCollection:
    """Collections whose approximate indexes are whole after each version, and search all there is."""
    scheduler = BuildScheduler()

    def make(table: Table) -> LocalCollectionIndex:
        context = BuildContext(
            factory,
            scheduler,
            RecallMonitor(0.0),
            RefreshPolicy(min_modified=1, max_modified_share=0.0, rest_factor=0.0),
        )
        return LocalCollectionIndex(table.spaces, memory, context)

    def settle() -> None:
        while scheduler.step() is not None:
            pass

    return MakeCollection(make, config, settle)


class TestMemory(CollectionIndexContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        return MakeCollection(lambda table: LocalCollectionIndex(table.spaces, memory))


@pytest.mark.slow
class TestFaiss(CollectionIndexContract):
    @pytest.fixture(params=VectorStorage, ids=lambda storage: storage.value.lower())
    def make_collection(self, request: pytest.FixtureRequest) -> MakeCollection:
        return MakeCollection(lambda table: LocalCollectionIndex(table.spaces, partial(faiss, request.param)))


class TestCandidates(CollectionIndexContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        return approximate(MemoryAnnFactory(), HNSW)


@pytest.mark.slow
class ApproximateContract(CollectionIndexContract):
    """What holds of indexes that propose as many candidates as they are asked for, by codes."""

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize("dimensions", [2, 17, 300])  # in one dimension all cosines are equal
    def test_the_nearest_are_found_under_every_metric(
        self, make_collection: MakeCollection, metric: Metric, dimensions: int
    ) -> None:
        super().test_the_nearest_are_found_under_every_metric(make_collection, metric, dimensions)

    def test_answers_are_approximate(self, line: Mirror) -> None:
        line.commit({f"i{x}": at(x) for x in range(200)})
        (found,) = line.search(Search("line", 3), ORIGIN)
        assert found.mode is Mode.APPROXIMATE

    @pytest.mark.skip("of those that tie at the cut, an approximate index proposes any")
    def test_equal_scores_come_by_id_also_at_the_cut(self, make_collection: MakeCollection, metric: Metric) -> None:
        raise NotImplementedError

    @pytest.mark.skip("codes do not tell apart what is nearer to one another than they are fine")
    def test_near_equal_scores_around_the_cut_are_told_apart(self, make_collection: MakeCollection) -> None:
        raise NotImplementedError

    @pytest.mark.skip("products beyond float32 have no order in an approximate index")
    def test_sizes_at_the_ends_of_float32_rank_right(
        self, make_collection: MakeCollection, metric: Metric, size: float
    ) -> None:
        raise NotImplementedError


class TestHnsw(ApproximateContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        return approximate(FaissAnnFactory(), HNSW)


class TestIvf(ApproximateContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        return approximate(FaissAnnFactory(), IVF)


class TestTorch(CollectionIndexContract):
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        pytest.importorskip("torch", reason="needs the extra torch")
        from services.search.engines.torch.device import TorchDevice
        from services.search.engines.torch.vector_index import TorchIndex

        device = TorchDevice("cpu")
        return MakeCollection(
            lambda table: LocalCollectionIndex(
                table.spaces, lambda space: TorchIndex(space.dimensions, space.metric, device)
            )
        )
