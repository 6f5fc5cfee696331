"""What every `VectorIndex` does. Subclass it, give the `make_index` fixture, inherit the tests."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import prepared, ranked, scores_of
from services.search.core.vector_index import Numbers, Ranking, Selection, VectorIndex
from tests.contract.pairs import covering_pairs

MakeIndex = Callable[[int, Metric], VectorIndex]
EYE = np.eye(4, dtype=np.float32)
HIGHER_IS_NEARER = {Metric.COSINE: True, Metric.DOT_PRODUCT: True, Metric.EUCLIDEAN: False}

Shape = Callable[[np.random.Generator, Matrix], Matrix]


def one_of_huge_length(random: np.random.Generator, vectors: Matrix) -> Matrix:
    vectors[random.integers(len(vectors))] *= np.float32(1e18)
    return vectors


def lengths_of_many_sizes(random: np.random.Generator, vectors: Matrix) -> Matrix:
    scaled: Matrix = (vectors * 10.0 ** random.uniform(-12, 12, (len(vectors), 1))).astype(np.float32)
    return scaled


def one_dimension_above_all(random: np.random.Generator, vectors: Matrix) -> Matrix:
    vectors[:, 17] = 40 + random.standard_normal(len(vectors))
    return vectors


def one_dimension_each(random: np.random.Generator, vectors: Matrix) -> Matrix:
    return np.eye(vectors.shape[1], dtype=np.float32)[random.integers(vectors.shape[1], size=len(vectors))]


def close_together(random: np.random.Generator, vectors: Matrix) -> Matrix:
    near: Matrix = vectors[:1] + np.float32(1e-4) * vectors
    return near


def far_from_the_origin(random: np.random.Generator, vectors: Matrix) -> Matrix:
    return vectors + np.float32(1000)


def mostly_zero(random: np.random.Generator, vectors: Matrix) -> Matrix:
    vectors[random.random(len(vectors)) < 0.98] = 0
    vectors[[5, 3000]] = 1
    return vectors


SHAPES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        one_of_huge_length,
        lengths_of_many_sizes,
        one_dimension_above_all,
        one_dimension_each,
        close_together,
        far_from_the_origin,
        mostly_zero,
    )
}


def everything(count: int) -> Selection:
    return Selection.of(np.arange(count), count)


def filled(make_index: MakeIndex, vectors: Matrix, metric: Metric) -> VectorIndex:
    index = make_index(vectors.shape[1], metric)
    index.write(np.arange(len(vectors)), vectors)
    return index


def search(index: VectorIndex, query: Matrix, top_k: int, selection: Selection) -> Ranking:
    (ranking,) = index.search(query[None], top_k, selection)
    return ranking


def expected(vectors: Matrix, metric: Metric, query: Matrix, top_k: int, slots: Numbers) -> dict[int, float]:
    """Best slots by a definition of its own: whole numbers make float64 exact, so nothing is rounded here."""
    chosen = vectors[slots].astype(np.float64)
    match metric:
        case Metric.COSINE:
            scores = chosen @ query / np.sqrt((chosen**2).sum(axis=1) * (query.astype(np.float64) ** 2).sum())
        case Metric.DOT_PRODUCT:
            scores = chosen @ query.astype(np.float64)
        case Metric.EUCLIDEAN:
            scores = np.sqrt(((chosen - query) ** 2).sum(axis=1))
    keys = (-scores if HIGHER_IS_NEARER[metric] else scores).astype(np.float32)
    cut = np.sort(keys)[min(top_k, len(keys)) - 1]
    return {int(slot): float(score) for slot, score, key in zip(slots, scores, keys, strict=True) if key <= cut}


def assert_exact(index: VectorIndex, metric: Metric, queries: Matrix, top_k: int, selection: Selection) -> None:
    """Hold a search, for one vector or for many, to a plain scan of the vectors that the index holds."""
    slots = selection.slots()
    queries = np.atleast_2d(queries)
    for query, ranking in zip(queries, index.search(queries, top_k, selection), strict=True):
        every = ranked(slots, scores_of(query, index.vectors(slots), metric), top_k, metric)
        found = dict(zip(ranking.slots.tolist(), ranking.scores.tolist(), strict=True))
        assert found == dict(zip(every.slots.tolist(), every.scores.tolist(), strict=True))


def assert_ranking(ranking: Ranking, best: dict[int, float]) -> None:
    assert sorted(ranking.slots.tolist()) == sorted(best)
    assert ranking.scores.dtype == np.float32
    assert ranking.scores.tolist() == pytest.approx([best[slot] for slot in ranking.slots.tolist()], rel=1e-6, abs=1e-6)


class VectorIndexContract:
    MEMORY_AT_MOST = 1.3  # of what the vectors take as float32

    @pytest.fixture
    def make_index(self) -> MakeIndex:
        raise NotImplementedError

    def test_nearest_comes_first(self, make_index: MakeIndex) -> None:
        index = filled(make_index, EYE, Metric.COSINE)
        ranking = search(index, np.array([0, 1, 0.5, 0], np.float32), 2, everything(4))
        assert ranking.slots.tolist() == [1, 2]
        assert ranking.scores.tolist() == pytest.approx([0.8944272, 0.4472136])

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize("also", [0, 4, 40])
    def test_what_is_chosen_may_be_far_from_the_query(self, make_index: MakeIndex, metric: Metric, also: int) -> None:
        random = np.random.default_rng(also)
        vectors = random.standard_normal((6000, 48)).astype(np.float32)
        vectors[::2, 0] += 12
        index = filled(make_index, vectors, metric)
        near, far = np.arange(0, 6000, 2), np.arange(1, 6000, 2)
        chosen = Selection.of(np.sort(np.append(near[:also], far)), 6000)
        queries = vectors[near[:6]] + np.float32(0.1)
        assert_exact(index, metric, queries[0], 10, chosen)
        assert_exact(index, metric, queries, 10, chosen)

    def test_cosine_ignores_length(self, make_index: MakeIndex) -> None:
        index = filled(make_index, np.array([[3e-20, 4e-20], [4e15, 3e15]], np.float32), Metric.COSINE)
        ranking = search(index, np.array([6e10, 8e10], np.float32), 2, everything(2))
        assert ranking.scores.tolist() == pytest.approx([1.0, 0.96])

    def test_dot_product_grows_with_length(self, make_index: MakeIndex) -> None:
        index = filled(make_index, np.array([[1, 0], [3, 0], [-5, 0]], np.float32), Metric.DOT_PRODUCT)
        ranking = search(index, np.array([2, 0], np.float32), 3, everything(3))
        assert (ranking.slots.tolist(), ranking.scores.tolist()) == ([1, 0, 2], [6.0, 2.0, -10.0])

    def test_euclidean_is_a_distance_not_its_square(self, make_index: MakeIndex) -> None:
        index = filled(make_index, np.array([[3, 4], [0, 1]], np.float32), Metric.EUCLIDEAN)
        ranking = search(index, np.zeros(2, np.float32), 2, everything(2))
        assert (ranking.slots.tolist(), ranking.scores.tolist()) == ([1, 0], [1.0, 5.0])

    @pytest.mark.parametrize(
        ("metric", "dimensions", "share"),
        covering_pairs(Metric, [1, 2, 3, 7, 8, 17, 64, 255, 4096], [1.0, 0.5, 0.1, 0.005]),
    )
    def test_exact_under_any_selection(
        self, make_index: MakeIndex, metric: Metric, dimensions: int, share: float
    ) -> None:
        random = np.random.default_rng([dimensions, int(share * 1000)])
        count = 1500 if dimensions < 1000 else 300
        vectors = random.integers(-3, 4, (count, dimensions)).astype(np.float32)
        vectors[:, 0] += 4 * (~vectors.any(axis=1))
        index = filled(make_index, vectors, metric)
        slots = np.flatnonzero(random.random(count) < share)
        slots = slots if len(slots) else np.array([count // 2])
        for top_k in (1, 10, 200, 10_000):
            query = random.integers(-3, 4, dimensions).astype(np.float32)
            query[0] += 4 * (not query.any())
            ranking = search(index, query, top_k, Selection.of(slots, count))
            assert_ranking(ranking, expected(vectors, metric, query, top_k, slots))

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize("dimensions", [1, 5, 33, 256])
    def test_fifty_equal_vectors_tie_wherever_they_lie(
        self, make_index: MakeIndex, metric: Metric, dimensions: int
    ) -> None:
        random = np.random.default_rng(dimensions)
        vectors = random.standard_normal((2000, dimensions)).astype(np.float32)
        twins = random.choice(2000, 50, replace=False)
        vectors[twins] = 2 * np.abs(vectors[0])
        index = filled(make_index, vectors, metric)
        for top_k in (1, 10, 49, 50):
            ranking = search(index, vectors[twins[0]], top_k, everything(2000))
            assert len(set(ranking.scores[:top_k].tolist())) == 1 or metric is Metric.DOT_PRODUCT
            found = set(ranking.slots.tolist())
            assert found >= set(twins.tolist()) or not found & set(twins.tolist())

    @pytest.mark.parametrize("metric", Metric)
    def test_near_equal_scores_around_the_cut_are_told_apart(self, make_index: MakeIndex, metric: Metric) -> None:
        random = np.random.default_rng(7)
        query = random.standard_normal(96).astype(np.float32)
        vectors = (query + 1e-6 * random.standard_normal((3000, 96))).astype(np.float32)
        index = filled(make_index, vectors, metric)
        scores = search(index, query, 3000, everything(3000))
        by_slot = dict(zip(scores.slots.tolist(), scores.scores.tolist(), strict=True))
        for top_k in (1, 20, 500):
            ranking = search(index, query, top_k, everything(3000))
            cut = scores.scores[top_k - 1]
            wanted = {
                slot for slot, score in by_slot.items() if (score >= cut if HIGHER_IS_NEARER[metric] else score <= cut)
            }
            assert set(ranking.slots.tolist()) == wanted
            assert [by_slot[slot] for slot in ranking.slots.tolist()] == ranking.scores.tolist()

    @pytest.mark.parametrize("metric", Metric)
    def test_scores_are_those_of_scoring_bit_for_bit(self, make_index: MakeIndex, metric: Metric) -> None:
        random = np.random.default_rng(3)
        vectors: Matrix = random.standard_normal((700, 100)).astype(np.float32)
        query = random.standard_normal(100).astype(np.float32)
        ranking = search(filled(make_index, vectors, metric), query, 700, everything(700))
        assert ranking.scores.tolist() == scores_of(query, prepared(vectors, metric)[ranking.slots], metric).tolist()

    def test_far_from_the_origin_small_distances_count(self, make_index: MakeIndex) -> None:
        vectors = np.float32(4096) + np.arange(1, 1001, dtype=np.float32)[:, None] / 256
        index = filled(make_index, np.repeat(vectors, 8, axis=1), Metric.EUCLIDEAN)
        ranking = search(index, np.full(8, 4096, np.float32), 5, everything(1000))
        assert ranking.slots.tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("metric", [Metric.DOT_PRODUCT, Metric.EUCLIDEAN])
    @pytest.mark.parametrize("size", [1e-30, 1e18, 3e38])
    def test_sizes_at_the_ends_of_float32_rank_right(self, make_index: MakeIndex, metric: Metric, size: float) -> None:
        shares = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]
        index = filled(make_index, shares * np.array([[size, 0, size]], np.float32), metric)
        ranking = search(index, np.array([size, 0, size], np.float32), 1, everything(200))
        assert 199 in ranking.slots.tolist()
        assert np.isfinite(ranking.scores).all()

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_exact_whatever_the_vectors_are_like(self, make_index: MakeIndex, metric: Metric, shape: str) -> None:
        random = np.random.default_rng(11)
        vectors = SHAPES[shape](random, random.standard_normal((4000, 128)).astype(np.float32))
        index = make_index(128, metric)
        for part in np.split(np.arange(4000), [1, 40, 700, 701, 1900]):
            index.write(part, vectors[part])
        noise = random.standard_normal(128).astype(np.float32)
        queries = (vectors[5], vectors[3000] + noise / 100, noise)
        for number, top_k, share in covering_pairs(range(3), (1, 30, 1500), (1.0, 0.4, 0.03, 0.01)):
            slots = np.flatnonzero(random.random(4000) < share)
            assert_exact(index, metric, queries[number], top_k, Selection.of(slots, 4000))

    @pytest.mark.parametrize(("metric", "shape", "share"), covering_pairs(Metric, SHAPES, (1.0, 0.8, 0.4, 0.01)))
    def test_exact_for_many_queries_at_a_time(
        self, make_index: MakeIndex, metric: Metric, shape: str, share: float
    ) -> None:
        random = np.random.default_rng(16)
        vectors = SHAPES[shape](random, random.standard_normal((3001, 128)).astype(np.float32))
        index = filled(make_index, vectors, metric)
        noise = random.standard_normal((13, 128)).astype(np.float32)
        queries = np.concatenate([vectors[:10], vectors[20:33] + noise / 100, noise])
        slots = np.flatnonzero(random.random(3001) < share)
        assert_exact(index, metric, queries if share > 0.5 else queries[::5], 10, Selection.of(slots, 3001))

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize("near", [0, 3, 40, 300])
    def test_a_selection_may_leave_out_what_is_near(self, make_index: MakeIndex, metric: Metric, near: int) -> None:
        random = np.random.default_rng(15)
        query = random.standard_normal(128).astype(np.float32)
        vectors = random.standard_normal((3000, 128)).astype(np.float32)
        vectors[random.permutation(3000)[:1500]] += query
        index = filled(make_index, vectors, metric)
        order = search(index, query, 3000, everything(3000)).slots[:3000]
        slots = np.concatenate([order[:near], order[1500:]])
        for top_k in (1, 10, 60):
            assert_exact(index, metric, query, top_k, Selection.of(slots, 3000))

    @pytest.mark.parametrize("metric", Metric)
    def test_vectors_may_become_unlike_those_before(self, make_index: MakeIndex, metric: Metric) -> None:
        random = np.random.default_rng(12)
        index = make_index(128, metric)
        query = random.standard_normal(128).astype(np.float32)
        for round_number, size in enumerate([1e-3, 1, 1e3, 1e18, 1e3, 1e-3]):
            for slots in np.array_split(random.permutation(1000), 3):
                index.write(slots, (size * random.standard_normal((len(slots), 128))).astype(np.float32))
                if round_number:
                    assert_exact(index, metric, query, 10, everything(1000))

    @pytest.mark.parametrize("metric", Metric)
    def test_searches_next_to_a_writer_of_other_slots_stay_exact(self, make_index: MakeIndex, metric: Metric) -> None:
        random = np.random.default_rng(13)
        index = filled(make_index, random.standard_normal((1500, 128)).astype(np.float32), metric)
        seen = Selection.of(np.arange(0, 1500, 2), 1500)
        done = threading.Event()

        def write() -> None:
            sizes = np.random.default_rng(14)
            fresh = 1500
            while not done.is_set() and fresh < 60_000:
                vectors = sizes.standard_normal((900, 128)) * 10 ** sizes.uniform(-2, 2)
                index.write(
                    np.append(np.arange(1, 1500, 10), np.arange(fresh, fresh + 750)), vectors.astype(np.float32)
                )
                fresh += 750

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for query in random.standard_normal((60, 128)).astype(np.float32):
                assert_exact(index, metric, query, 5, seen)
        finally:
            done.set()
            writer.join()

    def test_writing_a_slot_replaces_its_vector(self, make_index: MakeIndex) -> None:
        index = filled(make_index, EYE, Metric.COSINE)
        index.write(np.array([2, 0]), EYE[[0, 2]])
        ranking = search(index, EYE[0], 1, everything(4))
        assert (ranking.slots.tolist(), ranking.scores.tolist()) == ([2], [1.0])

    def test_slots_are_taken_up_in_any_number_and_order(self, make_index: MakeIndex) -> None:
        random = np.random.default_rng(1)
        vectors = random.standard_normal((3000, 16)).astype(np.float32)
        index = make_index(16, Metric.DOT_PRODUCT)
        for part in np.array_split(random.permutation(3000), 13):
            index.write(part, vectors[part])
        whole = filled(make_index, vectors, Metric.DOT_PRODUCT)
        query = random.standard_normal(16).astype(np.float32)
        assert search(index, query, 50, everything(3000)).slots.tolist() == (
            search(whole, query, 50, everything(3000)).slots.tolist()
        )

    def test_nothing_selected_finds_nothing(self, make_index: MakeIndex) -> None:
        index = filled(make_index, EYE, Metric.COSINE)
        assert len(search(index, EYE[0], 3, Selection.of(np.empty(0, np.int64), 4)).slots) == 0

    def test_many_queries_find_what_each_finds_alone(self, make_index: MakeIndex) -> None:
        random = np.random.default_rng(5)
        index = filled(make_index, random.standard_normal((2000, 96)).astype(np.float32), Metric.COSINE)
        queries = random.standard_normal((70, 96)).astype(np.float32)
        for slots in (np.arange(2000), np.arange(0, 2000, 3), np.arange(20)):
            selection = Selection.of(slots, 2000)
            together = index.search(queries, 7, selection)
            assert len(together) == 70
            for query, ranking in zip(queries, together, strict=True):
                alone = search(index, query, 7, selection)
                assert ranking.slots.tolist() == alone.slots.tolist()
                assert ranking.scores.tolist() == alone.scores.tolist()

    def test_given_slots_are_ranked_by_themselves(self, make_index: MakeIndex) -> None:
        index = filled(make_index, EYE, Metric.COSINE)
        ranking = index.rank(np.array([1, 2, 3, 0], np.float32), 2, np.array([3, 0, 1]))
        assert ranking.slots.tolist() == [1, 0]
        assert ranking.compared == 3

    def test_vectors_come_back_as_held(self, make_index: MakeIndex) -> None:
        index = filled(make_index, 3 * EYE, Metric.COSINE)
        assert index.vectors(np.array([2, 0])).tolist() == EYE[[2, 0]].tolist()
        raw = filled(make_index, 3 * EYE, Metric.DOT_PRODUCT)
        assert raw.vectors(np.array([1])).tolist() == [[0, 3, 0, 0]]

    def test_memory_is_little_over_the_vectors(self, make_index: MakeIndex) -> None:
        index = make_index(128, Metric.COSINE)
        for begin in range(0, 20_000, 500):
            index.write(np.arange(begin, begin + 500), np.ones((500, 128), np.float32))
        assert 20_000 * 128 * 4 <= index.memory_bytes <= self.MEMORY_AT_MOST * 20_000 * 128 * 4
