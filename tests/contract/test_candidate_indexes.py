from dataclasses import replace

import numpy as np
import pytest

from services.common.index_config import Hnsw, Ivf, ProductQuantization, VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.core.candidate_index import AnnFactory, AnnKind, CandidateIndex
from services.search.engines.faiss.factory import FaissAnnFactory
from services.search.engines.memory.candidate_index import MemoryAnnFactory
from tests.contract.candidate_index import COUNT, CandidateIndexContract, clustered, everything, recall


class TestMemoryCandidates(CandidateIndexContract):
    @pytest.fixture(scope="class")
    @classmethod
    def factory(cls) -> AnnFactory:
        return MemoryAnnFactory()

    @pytest.fixture(scope="class")
    @classmethod
    def kind(cls) -> AnnKind:
        return Hnsw()


@pytest.mark.slow
class FaissCandidatesContract(CandidateIndexContract):
    @pytest.fixture(scope="class")
    @classmethod
    def factory(cls) -> AnnFactory:
        return FaissAnnFactory()


class TestFaissHnsw(FaissCandidatesContract):
    @pytest.fixture(scope="class", params=VectorStorage)
    @classmethod
    def kind(cls, request: pytest.FixtureRequest) -> AnnKind:
        return Hnsw(ef_construction=60, storage=request.param)

    def test_other_ef_search_take_no_build(self, index: CandidateIndex, kind: AnnKind) -> None:
        assert isinstance(kind, Hnsw)
        tuned = index.with_search_params(replace(kind, ef_search=9))
        assert tuned is not None
        assert tuned.size == index.size
        assert index.with_search_params(replace(kind, m=9)) is None
        assert index.with_search_params(Ivf()) is None


class TestFaissIvf(FaissCandidatesContract):
    @pytest.fixture(scope="class", params=[*VectorStorage, ProductQuantization(16)])
    @classmethod
    def kind(cls, request: pytest.FixtureRequest) -> AnnKind:
        return Ivf(nlist=64, coding=request.param)

    def test_other_probes_take_no_build(self, index: CandidateIndex, kind: AnnKind, vectors: Matrix) -> None:
        assert isinstance(kind, Ivf)
        one, all_of_them = (index.with_search_params(replace(kind, nprobe=probes)) for probes in (1, 64))
        assert one is not None
        assert all_of_them is not None
        queries, selection = clustered(2, 60)[0], everything()
        assert recall(one, vectors, Metric.COSINE, queries, selection)[0] < 0.95
        assert recall(all_of_them, vectors, Metric.COSINE, queries, selection)[0] > 0.99
        assert index.with_search_params(replace(kind, nlist=65)) is None

    def test_vectors_too_few_to_learn_from_are_told(self, factory: AnnFactory) -> None:
        assert factory.min_vectors(Ivf()) == 1024
        assert factory.min_vectors(Ivf(nlist=1000)) == 8000
        assert factory.min_vectors(Ivf(coding=ProductQuantization(8))) == 4096

    def test_grown_fourfold_it_is_not_extended(self, own_index: CandidateIndex) -> None:
        current = np.ones(COUNT, np.bool_)
        assert own_index.extend(current, 3 * COUNT) is not None
        assert own_index.extend(current, 3 * COUNT + 1) is None
