"""Fewer numbers for a vector, from which no inner product comes out too small.

Vectors of models lie mostly along few directions, their principal axes. Let a be the components of x along some of
them, and t the length of what is left of x. By Cauchy and Schwarz, for any two vectors,

    x·q ≤ a(x)·a(q) + t(x) t(q)

which is the inner product of (a(x), t(x)) and (a(q), t(q)): vectors that are narrower, and as long as x and q are. How
well the axes suit the vectors decides how much too large it is, and nothing else.
"""

from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix
from services.search.core.scoring import Doubles

Float = TypeVar("Float", np.float32, np.float64)

_UNIT_ROUNDOFF = 2.0**-24


class Axes:
    """Orthonormal axes, one a row."""

    def __init__(self, axes: Matrix) -> None:
        self.axes = axes
        count, dimensions = axes.shape
        moved = np.sqrt(count) * (dimensions + 2) * _UNIT_ROUNDOFF  # of a vector's length, by float32
        askew = 4 * count * _UNIT_ROUNDOFF  # how far from orthonormal rows of float32 can be
        self.loss = float(2 * moved + moved**2 + askew)
        library: Any = faiss  # its stubs know the C++ signatures only
        self._product = library.LinearTransform(dimensions, count, False)
        library.copy_array_to_vector(np.ascontiguousarray(axes, np.float32).ravel(), self._product.A)
        self._product.is_trained = True

    @property
    def width(self) -> int:
        """Numbers of a narrowed vector."""
        return len(self.axes) + 1

    def narrowed(self, vectors: NDArray[Float], lengths: Doubles) -> NDArray[Float]:
        """Return `vectors`, shape (n, dimensions), of `lengths`, narrowed: shape (n, width).

        The inner product of two narrowed vectors is at least that of the vectors, less `loss` times their lengths, and
        a narrowed vector is longer than the vector by `loss` of it at most.
        """
        narrow = np.empty((len(vectors), self.width), vectors.dtype)
        narrow[:, :-1] = self._product.apply(np.ascontiguousarray(vectors, np.float32))
        along = np.einsum("ij,ij->i", narrow[:, :-1], narrow[:, :-1], dtype=np.float64)
        narrow[:, -1] = np.sqrt(np.maximum(lengths**2 * (1 + self.loss) - along, 0))
        return narrow


def principal_axes(vectors: Matrix) -> Matrix:
    """Return the principal axes of `vectors`, shape (n, dimensions), those along which they are longest first."""
    _, _, axes = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    found: Matrix = axes.astype(np.float32)
    return found
