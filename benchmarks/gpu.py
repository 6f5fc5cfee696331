"""`python -m benchmarks.gpu --device cuda`: the exact engine on a device beside the bandwidth of its memory.

Needs only torch, numpy and the search modules. Vectors are generated on the device, so that ten million of them need no
host memory and no transfer; they are generated again, in float32, to compute the exact answers.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from services.common.vectors import Metric
from services.search.core.vector_index import Selection
from services.search.engines.device.bounds import Rounded, directions
from services.search.engines.torch.device import TorchDevice
from services.search.engines.torch.scan import Queries, TorchScan
from services.search.engines.torch.vectors import TorchVectors

TOP_K = 10
WANTED = 26  # candidates that the engine ranks for the best 10
DRAWN_ROWS = 2**17
QUERIES = 64
AIM = 0.7


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: milliseconds of a scan, its rate in GB/s and as a share of the copy's, and recall at 10."""

    what: str
    batch: int
    best_ms: float
    median_ms: float
    gigabytes_per_second: float
    share: float
    recall: float | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """Vectors of length 1, generated on the device from fixed seeds, `DRAWN_ROWS` at a time."""

    device: TorchDevice
    count: int
    dimensions: int

    def parts(self) -> Iterator[tuple[int, Any]]:
        """Yield first rows and vectors, float32."""
        for begin in range(0, self.count, DRAWN_ROWS):
            random = torch.Generator(self.device.device).manual_seed(begin)
            shape = (min(DRAWN_ROWS, self.count - begin), self.dimensions)
            vectors = torch.randn(shape, generator=random, device=self.device.device)
            yield begin, torch.nn.functional.normalize(vectors)


