"""Many at a time: callers side by side, and batches."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.processes import cpu_seconds
from benchmarks.search.callers import WARM_UP, Load, load
from benchmarks.search.corpus import Corpus
from benchmarks.search.figures import Line, judged
from benchmarks.search.floors import RawFlat
from benchmarks.search.service import Search, request, rows
from benchmarks.search.truth import Truth
from benchmarks.timing import best
from medley.v1 import search_service_pb2 as pb

CALLERS, CALLERS_HELD, RATE = (1, 8, 32), 8, 1500
BATCHES, BATCH_HELD, BATCH_SHARE = (32, 1000), 32, 0.85
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Served:
    """A service: its address and its process."""

    address: str
    pid: int


def caller_lines(corpus: Corpus, truth: Truth, near: Served, medley: Served, seconds: float) -> list[Line]:
    """Return the lines of callers side by side, `seconds` for each figure, of the raw server and of Medley."""
    requests = [request(query).SerializeToString() for query in corpus.queries]
    lines = []
    for callers in CALLERS:
        (floor, floor_ms), (found, found_ms) = (_load(each, requests, callers, seconds) for each in (near, medley))
        recall = np.mean([truth.recall(number, rows(_parsed(answer))) for number, answer in found.answers])
        target = judged(f"≥ {RATE:,} /s", found.rate >= RATE) if callers == CALLERS_HELD else ""
        what = f"exact, {callers} caller{'s' * (callers > 1)}: queries/s (p50, p95; CPU a query: callers' + service's)"
        lines.append(Line(what, "", _shown(floor, floor_ms), _shown(found, found_ms), f"{recall:.4f}", target))
    return lines


def batch_lines(corpus: Corpus, truth: Truth, raw: RawFlat, medley: Search) -> list[Line]:
    """Return the lines of batches, beside raw FAISS with one thread and with all cores, whichever is faster."""
    lines = []
    for size in BATCHES:
        queries = np.resize(corpus.queries, (size, corpus.queries.shape[1]))
        works = [lambda: raw.batch(queries, 1), lambda: raw.batch(queries, os.cpu_count() or 1)]  # noqa: B023
        *floors, taken = best([*works, lambda: medley.batch(queries)], ROUNDS)  # noqa: B023
        recall = _batch_recall(medley.batch(queries), len(corpus.queries), truth)
        share = min(floors) / taken
        target = judged(f"≥ {BATCH_SHARE} of raw", share >= BATCH_SHARE) if size == BATCH_HELD else ""
        rate = f"{size / taken:,.0f} ({share:.2f} of raw)"
        what = f"exact, batches of {size:,}: vectors/s"
        lines.append(Line(what, f"{size / min(floors):,.0f}", "", rate, f"{recall:.4f}", target))
    return lines


def _batch_recall(found: Sequence[Sequence[int]], queries: int, truth: Truth) -> float:
    return float(np.mean([truth.recall(number % queries, each) for number, each in enumerate(found)]))


def _load(served: Served, requests: Sequence[bytes], callers: int, seconds: float) -> tuple[Load, float]:
    """Return what the callers got, and what a query cost the service, in ms."""
    before = cpu_seconds(served.pid)
    found = load(served.address, requests, callers, seconds)
    return found, 1e3 * (cpu_seconds(served.pid) - before) / (len(found.answers) + WARM_UP)


def _shown(found: Load, service_ms: float) -> str:
    latency = f"{found.latency.p50:.1f}, {found.latency.p95:.1f} ms"
    return f"{found.rate:,.0f} /s ({latency}; {found.client_ms:.2f} + {service_ms:.2f} ms)"


def _parsed(answer: bytes) -> pb.SearchIndexResponse:
    return pb.SearchIndexResponse.FromString(answer)
