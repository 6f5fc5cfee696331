"""What is held is prepared: an index that is filled from another holds the same bits."""

import numpy as np
import pytest

from services.common.vectors import Metric
from services.search.core.scoring import lengths_of, prepared


@pytest.mark.parametrize("dimensions", [1, 2, 3, 24, 512, 4096])
@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_prepared_vectors_are_prepared_already(dimensions: int, scale: float) -> None:
    drawn = np.random.default_rng(dimensions).standard_normal((200_000 // dimensions, dimensions))
    held = prepared((drawn * scale).astype(np.float32), Metric.COSINE)
    assert np.allclose(lengths_of(held), 1, rtol=0, atol=1e-7)
    assert prepared(held, Metric.COSINE).tobytes() == held.tobytes()


def test_only_rows_of_another_length_are_scaled_and_the_zero_vector_stays() -> None:
    vectors = np.array([[3, 4], [1, 0], [0, 0]], np.float32)
    assert prepared(vectors, Metric.COSINE).tolist() == np.array([[0.6, 0.8], [1, 0], [0, 0]], np.float32).tolist()
    assert vectors.tolist() == [[3, 4], [1, 0], [0, 0]], "the caller's own stay as they are"


@pytest.mark.parametrize("metric", [Metric.DOT_PRODUCT, Metric.EUCLIDEAN])
def test_other_metrics_take_vectors_as_they_are(metric: Metric) -> None:
    vectors = np.array([[3, 4]], np.float32)
    assert prepared(vectors, metric).tolist() == [[3, 4]]
