"""What every `AnnFactory` and the indexes it makes do. Subclass it, give the fixtures, inherit the tests."""

import io
import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from services.common.vectors import Matrix, Metric
from services.search.core.candidate_index import AnnBuilder, AnnFactory, AnnKind, CandidateIndex
from services.search.core.change_feed import Space
from services.search.core.scoring import prepared, ranked, scores_of
from services.search.core.vector_index import Numbers, Selection

COUNT = 6000
DIMENSIONS = 32
TOP_K = 10


def clustered(seed: int, count: int = COUNT, clusters: int = 40) -> tuple[Matrix, Numbers]:
    """Vectors around centres, of lengths that differ, and the number of each one's centre."""
    centres = np.random.default_rng(0).standard_normal((clusters, DIMENSIONS))
    random = np.random.default_rng(seed)
    of = random.integers(clusters, size=count)
    vectors = (centres[of] + 0.6 * random.standard_normal((count, DIMENSIONS))) * random.lognormal(0, 0.3, (count, 1))
    return vectors.astype(np.float32), of


def start_builder(factory: AnnFactory, kind: AnnKind, vectors: Matrix, metric: Metric) -> AnnBuilder:
    space = Space("a", vectors.shape[1], metric)
    order = np.random.default_rng(1).permutation(len(vectors))
    steps = factory.new_builder(space, kind, len(vectors), lambda count: vectors[order[:count]])
    while True:
        try:
            assert next(steps) == 0
        except StopIteration as end:
            builder: AnnBuilder = end.value
            return builder


def built(
    factory: AnnFactory, kind: AnnKind, vectors: Matrix, metric: Metric, slots: Numbers | None = None
) -> CandidateIndex:
    builder = start_builder(factory, kind, vectors, metric)
    numbers = np.arange(len(vectors)) if slots is None else slots
    for part in np.array_split(np.arange(len(vectors)), 7):
        builder.add(numbers[part], vectors[part])
    return builder.finish()


def everything(count: int = COUNT) -> Selection:
    return Selection.of(np.arange(count), count)


def best(vectors: Matrix, metric: Metric, query: Matrix, slots: Numbers) -> set[int]:
    return set(ranked(slots, scores_of(query, vectors[slots], metric), TOP_K, metric).slots.tolist())


def recall(
    index: CandidateIndex, vectors: Matrix, metric: Metric, queries: Matrix, selection: Selection
) -> tuple[float, int]:
    """Mean recall of the queries for which there are candidates, and their number."""
    slots = selection.slots()
    found = [
        len(best(vectors, metric, query, slots) & set(proposed.tolist())) / TOP_K
        for query, proposed in zip(queries, index.candidates(queries, TOP_K, selection), strict=True)
        if len(proposed)
    ]
    return float(np.mean(found)) if found else 1.0, len(found)


