"""Codes bound every vector from above, and closely enough to be worth it."""

import faiss
import numpy as np
import pytest

from services.common.index_config import VectorStorage
from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_axes import Axes, principal_axes
from services.search.adapters.faiss_codes import Coding
from services.search.adapters.faiss_scan import Chosen, CodeScan, scans_floats, scans_whole
from services.search.core.scoring import Doubles, lengths_of, prepared

COMPACT = [VectorStorage.INT8, VectorStorage.FLOAT16]
USUAL_GAPS = {VectorStorage.INT8: 0.022, VectorStorage.FLOAT16: 0.002}


def bounds(
    coding: Coding, vectors: Matrix, scale: float, query: Doubles
) -> tuple[Doubles, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    coded = coding.coded(vectors, lengths_of(vectors), scale)
    scan = CodeScan(coded.codes, coding.quantizer)
    length = np.array([np.linalg.norm(query)])
    asked = coding.asked(coding.turned_queries(query[None], length), length, scale)
    rows, scores = scan.above(asked.numbers[0], -np.inf, Chosen(len(vectors)))
    bounds = np.empty(len(vectors))
    bounds[rows] = asked.bounds(scores[None])[0]
    return bounds, coded.loose


def closeness(vectors: Matrix, query: Doubles, metric: Metric) -> Doubles:
    products: Doubles = vectors.astype(np.float64) @ query
    return products - lengths_of(vectors) ** 2 / 2 if metric is Metric.EUCLIDEAN else products


@pytest.mark.parametrize("storage", COMPACT)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimensions", [1, 2, 31, 100, 256, 1000])
@pytest.mark.parametrize("exponent", [-9, 0, 6])
def test_no_vector_is_closer_than_its_bound(
    storage: VectorStorage, metric: Metric, dimensions: int, exponent: int
) -> None:
    random = np.random.default_rng([dimensions, exponent + 9])
    spread = 10.0 ** random.uniform(exponent - 1, exponent + 1, (500, 1))
    vectors = prepared((spread * random.standard_normal((500, dimensions))).astype(np.float32), metric)
    vectors[3] = 0
    coding = Coding(dimensions, metric, storage)
    for scale in (
        coding.scale_for(vectors, lengths_of(vectors)),
        3 * coding.scale_for(vectors, lengths_of(vectors)),
        coding.scale_for(vectors, lengths_of(vectors)) / 7,
    ):
        for query in (vectors[7].astype(np.float64), random.standard_normal(dimensions)):
            above, loose = bounds(coding, vectors, scale, query)
            assert (above[~loose] >= closeness(vectors, query, metric)[~loose]).all()


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("width", [3, 48, 112])
@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0])
def test_no_vector_is_closer_than_the_bound_of_its_narrow_code(metric: Metric, width: int, spread: float) -> None:
    random = np.random.default_rng(width)
    along = random.standard_normal((500, 40)) @ random.standard_normal((40, 256))
    vectors = prepared((along + spread * random.standard_normal((500, 256))).astype(np.float32), metric)
    coding = Coding(256, metric, VectorStorage.INT8, Axes(principal_axes(vectors)[: width - 1]))
    scale = coding.scale_for(vectors, lengths_of(vectors))
    for query in (vectors[7].astype(np.float64), random.standard_normal(256)):
        asked = query / np.linalg.norm(query) if metric is Metric.COSINE else query
        above, loose = bounds(coding, vectors, scale, asked)
        assert not loose.all()
        assert (above[~loose] >= closeness(vectors, asked, metric)[~loose]).all()


