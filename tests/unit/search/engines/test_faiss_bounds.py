"""No vector is more similar than what projections, codes and float32 say at most, and bounds are close to the truth."""

import faiss
import numpy as np
import pytest

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import Doubles, lengths_of, prepared
from services.search.core.vector_index import Selection
from services.search.engines.faiss.codes import CodeTable
from services.search.engines.faiss.filters import RowFilter
from services.search.engines.faiss.float_bounds import similarity_bounds
from services.search.engines.faiss.projection import BLOCK, PcaProjection, Projection, Rotation, principal_axes
from services.search.engines.faiss.quantizer import Quantizer, verify_whole_numbers
from services.search.engines.faiss.query_batch import QueryBatch
from tests.unit.search.directions import along_few_directions

COUNT = 500


def similarities(vectors: Matrix, batch: QueryBatch) -> Doubles:
    exact, queries = vectors.astype(np.float64), batch.directions
    found: Doubles = queries @ exact.T
    if batch.metric is Metric.EUCLIDEAN:
        found = -np.linalg.norm(queries[:, None] - exact[None], axis=2)
    return found


def code_bounds(quantizer: Quantizer, vectors: Matrix, batch: QueryBatch) -> tuple[Doubles, CodeTable]:
    """Return the bounds that the codes of `vectors` give, minus infinity for outliers."""
    table = CodeTable.encode(quantizer, vectors, len(vectors), 0)
    every = RowFilter.of(Selection(len(vectors), len(vectors)), 0, len(vectors))
    rows, found, _ = table.search(batch, len(vectors), every)
    bounds = np.full(rows.shape, -np.inf)
    np.put_along_axis(bounds, rows, found, axis=1)
    return bounds, table


def assert_bounded(projection: Projection, vectors: Matrix, queries: Matrix, metric: Metric) -> None:
    vectors, batch = prepared(vectors, metric), QueryBatch.of(queries, metric)
    bounds, table = code_bounds(Quantizer.fit(projection, metric, vectors), vectors, batch)
    tight = np.setdiff1d(np.arange(len(vectors)), table.outliers)
    assert len(tight) > len(vectors) / 2
    assert (bounds[:, tight] >= similarities(vectors, batch)[:, tight]).all()


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimensions", [1, 2, 31, 100, 256, 1000])
@pytest.mark.parametrize("exponent", [-9, 0, 6])
def test_no_vector_is_more_similar_than_its_code_says(metric: Metric, dimensions: int, exponent: int) -> None:
    random = np.random.default_rng([dimensions, exponent + 9])
    sizes = 10.0 ** random.uniform(exponent - 1, exponent + 1, (COUNT, 1))
    vectors = (sizes * random.standard_normal((COUNT, dimensions))).astype(np.float32)
    vectors[3] = 0
    spike = np.eye(dimensions, dtype=np.float32)[:1]
    queries = np.concatenate([vectors[[7]], -vectors[[8]], spike, spike + 1e-3, vectors[[9]] * np.float32(1e5)])
    assert_bounded(Rotation(dimensions), vectors, queries, metric)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("width", [32, 96])
@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_no_vector_is_more_similar_than_its_narrow_code_says(metric: Metric, width: int, noise: float) -> None:
    random = np.random.default_rng(width)
    vectors = along_few_directions(random, COUNT, noise)
    queries = np.concatenate([vectors[[7]], random.standard_normal((2, vectors.shape[1]))]).astype(np.float32)
    assert_bounded(PcaProjection(principal_axes(vectors.astype(np.float64)), width), vectors, queries, metric)


@pytest.mark.parametrize("width", [32, 224])
def test_projected_vectors_have_no_smaller_product_and_no_greater_distance(width: int) -> None:
    vectors = along_few_directions(np.random.default_rng(width), COUNT, 0.3)
    exact, lengths = vectors.astype(np.float64), lengths_of(vectors)
    narrow = PcaProjection(principal_axes(exact), width).project(vectors, lengths)
    assert narrow.shape == (COUNT, width)
    assert (narrow @ narrow.T >= exact @ exact.T - 1e-9 * np.outer(lengths, lengths)).all()
    far = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    assert (np.linalg.norm(narrow[:, None] - narrow[None], axis=2) <= far + 1e-6 * lengths).all()


@pytest.mark.parametrize("dimensions", [1, 33, 384])
def test_a_rotation_keeps_all_products_and_spreads_all_numbers(dimensions: int) -> None:
    vectors = np.eye(dimensions, dtype=np.float32)
    turned = Rotation(dimensions).project(vectors, lengths_of(vectors))
    assert turned.shape[1] % BLOCK == 0
    assert np.allclose(turned @ turned.T, vectors, atol=1e-12)
    assert np.abs(turned).max() < 0.95


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimensions", [1, 100, 4096])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e18, 1e37])
def test_no_similarity_leaves_what_float32_says(metric: Metric, dimensions: int, size: float) -> None:
    random = np.random.default_rng(dimensions)
    vectors = prepared((size * random.uniform(-1, 1, (100, dimensions))).astype(np.float32), metric)
    batch = QueryBatch.of((size * random.uniform(-1, 1, (1, dimensions))).astype(np.float32), metric)
    with np.errstate(over="ignore", invalid="ignore"):
        least, most = similarity_bounds(vectors, batch, np.zeros(100, np.int64))
    (true,) = similarities(vectors, batch)
    assert (least <= true).all()
    assert (true <= most).all()


@pytest.mark.parametrize("dimensions", [100, 384, 1024])
@pytest.mark.parametrize("above_all", [0.0, 30.0])
def test_bounds_are_close_to_the_truth(dimensions: int, above_all: float) -> None:
    vectors = np.random.default_rng(dimensions).standard_normal((COUNT, dimensions)).astype(np.float32)
    vectors[:, 5] += above_all
    vectors = prepared(vectors, Metric.COSINE)
    batch = QueryBatch.of(vectors[7:8], Metric.COSINE)
    bounds, table = code_bounds(Quantizer.fit(Rotation(dimensions), Metric.COSINE, vectors), vectors, batch)
    assert not len(table.outliers)
    assert np.median(bounds - similarities(vectors, batch)) < 0.03


def test_vectors_far_larger_than_the_rest_are_outliers_of_a_scale_for_the_rest() -> None:
    vectors = np.random.default_rng(2).standard_normal((1000, 128)).astype(np.float32)
    usual = Quantizer.fit(Rotation(128), Metric.DOT_PRODUCT, vectors).scale
    vectors[[4, 60]] *= 1e6
    quantizer = Quantizer.fit(Rotation(128), Metric.DOT_PRODUCT, vectors)
    assert quantizer.scale == pytest.approx(usual, rel=0.5)
    assert np.flatnonzero(quantizer.encode(vectors).outliers).tolist() == [4, 60]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("width", [32, 96, 288, 416, 832, 4096])
@pytest.mark.parametrize("level", ["NONE", "AVX2", "AVX512", "ARM_NEON"])
def test_whole_numbers_are_scored_exactly_on_every_processor(metric: Metric, width: int, level: str) -> None:
    simd = faiss.SIMDConfig
    before, wanted = simd.get_level(), getattr(faiss, f"SIMDLevel_{level}")
    if not simd.is_simd_level_available(wanted):
        pytest.skip(f"this processor has no {level}")
    try:
        simd.set_level(wanted)
        verify_whole_numbers.__wrapped__(width, metric)
    finally:
        simd.set_level(before)