class CandidateIndexContract:
    @pytest.fixture(scope="class")
    @classmethod
    def factory(cls) -> AnnFactory:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def kind(cls) -> AnnKind:
        raise NotImplementedError

    @pytest.fixture
    def vectors(self) -> Matrix:
        return prepared(clustered(1)[0], Metric.COSINE)

    @pytest.fixture(scope="class")
    @classmethod
    def index_by(cls, factory: AnnFactory, kind: AnnKind) -> Callable[[Metric], CandidateIndex]:
        """Gives an index by a metric, built once and for reading only."""
        return cache(lambda metric: built(factory, kind, prepared(clustered(1)[0], metric), metric))

    @pytest.fixture
    def index(self, index_by: Callable[[Metric], CandidateIndex]) -> CandidateIndex:
        return index_by(Metric.COSINE)

    @pytest.fixture
    def own_index(self, factory: AnnFactory, kind: AnnKind, vectors: Matrix) -> CandidateIndex:
        """An index that the test may extend."""
        return built(factory, kind, vectors, Metric.COSINE)

    @pytest.mark.parametrize("metric", Metric)
    def test_the_nearest_are_proposed(self, index_by: Callable[[Metric], CandidateIndex], metric: Metric) -> None:
        vectors, queries = prepared(clustered(1)[0], metric), clustered(2, 60)[0]
        index = index_by(metric)
        found, answered = recall(index, vectors, metric, queries, everything())
        assert (found >= 0.95, answered) == (True, 60)
        assert index.size == COUNT

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize(("share", "least"), [(0.5, 60), (0.2, 0)])
    def test_filters_lose_nothing(
        self, index_by: Callable[[Metric], CandidateIndex], metric: Metric, share: float, least: int
    ) -> None:
        vectors, queries = prepared(clustered(1)[0], metric), clustered(2, 60)[0]
        slots = np.flatnonzero(np.random.default_rng(3).random(COUNT) < share)
        found, answered = recall(index_by(metric), vectors, metric, queries, Selection.of(slots, COUNT))
        assert found >= 0.95
        assert answered >= least

    def test_a_filter_that_leaves_only_what_lies_far_finds_it_or_nothing(
        self, index: CandidateIndex, vectors: Matrix
    ) -> None:
        of = clustered(1)[1]
        queries = vectors[np.flatnonzero(of == 7)[:30]]
        found, _ = recall(index, vectors, Metric.COSINE, queries, Selection.of(np.flatnonzero(of < 7), COUNT))
        assert found >= 0.95

    @pytest.mark.parametrize("share", [1.0, 0.6, 0.3, 0.01])
    def test_only_selected_slots_are_proposed_each_once(self, index: CandidateIndex, share: float) -> None:
        slots = np.flatnonzero(np.random.default_rng(4).random(COUNT) < share)
        for proposed in index.candidates(clustered(2, 20)[0], TOP_K, Selection.of(slots, COUNT)):
            assert len(set(proposed.tolist())) == len(proposed)
            assert set(proposed.tolist()) <= set(slots.tolist())

    def test_slots_beyond_the_extent_are_not_selected(self, index: CandidateIndex, vectors: Matrix) -> None:
        for proposed in index.candidates(vectors[4000:4020], TOP_K, everything(4000)):
            assert (proposed < 4000).all()

    def test_many_queries_get_what_each_gets_alone(self, index: CandidateIndex) -> None:
        queries = clustered(2, 40)[0]
        for selection in (everything(), Selection.of(np.arange(0, COUNT, 3), COUNT)):
            together = index.candidates(queries, TOP_K, selection)
            alone = [index.candidates(query[None], TOP_K, selection)[0] for query in queries]
            assert [sorted(each.tolist()) for each in together] == [sorted(each.tolist()) for each in alone]

    def test_the_length_of_a_query_changes_nothing_under_cosine(self, index: CandidateIndex) -> None:
        (query,) = clustered(2, 1)[0]
        near, far = index.candidates(np.stack([query * np.float32(1e-20), query * 1e18]), TOP_K, everything())
        assert set(near.tolist()) == set(far.tolist())

    def test_slots_are_what_the_caller_says(self, factory: AnnFactory, kind: AnnKind, vectors: Matrix) -> None:
        slots = np.random.default_rng(5).permutation(3 * COUNT)[:COUNT]
        index = built(factory, kind, vectors, Metric.COSINE, slots)
        proposals = index.candidates(vectors[:50], 1, Selection.of(slots, 3 * COUNT))
        assert all(slot in proposed for slot, proposed in zip(slots[:50], proposals, strict=True))

    def test_a_slot_added_again_is_proposed_for_its_new_vector_alone(
        self, factory: AnnFactory, kind: AnnKind, vectors: Matrix
    ) -> None:
        builder = start_builder(factory, kind, vectors, Metric.COSINE)
        builder.add(np.arange(COUNT), vectors)
        builder.add(np.arange(50), vectors[-50:])
        index = builder.finish()
        for slot, proposed in enumerate(index.candidates(vectors[-50:], 5, everything())):
            assert slot in proposed
            assert len(set(proposed.tolist())) == len(proposed)
        assert index.size == COUNT + 50

    def test_extending_takes_in_and_leaves_out_and_the_old_one_stays(
        self, own_index: CandidateIndex, vectors: Matrix
    ) -> None:
        index = own_index
        more = prepared(clustered(9, 500)[0], Metric.COSINE)
        current = np.ones(COUNT, np.bool_)
        current[:300] = False
        builder = index.extend(current, 500)
        assert builder is not None
        builder.add(np.arange(COUNT, COUNT + 500), more)
        extended = builder.finish()
        together = np.concatenate([vectors, more])
        slots = np.arange(300, COUNT + 500)
        queries = clustered(2, 60)[0]
        wide = everything(COUNT + 500)
        assert recall(extended, together, Metric.COSINE, queries, Selection.of(slots, COUNT + 500))[0] >= 0.95
        assert all((proposed >= 300).all() for proposed in extended.candidates(vectors[:50], TOP_K, wide))
        assert all((proposed < COUNT).all() for proposed in index.candidates(more[:50], TOP_K, wide))
        assert recall(index, vectors, Metric.COSINE, queries, everything())[0] >= 0.95

    def test_what_is_mostly_dead_is_not_extended(self, own_index: CandidateIndex) -> None:
        current = np.ones(COUNT, np.bool_)
        current[: COUNT // 3] = False
        assert own_index.extend(current, 1) is None

    def test_searches_go_on_while_it_is_extended(self, own_index: CandidateIndex, vectors: Matrix) -> None:
        index = own_index
        builder = index.extend(np.ones(COUNT, np.bool_), 2000)
        assert builder is not None
        queries = vectors[:20]
        expected = [proposed.tolist() for proposed in index.candidates(queries, TOP_K, everything())]
        done, wrong = threading.Event(), list[Sequence[int]]()

        def search() -> None:
            while not done.is_set():
                found = [proposed.tolist() for proposed in index.candidates(queries, TOP_K, everything())]
                wrong.extend(one for one, other in zip(found, expected, strict=True) if one != other)

        searches = [threading.Thread(target=search) for _ in range(2)]
        for thread in searches:
            thread.start()
        for part in np.array_split(np.arange(2000), 10):
            builder.add(COUNT + part, vectors[part])
        done.set()
        for thread in searches:
            thread.join()
        assert wrong == []

    def test_it_is_saved_and_loaded(self, factory: AnnFactory, index: CandidateIndex) -> None:
        file = io.BytesIO()
        index.save(file)
        file.write(b"behind it")
        file.seek(0)
        loaded = factory.load(file)
        queries = clustered(2, 30)[0]
        assert [proposed.tolist() for proposed in loaded.candidates(queries, TOP_K, everything())] == (
            [proposed.tolist() for proposed in index.candidates(queries, TOP_K, everything())]
        )
        assert (loaded.engine, loaded.size) == (index.engine, index.size)
        builder = loaded.extend(np.ones(COUNT, np.bool_), 1)
        assert builder is not None

    def test_what_was_not_saved_whole_is_refused(self, factory: AnnFactory, index: CandidateIndex) -> None:
        file = io.BytesIO()
        index.save(file)
        for kept in (0, 1, 40, 2000, -1):
            with pytest.raises(ValueError, match="can be read"):
                factory.load(io.BytesIO(file.getvalue()[:kept]))

    def test_retuned_for_the_same_kind_it_proposes_the_same_or_is_to_be_built(
        self, index: CandidateIndex, kind: AnnKind
    ) -> None:
        tuned = index.with_search_params(kind)
        if tuned is not None:
            (one,), (other,) = (each.candidates(clustered(2, 1)[0], TOP_K, everything()) for each in (index, tuned))
            assert one.tolist() == other.tolist()

    def test_equal_and_zero_vectors_do_no_harm(self, factory: AnnFactory, kind: AnnKind, vectors: Matrix) -> None:
        same = vectors.copy()
        same[:2000] = same[0]
        same[2000:3000] = 0
        index = built(factory, kind, same, Metric.COSINE)
        assert all(len(each) >= 10 for each in index.candidates(same[[0, 3001, 4000]], 10, everything()))

    @pytest.mark.parametrize("metric", [Metric.DOT_PRODUCT, Metric.EUCLIDEAN])
    @pytest.mark.parametrize("size", [1e-15, 1e18, 1e35])
    def test_vectors_of_any_size_are_found(
        self, factory: AnnFactory, kind: AnnKind, metric: Metric, size: float
    ) -> None:
        small, queries = clustered(1)[0], clustered(2, 30)[0]
        index = built(factory, kind, small * np.float32(size), metric)
        proposals = index.candidates(queries * np.float32(size), TOP_K, everything())
        found = [
            len(best(small, metric, query, np.arange(COUNT)) & set(proposed.tolist())) / TOP_K
            for query, proposed in zip(queries, proposals, strict=True)
        ]
        assert np.mean(found) >= 0.95

    def test_memory_is_counted(self, index: CandidateIndex) -> None:
        assert COUNT * 8 <= index.memory_bytes <= COUNT * (DIMENSIONS * 4 + 32 * 16)
