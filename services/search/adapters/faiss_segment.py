"""A part of a FAISS index: rows of float32 vectors and, where they can be coded, their codes."""

from dataclasses import dataclass, field, replace

import numpy as np

from services.common.vectors import Matrix, Metric
from services.search.adapters.faiss_codes import LONGEST, ROUNDINGS, UNIT_ROUNDOFF, Asked, Coding, Turned
from services.search.adapters.faiss_packing import Packing
from services.search.adapters.faiss_scan import NOWHERE, Chosen, CodeScan, FloatScan
from services.search.core.scoring import Doubles, chunks, lengths_of
from services.search.core.vector_index import Mask, Numbers

TINY = 2.0**-100  # far above what float32 loses where numbers fade into 0
SCALE_DRIFT = 1.25
LOOSE_SHARE = 1 / 64
LOOSE_SPARE = 16
ALIKE_TIMES = 8
_SAMPLE = 2048
_HUGE = 1e37  # products up to here cannot overflow float32
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Probes:
    """Queries as segments are asked them, each array a row a query.

    `directions` are the queries as held vectors are (see `scoring.prepared`), `lengths` their lengths; `turned` is what
    `coding` makes of them, None where no codes are to be scanned.
    """

    queries: Matrix
    directions: Matrix
    lengths: Doubles
    turned: Turned | None = None
    coding: Coding | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def narrow(self) -> bool:
        """Whether codes to be scanned are narrower than vectors."""
        return self.coding is not None and self.coding.axes is not None

    def one(self, number: int) -> "Probes":
        """Return one of the queries."""
        only, turned = slice(number, number + 1), self.turned
        if turned is not None:
            turned = Turned(turned.numbers[only], turned.factors[only], turned.missed[only])
        return Probes(self.queries[only], self.directions[only], self.lengths[only], turned, self.coding)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Rows that may be an answer, by upper bounds of their closeness (see `faiss_codes`), in no order.

    Both have shape (queries, n); rows that are `NOWHERE` have bounds of minus infinity. No row besides them is closer
    than `rest`, shape (queries,), but for those of `unbounded`, of which nothing is known for any query.
    """

    rows: Numbers
    bounds: Doubles
    rest: Doubles
    unbounded: Numbers = field(default_factory=lambda: _NONE)


@dataclass(frozen=True, slots=True)
class _Codes:
    """The codes of a segment's rows, all of one scale; `loose` are the rows that they tell nothing of."""

    coding: Coding
    scan: CodeScan
    scale: float
    loose: Numbers

    def asked(self, probes: Probes) -> Asked:
        """Return how the codes are scanned for the queries, which are turned."""
        assert probes.turned is not None, "asked without what the coding makes of queries"
        return self.coding.asked(probes.turned, probes.lengths, self.scale)

    def put(self, rows: Numbers, vectors: Matrix, lengths: Doubles) -> Numbers:
        """Code `vectors`, of `lengths`, as those of `rows`; return the rows that are loose."""
        wild = lengths > LONGEST
        if wild.any():
            vectors, lengths = np.where(wild[:, None], np.float32(0), vectors), np.where(wild, 0, lengths)
        coded = self.coding.coded(vectors, lengths, self.scale)
        self.scan.codes[rows] = coded.codes
        return rows[coded.loose | wild]