@pytest.mark.parametrize("storage", COMPACT)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dimensions", [100, 384, 1024])
@pytest.mark.parametrize("outlier", [0.0, 30.0])
def test_bounds_are_close_to_the_truth(storage: VectorStorage, metric: Metric, dimensions: int, outlier: float) -> None:
    random = np.random.default_rng(dimensions)
    vectors = random.standard_normal((500, dimensions)).astype(np.float32)
    vectors[:, 5] += outlier
    vectors = prepared(vectors, Metric.COSINE)
    coding = Coding(dimensions, metric, storage)
    query = vectors[7].astype(np.float64)
    above, loose = bounds(coding, vectors, coding.scale_for(vectors, lengths_of(vectors)), query)
    assert not loose.any()
    assert np.median(above - closeness(vectors, query, metric)) < USUAL_GAPS[storage]


@pytest.mark.parametrize("storage", COMPACT)
def test_what_a_code_cannot_tell_is_loose(storage: VectorStorage) -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((100, 128)).astype(np.float32)
    coding = Coding(128, Metric.DOT_PRODUCT, storage)
    scale = coding.scale_for(vectors, lengths_of(vectors))
    vectors[[4, 60]] *= 1e6
    coded = coding.coded(vectors, lengths_of(vectors), scale)
    assert np.flatnonzero(coded.loose).tolist() == [4, 60]


@pytest.mark.parametrize("storage", COMPACT)
def test_few_far_larger_vectors_do_not_make_the_scale_coarse(storage: VectorStorage) -> None:
    random = np.random.default_rng(2)
    vectors = random.standard_normal((1000, 128)).astype(np.float32)
    coding = Coding(128, Metric.DOT_PRODUCT, storage)
    usual = coding.scale_for(vectors, lengths_of(vectors))
    vectors[::100] *= 1e6
    assert coding.scale_for(vectors, lengths_of(vectors)) == pytest.approx(usual, rel=0.5)


@pytest.mark.parametrize("least", [1, 14, 30, 62, 98, 254, 382, 766, 1022, 4095])
@pytest.mark.parametrize("level", ["NONE", "AVX2", "AVX512", "ARM_NEON"])
def test_codes_are_scanned_for_the_query_itself_on_every_processor(least: int, level: str) -> None:
    simd = faiss.SIMDConfig
    before, wanted = simd.get_level(), getattr(faiss, f"SIMDLevel_{level}")
    if not simd.is_simd_level_available(wanted):
        pytest.skip(f"this processor has no {level}")
    try:
        simd.set_level(wanted)
        coding = Coding(least, Metric.EUCLIDEAN, VectorStorage.INT8)
        assert scans_floats(coding.quantizer)
    finally:
        simd.set_level(before)


@pytest.mark.parametrize("width", [96, 288, 416, 832, 4352])
@pytest.mark.parametrize("level", ["NONE", "AVX2", "AVX512", "ARM_NEON"])
def test_whole_queries_are_scanned_exactly_on_every_processor(width: int, level: str) -> None:
    simd = faiss.SIMDConfig
    before, wanted = simd.get_level(), getattr(faiss, f"SIMDLevel_{level}")
    if not simd.is_simd_level_available(wanted):
        pytest.skip(f"this processor has no {level}")
    try:
        simd.set_level(wanted)
        assert scans_whole.__wrapped__(width, faiss.ScalarQuantizer.QT_8bit_direct_signed)
    finally:
        simd.set_level(before)


@pytest.mark.parametrize("dimensions", [384, 4096])
def test_bounds_hold_for_queries_that_round_badly(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    vectors = prepared(random.standard_normal((300, dimensions)).astype(np.float32), Metric.COSINE)
    coding = Coding(dimensions, Metric.COSINE, VectorStorage.INT8)
    scale = coding.scale_for(vectors, lengths_of(vectors))
    flat = np.ones(dimensions) / np.sqrt(dimensions)
    spike = np.eye(dimensions)[3]
    mixed = 0.999 * spike + 1e-3 * flat
    for query in (flat, spike, mixed / np.linalg.norm(mixed), -vectors[0].astype(np.float64)):
        above, loose = bounds(coding, vectors, scale, query)
        assert not loose.any()
        assert (above >= closeness(vectors, query, Metric.COSINE)).all()
