"""Vectors turned and shortened for codes, such that no inner product comes out too small and no distance too large.

Let a be the components of x along some orthonormal axes, and t the length of what is left of x. By the inequality of
Cauchy and Schwarz and the reverse triangle inequality, with y(x) = (a, t),

    x·q ≤ y(x)·y(q)            |x - q| ≥ |y(x) - y(q)|

and y is as long as x. The principal axes of the vectors leave little; others make bounds loose and never wrong. Either
way axes are mixed, so that a component larger than the others does not make one scale coarse for all.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.vectors import Matrix
from services.search.core.scoring import Doubles, chunks, lengths_of
from services.search.engines.faiss.float_bounds import TINY

BLOCK = 32  # FAISS multiplies whole numbers fastest at multiples of it
WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768)
NARROW_SHARE = 0.7  # of the dimensions: wider projections save nothing
SAMPLE_FLOATS = 2**21
SAMPLE_QUERIES, SAMPLE_HITS = 16, 10
SCANNED_CANDIDATES = 256
ROW_COST = 32  # of a scan besides the bytes of its codes, in bytes
CANDIDATE_COST = 16  # of a candidate, in bytes for each dimension
LARGEST_CODE = 127
TYPICAL_MAXIMUM = 4.5  # of the numbers of a mixed vector, in times their root mean square
EINSUM_ROWS = 8  # up to which einsum, which starts no threads, is as fast as the linear algebra library


class Projection(Protocol):
    """A map from vectors to y(x), as wide as codes."""

    @property
    def width(self) -> int:
        """Numbers of a projected vector, a multiple of `BLOCK`."""
        ...

    def project(self, vectors: Matrix | Doubles, lengths: Doubles) -> Doubles:
        """Return y of each of `vectors`, shape (n, dimensions), given their `lengths`: shape (n, width)."""
        ...


class Rotation:
    """A projection that keeps everything: all dimensions, filled up with zeros and mixed by the Kronecker product."""

    def __init__(self, dimensions: int) -> None:
        random, blocks = np.random.default_rng(dimensions), -(-dimensions // BLOCK)
        self.width = blocks * BLOCK
        self._across, self._within = (np.linalg.qr(random.normal(size=(n, n)))[0] for n in (blocks, BLOCK))

    def project(self, vectors: Matrix | Doubles, lengths: Doubles) -> Doubles:
        padded = np.zeros((len(vectors), self.width))
        padded[:, : vectors.shape[1]] = vectors
        blocks = padded.reshape(len(vectors), -1, BLOCK)
        mixed: Doubles = (self._across @ blocks @ self._within).reshape(len(vectors), self.width)
        return mixed


class PcaProjection:
    """A projection along the `width` - 1 first of `principal` axes, each a row, shape (n, dimensions)."""

    def __init__(self, principal: Doubles, width: int) -> None:
        self.width = width
        mixing = np.random.default_rng(width).normal(size=(width - 1, width - 1))
        self._axes = np.ascontiguousarray(np.linalg.qr(principal[: width - 1].T @ mixing)[0].T)

    def project(self, vectors: Matrix | Doubles, lengths: Doubles) -> Doubles:
        projected, vectors = np.empty((len(vectors), self.width)), vectors.astype(np.float64, copy=False)
        components, rest = projected[:, :-1], projected[:, -1]
        if len(vectors) <= EINSUM_ROWS:
            np.einsum("ij,kj->ik", vectors, self._axes, out=components)
        else:
            components[:] = vectors @ self._axes.T
        rest[:] = np.sqrt(np.maximum(lengths**2 - np.einsum("ij,ij->i", components, components), 0))
        return projected

    def residual_share(self, vectors: Matrix) -> float:
        """Return the share of the squared length of `vectors` that is not along the axes."""
        projected = self.project(vectors, lengths_of(vectors))
        return float(np.sum(projected[:, -1] ** 2) / max(np.sum(projected**2), TINY))


def choose_projection(vectors: Matrix, rotation: Rotation) -> Projection:
    """Return the projection for which a search of `vectors` costs the least.

    Widths are tried on a sample of `vectors`, shape (n, dimensions), with stored vectors as queries. A bad choice makes
    searches slower, never wrong.
    """
    dimensions = vectors.shape[1]
    training, sample = split(vectors, SAMPLE_FLOATS // dimensions)
    queries = slice(0, None, 1 + len(sample) // SAMPLE_QUERIES)
    length = np.float32(max(float(np.median(lengths_of(sample))), TINY))  # products of others may not fit float32
    asked = (sample[queries] / length).T
    products = np.concatenate([(vectors[part] / length) @ asked for part in chunks(len(vectors), dimensions)])
    reach = -np.partition(-products, SAMPLE_HITS - 1, axis=0)[SAMPLE_HITS - 1]
    exact, principal = sample.astype(np.float64) / length, principal_axes(training.astype(np.float64))
    least, best = _cost(np.array([SAMPLE_HITS]), rotation.width, dimensions, len(vectors)), 0
    for width, bounds in _bounds(exact, principal, queries):
        candidates = np.count_nonzero(bounds >= reach, axis=0) * len(vectors) / len(sample)
        cost = _cost(candidates, width, dimensions, len(vectors))
        if cost < least:
            least, best = cost, width
    return PcaProjection(principal, best) if best else rotation


def split(vectors: Matrix, most: int) -> tuple[Matrix, Matrix]:
    """Return up to `most` of `vectors` to find axes by, and others, a third as many, to try them on."""
    step = max(1, len(vectors) // most)
    training = np.arange(0, len(vectors), step) % (4 * step) != 3 * step
    return vectors[::step][training], vectors[::step][~training]


def principal_axes(sample: Doubles) -> Doubles:
    """Return the principal axes of `sample`, shape (n, dimensions), not centred, longest first, each a row."""
    if len(sample) >= sample.shape[1]:
        return np.linalg.eigh(sample.T @ sample)[1][:, ::-1].T
    axes = np.linalg.eigh(sample @ sample.T)[1][:, ::-1].T @ sample
    unit: Doubles = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), TINY)
    return unit


def _bounds(sample: Doubles, principal: Doubles, queries: slice) -> Iterator[tuple[int, Doubles]]:
    """Yield each width and about what codes of it bound the inner products of `sample` and its `queries` by."""
    lengths, components = np.linalg.norm(sample, axis=1), sample @ principal.T
    for width in WIDTHS:
        if width <= min(NARROW_SHARE * sample.shape[1], len(principal)):
            a = components[:, : width - 1]
            t = np.sqrt(np.maximum(lengths**2 - np.einsum("ij,ij->i", a, a), 0))
            rounding = TYPICAL_MAXIMUM * np.median(lengths) / LARGEST_CODE / np.sqrt(12)  # of a vector and of a query
            yield width, a @ a[queries].T + np.outer(t, t[queries]) + 2 * rounding * lengths[queries]


def _cost(candidates: NDArray[np.int64] | Doubles, width: int, dimensions: int, rows: int) -> float:
    """Return about how many bytes the scans of `rows` codes and the scoring of `candidates` read, per query."""
    scans = 1 + np.mean(candidates > SCANNED_CANDIDATES)
    return float(rows * (width + ROW_COST) * scans + CANDIDATE_COST * dimensions * candidates.mean())
