"""How the vectors of an index are encoded: which projection, and which scale, suit those there are."""

import threading

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.core.scoring import lengths_of
from services.search.engines.faiss.projection import PcaProjection, Projection, Rotation, choose_projection, split
from services.search.engines.faiss.quantizer import Quantizer

SAMPLE = 2048
CHOICE_ROWS, CHOICE_GROWTH = 4096, 4
RESIDUAL_GROWTH = 0.02  # of the share of squared length off the axes: vectors that lose so much more get others
TYPICAL_TIMES = 4  # the median length


class QuantizerFitter:
    """Fits quantizers to the vectors of an index, the same one for segments that are alike.

    A projection is chosen at `CHOICE_ROWS` rows of a segment, again at `CHOICE_GROWTH` times as many, and where the
    vectors no longer lie along its axes.
    """

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._metric = metric
        self._rotation = Rotation(dimensions)
        self._projection: Projection = self._rotation
        self._latest: Quantizer | None = None
        self._chosen_for = CHOICE_ROWS // CHOICE_GROWTH
        self._residual_share = 0.0
        self._keeps_all = False

    def fit(self, vectors: Matrix) -> Quantizer:
        """Return what suits `vectors`, shape (n, dimensions), n > 0."""
        sample = vectors[:: 1 + len(vectors) // SAMPLE]
        lengths = lengths_of(sample)
        typical = lengths <= TYPICAL_TIMES * np.median(lengths)
        if self._is_due(len(vectors), sample[typical]):
            self._choose(vectors, TYPICAL_TIMES * float(np.median(lengths)))
        fitted = Quantizer.fit(self._projection, self._metric, sample)
        if self._latest is None or not fitted.is_like(self._latest):
            self._latest = fitted
        return self._latest

    def keep_all(self) -> bool:
        """Project nothing away from now on; return whether that is new."""
        if self._projection is self._rotation:
            return False
        self._projection, self._keeps_all = self._rotation, True
        return True

    def _is_due(self, rows: int, sample: Matrix) -> bool:
        if self._keeps_all or rows < CHOICE_ROWS or rows >= CHOICE_GROWTH * self._chosen_for:
            return not self._keeps_all and rows >= CHOICE_ROWS
        lost = self._projection.residual_share(sample) if isinstance(self._projection, PcaProjection) else 0.0
        return lost > self._residual_share + RESIDUAL_GROWTH

    def _choose(self, vectors: Matrix, longest: float) -> None:
        typical = vectors[lengths_of(vectors) <= longest]
        self._projection, self._chosen_for = choose_projection(typical, self._rotation), len(vectors)
        if isinstance(self._projection, PcaProjection):
            self._residual_share = self._projection.residual_share(split(typical, SAMPLE)[1])


class ScanTuner:
    """Learns from searches how many candidates a scan is to return, and whether codes are too narrow.

    Each search that had to scan again doubles what is asked for besides `top_k`, each other one takes a little off, so
    that about one in twenty scans again. Each that had to compare all vectors counts against the codes.
    """

    LEAST_SPARE, MOST_SPARE, DECAY = 32, 1024, 0.97
    FALLBACKS, ONE_IN, WINDOW = 16, 12, 1024

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare = 4.0 * self.LEAST_SPARE
        self._searches = self._fallbacks = 0

    @property
    def at_most(self) -> bool:
        """Whether scans return so many that a scan for more costs about what comparing all does."""
        return self._spare > self.MOST_SPARE / 2

    @property
    def spare(self) -> int:
        """How many candidates of a segment to ask for besides `top_k`."""
        return int(self._spare)

    def record(self, searches: int, rescans: int, fallbacks: int) -> bool:
        """Count searches, those that scanned again and those that fell back; return whether codes are too narrow."""
        with self._lock:
            factor = 2.0 if rescans * 16 > searches else self.DECAY
            self._spare = min(max(self._spare * factor, self.LEAST_SPARE), self.MOST_SPARE)
            self._searches, self._fallbacks = self._searches + searches, self._fallbacks + fallbacks
            too_narrow = self._fallbacks >= max(self.FALLBACKS, self._searches / self.ONE_IN)
            if too_narrow or self._searches >= self.WINDOW:
                self._searches = self._fallbacks = 0
            return too_narrow