class Segment:
    """Rows of vectors. One writer; readers at any time, of rows that are not written meanwhile.

    What a scale does not suit any more is coded anew, into other memory: a reader goes on with the codes it took.
    """

    def __init__(self, rows: int, dimensions: int, metric: Metric, coding: Coding | None) -> None:
        self.vectors: Matrix = np.zeros((rows, dimensions), np.float32)
        self._dimensions = dimensions
        self._metric = metric
        self._coding = coding
        self._floats = FloatScan(self.vectors, squared_distances=metric is Metric.EUCLIDEAN)
        self._codes: _Codes | None = None
        self._longest = self._usual_length = 0.0
        self._extent = 0
        self._written = 0
        self._written_at_check = 0

    @property
    def code_bytes(self) -> int:
        """Bytes of a row's code; 0 where there is none."""
        codes = self._codes
        return codes.coding.code_bytes if codes else 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of the rows ever used."""
        return self._extent * (4 * self._dimensions + self.code_bytes)

    def write(self, rows: Numbers, vectors: Matrix, lengths: Doubles) -> None:
        """Store vectors[i], of lengths[i], in rows[i]."""
        self.vectors[rows] = vectors
        self._longest = max(self._longest, float(lengths.max()))
        self._extent = max(self._extent, int(rows.max()) + 1)
        self._written += len(rows)
        if self._coding is not None:
            self._code(self._coding, rows, vectors, lengths)

    def code_by(self, coding: Coding | None) -> None:
        """Hold codes of `coding` from now on, or none."""
        self._coding, self._codes = coding, None
        self._written_at_check = self._written
        if coding is not None and self._extent:
            self._codes = self._coded_anew(coding, self._suiting_scale(coding))

    def nearest(self, probes: Probes, wanted: int, packing: Packing) -> Proposal:
        """Return for each query the `wanted` chosen rows of the highest bounds, or all.

        Of many queries, that is left to products of float32 matrices, which cost less.
        """
        codes, chosen = self._scanned(probes), packing.chosen
        if codes and not self._multiplies(probes, wanted, chosen):
            return self._coded_nearest(codes, probes, wanted, packing)
        if self._overflows(probes):
            nothing = np.empty((len(probes), 0))
            return Proposal(nothing.astype(np.int64), nothing, np.full(len(probes), -np.inf), chosen.all())
        rows, scores = self._floats.nearest(probes.directions, wanted, chosen)
        bounds = self._bounds(probes, scores.astype(np.float64))
        left_out = bounds.min(axis=1) if wanted < chosen.count else np.full(len(probes), -np.inf)
        return Proposal(rows, bounds, left_out)

    def within(self, probe: Probes, closeness: float, packing: Packing) -> Numbers:
        """Return all chosen rows that may be that close to the one query."""
        chosen = packing.chosen
        if (codes := self._scanned(probe)) is not None:
            asked = codes.asked(probe)
            read = packing.codes(codes.scan, self._written)
            found, _ = read.above(asked.numbers[0], asked.score(0, closeness))
            return np.concatenate([found[_outside(found, codes.loose)], chosen.among(codes.loose)])
        if self._overflows(probe):
            return chosen.all()
        return self._floats.within(probe.directions[0], self._limit(probe, closeness), chosen)

    def bounds(self, probes: Probes, rows: Numbers) -> Doubles:
        """Return the bounds of rows[i], for query i each, by their float32 vectors; infinite where there is none."""
        if self._overflows(probes):
            return np.full(rows.shape, np.inf)
        return self._bounds(probes, self._floats.at(probes.directions, rows).astype(np.float64))

    def _multiplies(self, probes: Probes, wanted: int, chosen: Chosen) -> bool:
        """Return whether to leave codes for a product of matrices, whose bounds are those of the longest vector."""
        many = self._floats.multiplies(probes.directions, wanted, chosen, narrow_codes=probes.narrow)
        return many and self._longest <= ALIKE_TIMES * self._usual_length

    def _coded_nearest(self, codes: _Codes, probes: Probes, wanted: int, packing: Packing) -> Proposal:
        asked = codes.asked(probes)
        found = packing.codes(codes.scan, self._written).nearest(asked.numbers, wanted)
        bounds = asked.bounds(found.scores)
        if len(codes.loose):
            loose = np.isin(found.rows, codes.loose)
            found.rows[loose], bounds[loose] = NOWHERE, -np.inf
        rest = found.rest * asked.units + asked.offsets
        return Proposal(found.rows, bounds, rest, packing.chosen.among(codes.loose))

    def _scanned(self, probes: Probes) -> _Codes | None:
        codes = self._codes
        return codes if codes and codes.coding is probes.coding and probes.lengths.max() <= LONGEST else None

    def _bounds(self, probes: Probes, scores: Doubles) -> Doubles:
        """Return the closest that vectors of float32 `scores`, shape (queries, n), can be."""
        lengths = probes.lengths[:, None]
        if self._metric is Metric.DOT_PRODUCT or self._metric is Metric.COSINE:
            return scores + self._relative_error * lengths * self._longest + TINY
        if len(probes) == 1:
            return (lengths**2 - scores * (1 - self._relative_error)) / 2 + TINY
        # of a product of matrices and two squares, where what they are off by does not shrink with the distance
        return (lengths**2 - scores + self._relative_error * (lengths + self._longest) ** 2) / 2 + TINY

    def _limit(self, probe: Probes, closeness: float) -> float:
        """Return the float32 score that no vector exceeds, or falls below, that may be that close."""
        length = float(probe.lengths[0])
        if self._metric is Metric.EUCLIDEAN:
            return max(0.0, length**2 - 2 * closeness) * (1 + self._relative_error) + TINY
        return closeness - self._relative_error * length * self._longest - TINY

    @property
    def _relative_error(self) -> float:
        return (self._dimensions + ROUNDINGS) * 2 * UNIT_ROUNDOFF

    def _overflows(self, probes: Probes) -> bool:
        length = float(probes.lengths.max())
        if self._metric is Metric.EUCLIDEAN:
            return (length + self._longest) ** 2 > _HUGE
        return length * self._longest > _HUGE

    def _code(self, coding: Coding, rows: Numbers, vectors: Matrix, lengths: Doubles) -> None:
        codes = self._codes
        if self._written >= 2 * self._written_at_check:
            self._written_at_check = self._written
            scale = self._suiting_scale(coding)
            if codes is None or not 1 / SCALE_DRIFT <= scale / codes.scale <= SCALE_DRIFT:
                self._codes = self._coded_anew(coding, scale)
                return
        if codes is not None:
            loose = codes.put(rows, vectors, lengths)
            codes = replace(codes, loose=np.union1d(codes.loose[~np.isin(codes.loose, rows)], loose))
            self._codes = codes if self._tight(codes) else self._coded_anew(coding, self._suiting_scale(coding))

    def _suiting_scale(self, coding: Coding) -> float:
        sample = self.vectors[: self._extent : 1 + self._extent // _SAMPLE]
        lengths = lengths_of(sample)
        telling = (lengths > 0) & (lengths <= LONGEST)
        if not telling.any():
            return coding.scale_for(np.zeros_like(sample[:1]), np.zeros(1))
        self._usual_length = float(np.median(lengths[telling]))
        return coding.scale_for(sample[telling], lengths[telling])

    def _coded_anew(self, coding: Coding, scale: float) -> _Codes | None:
        """Return the codes of all rows; None where they would tell too little."""
        scan = CodeScan(np.zeros((len(self.vectors), coding.code_bytes), np.uint8), coding.quantizer)
        codes = _Codes(coding, scan, scale, _NONE)
        every = np.arange(self._extent)
        vectors = ((every[part], self.vectors[every[part]]) for part in chunks(self._extent, self._dimensions))
        codes = replace(
            codes, loose=np.concatenate([codes.put(rows, held, lengths_of(held)) for rows, held in vectors])
        )
        return codes if self._tight(codes) else None

    def _tight(self, codes: _Codes) -> bool:
        return len(codes.loose) <= LOOSE_SPARE + self._extent * LOOSE_SHARE


def _outside(rows: Numbers, others: Numbers) -> Mask:
    return ~np.isin(rows, others) if len(others) else np.ones(len(rows), np.bool_)
