from dataclasses import replace

import numpy as np
import pytest

from services.common.index_config import Hnsw, Ivf, ProductCodes, VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.core.candidate_index import CandidateIndex, CandidateMaker, Kind
from services.search.engines.faiss.factory import FaissCandidateMaker
from services.search.engines.memory.candidate_index import MemoryCandidateMaker
from tests.contract.candidate_index import COUNT, CandidateIndexContract, clustered, everything, recall


class TestMemoryCandidates(CandidateIndexContract):
    @pytest.fixture
    def maker(self) -> CandidateMaker:
        return MemoryCandidateMaker()

    @pytest.fixture
    def kind(self) -> Kind:
        return Hnsw()


class FaissCandidatesContract(CandidateIndexContract):
    @pytest.fixture
    def maker(self) -> CandidateMaker:
        return FaissCandidateMaker()


class TestFaissHnsw(FaissCandidatesContract):
    @pytest.fixture(params=VectorStorage)
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        return Hnsw(build_candidates=60, storage=request.param)

    def test_other_search_candidates_take_no_build(self, index: CandidateIndex, kind: Kind) -> None:
        assert isinstance(kind, Hnsw)
        retuned = index.retuned(replace(kind, search_candidates=9))
        assert retuned is not None
        assert retuned.size == index.size
        assert index.retuned(replace(kind, neighbours=9)) is None
        assert index.retuned(Ivf()) is None


class TestFaissIvf(FaissCandidatesContract):
    @pytest.fixture(params=[*VectorStorage, ProductCodes(16)])
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        return Ivf(lists=64, coding=request.param)

    def test_other_probes_take_no_build(self, index: CandidateIndex, kind: Kind, vectors: Matrix) -> None:
        assert isinstance(kind, Ivf)
        one, all_of_them = (index.retuned(replace(kind, probes=probes)) for probes in (1, 64))
        assert one is not None
        assert all_of_them is not None
        queries, selection = clustered(2, 60)[0], everything()
        assert recall(one, vectors, Metric.COSINE, queries, selection)[0] < 0.95
        assert recall(all_of_them, vectors, Metric.COSINE, queries, selection)[0] > 0.99
        assert index.retuned(replace(kind, lists=65)) is None

    def test_vectors_too_few_to_learn_from_are_told(self, maker: CandidateMaker) -> None:
        assert maker.least(Ivf()) == 1024
        assert maker.least(Ivf(lists=1000)) == 8000
        assert maker.least(Ivf(coding=ProductCodes(8))) == 4096

    def test_grown_fourfold_it_is_not_extended(self, index: CandidateIndex) -> None:
        current = np.ones(COUNT, np.bool_)
        assert index.extending(current, 3 * COUNT) is not None
        assert index.extending(current, 3 * COUNT + 1) is None
