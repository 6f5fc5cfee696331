"""Vectors: metrics, and conversion from and to bytes."""

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from services.common.errors import DimensionError, VectorError

Matrix = NDArray[np.float32]

MAX_DIMENSIONS = 4096


class Metric(Enum):
    """How two vectors of a space are compared; see `medley.v1.Metric` for range and direction."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot_product"
    EUCLIDEAN = "euclidean"


def from_bytes(float32_le: bytes, dimensions: int | None = None) -> Matrix:
    """Return the vector in `float32_le`, shape (dimensions,), read-only; None accepts any length over 0.

    Raises:
        VectorError: not a whole number of floats, or one is NaN or infinite.
        DimensionError: it has another length.
    """
    if len(float32_le) % 4 or not float32_le:
        raise VectorError(f"of {len(float32_le)} bytes is not a whole number of float32")
    vector: Matrix = np.frombuffer(float32_le, dtype="<f4")
    if dimensions is not None and len(vector) != dimensions:
        raise DimensionError(dimensions, len(vector))
    if not np.isfinite(vector).all():
        raise VectorError("has a NaN or infinite component")
    return vector


def rows_from_bytes(float32_le: bytes, dimensions: int) -> Matrix:
    """Return the concatenated vectors in `float32_le`, shape (n, dimensions), read-only, without validation."""
    rows: Matrix = np.frombuffer(float32_le, dtype="<f4").reshape(-1, dimensions)
    return rows


def to_bytes(vector: Matrix) -> bytes:
    """Return `vector` as little-endian float32."""
    return vector.astype("<f4", copy=False).tobytes()


def validate_comparable(vector: Matrix, metric: Metric) -> Matrix:
    """Return `vector` if `metric` can compare it.

    Raises:
        VectorError: the metric is cosine and its length is zero.
    """
    if metric is Metric.COSINE and not vector.any():
        raise VectorError("has length zero, which cosine cannot compare")
    return vector