class Bench:
    """An index of generated vectors, and queries for it."""

    def __init__(self, drawn: Drawn, seconds: float) -> None:
        self._drawn = drawn
        self._device = drawn.device
        self._seconds = seconds
        self._scan = TorchScan(self._device, Metric.COSINE)
        self._vectors = TorchVectors(self._device, drawn.dimensions, with_lengths=False)
        self._vectors.reserve(drawn.count)
        for begin, part in drawn.parts():
            self._put(begin, part.half())
        random = np.random.default_rng(1)
        self._queries = random.standard_normal((QUERIES, drawn.dimensions)).astype(np.float32)
        self._queries /= np.linalg.norm(self._queries, axis=1, keepdims=True)

    def row(self, batch: int, selection: Selection, bandwidth: float, exact: Any | None) -> Row:
        """Measure scans for `batch` queries; with `exact`, the float32 answers, also their recall."""
        what = "all selected" if selection.bits is None else f"{selection.count / selection.extent:.0%} selected"
        times = self._times(lambda: self._found(batch, selection))
        recall = None if exact is None else self._recall(self._found(batch, selection), exact[:batch])
        return self._row(what, batch, times, bandwidth, recall)

    def products_row(self, batch: int, bandwidth: float) -> Row:
        """Measure the matrix products alone, without the selection of the best."""
        queries = self._asked(batch)

        def work() -> None:
            for segment in self._vectors.segments:
                step = self._device.chunk_rows(self._drawn.dimensions, batch)
                for first in range(0, segment.rows, step):
                    last = self._device.products(queries.directions, segment.directions[first : first + step])
            self._device.sending(last[:1, :1])()

        return self._row("products alone", batch, self._times(work), bandwidth, None)

    def exact(self) -> Any:
        """Return the rows nearest to each query by float32, shape (QUERIES, TOP_K)."""
        queries = torch.from_numpy(self._queries).to(self._device.device)
        best: Any = None
        for begin, part in self._drawn.parts():
            scores, places = torch.mm(queries, part.T).topk(min(TOP_K, len(part)))
            found = (scores, places + begin)
            best = found if best is None else tuple(torch.cat(each, 1) for each in zip(best, found, strict=True))
        order = best[0].topk(TOP_K).indices
        return best[1].gather(1, order).cpu().numpy()

    def _recall(self, candidates: Any, exact: Any) -> float:
        """Rank `candidates` by float32 and return the share of `exact` among their best."""
        slots = torch.from_numpy(candidates).to(self._device.device)
        queries = torch.from_numpy(self._queries).to(self._device.device)
        scores = torch.full(slots.shape, -torch.inf, device=self._device.device)
        for begin, part in self._drawn.parts():
            here = (slots >= begin) & (slots < begin + len(part))
            rows = here.nonzero()[:, 0]
            scores[here] = (part[slots[here] - begin] * queries[rows]).sum(1)
        ranked = slots.gather(1, scores.topk(TOP_K).indices).cpu().numpy()
        shares = [len(set(found) & set(wanted)) / TOP_K for found, wanted in zip(ranked, exact, strict=True)]
        return float(np.mean(shares))

    def _found(self, batch: int, selection: Selection) -> Any:
        with self._device.queueing:
            nearest = self._scan.nearest(self._vectors.segments, self._asked(batch), WANTED, selection)
            received = self._device.sending(*nearest)
        return received()[1]

    def _asked(self, batch: int) -> Queries:
        halves = np.zeros((-(-batch // 8) * 8, self._drawn.dimensions), np.float16)
        halves[:batch] = Rounded.of(directions(self._queries[:batch])[0]).halves
        return Queries(batch, self._device.tensor(halves), None, None)

    def _put(self, begin: int, halves: Any) -> None:
        for segment in self._vectors.segments:
            first, last = max(begin, segment.begin), min(begin + len(halves), segment.begin + segment.rows)
            if first < last:
                segment.directions[first - segment.begin : last - segment.begin] = halves[first - begin : last - begin]

    def _times(self, work: Callable[[], object]) -> list[float]:
        return timed(work, self._seconds)

    def _row(self, what: str, batch: int, times: list[float], bandwidth: float, recall: float | None) -> Row:
        read = self._drawn.count * self._drawn.dimensions * 2
        rate = read / median(times)
        return Row(what, batch, min(times) * 1e3, median(times) * 1e3, rate / 1e9, rate / bandwidth, recall)


def timed(work: Callable[[], object], seconds: float) -> list[float]:
    """Return the durations of `work`, repeated for `seconds` and at least five times, after two warm-up runs."""
    for _ in range(2):
        work()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def copy_bandwidth(device: TorchDevice, size: int, seconds: float) -> float:
    """Return bytes read and written a second by copies of `size` bytes on the device."""
    source = torch.zeros(size, dtype=torch.uint8, device=device.device)
    target = torch.empty_like(source)

    def work() -> None:
        target.copy_(source)
        device.sending(target[:1])()

    return 2 * size / median(timed(work, seconds))


def main() -> None:
    """Measure and print."""
    options = _options()
    device = TorchDevice(options.device)
    bandwidth = copy_bandwidth(device, options.copy_mib * 2**20, options.seconds)
    bench = Bench(Drawn(device, options.vectors, options.dimensions), options.seconds)
    everything = Selection(options.vectors, options.vectors)
    half = Selection.of(np.arange(0, options.vectors, 2), options.vectors)
    exact = bench.exact()
    rows = [bench.row(batch, everything, bandwidth, exact) for batch in options.batches]
    rows += [bench.products_row(batch, bandwidth) for batch in options.batches]
    rows += [bench.row(batch, half, bandwidth, None) for batch in (min(options.batches), max(options.batches))]
    _print(options, device, bandwidth, rows)


def _print(options: argparse.Namespace, device: TorchDevice, bandwidth: float, rows: list[Row]) -> None:
    name = torch.cuda.get_device_name(device.device) if device.device.type == "cuda" else "processor"
    if options.json:
        print(json.dumps({"device": name, "copy_bytes_per_second": bandwidth, "rows": [asdict(row) for row in rows]}))
        return
    print(f"{name}, torch {torch.__version__}; copies run at {bandwidth / 1e9:,.0f} GB/s, read and written.")
    print(f"{options.vectors:,} vectors of {options.dimensions} dimensions, half precision; aim: {AIM} of that.\n")
    print("| scan | batch | best, ms | median, ms | GB/s | of the copy | recall@10 |\n|---|---|---|---|---|---|---|")
    for row in rows:
        recall = "" if row.recall is None else f"{row.recall:.3f}"
        figures = f"{row.best_ms:.2f} | {row.median_ms:.2f} | {row.gigabytes_per_second:,.1f} | {row.share:.2f}"
        print(f"| {row.what} | {row.batch} | {figures} | {recall} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, QUERIES], help="queries a scan, up to 64")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to repeat each measurement")
    parser.add_argument("--copy-mib", type=int, default=1024, help="size of the copies")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.vectors < WANTED or not all(1 <= batch <= QUERIES for batch in options.batches):
        parser.error(f"--vectors must be at least {WANTED}, --batches 1 to {QUERIES}")
    return options


if __name__ == "__main__":
    main()
