"""Many at a time: callers side by side, and batches."""

import os
from collections.abc import Sequence

import numpy as np

from benchmarks.search.callers import Load, load
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


def caller_lines(corpus: Corpus, truth: Truth, near: str, medley: str, seconds: float) -> list[Line]:
    """Return the lines of callers side by side; `near` and `medley` are addresses, `seconds` the time of a figure."""
    requests = [request(query).SerializeToString() for query in corpus.queries]
    lines = []
    for callers in CALLERS:
        floor, found = (load(address, requests, callers, seconds) for address in (near, medley))
        recall = np.mean([truth.recall(number, rows(_parsed(answer))) for number, answer in found.answers])
        target = judged(f"≥ {RATE:,} /s", found.rate >= RATE) if callers == CALLERS_HELD else ""
        what = f"exact, {callers} caller{'s' * (callers > 1)}: queries/s (p50, p95; callers' CPU a query)"
        lines.append(Line(what, "", _shown(floor), _shown(found), f"{recall:.4f}", target))
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


def _shown(found: Load) -> str:
    latency = f"p50 {found.latency.p50:.1f}, p95 {found.latency.p95:.1f} ms"
    return f"{found.rate:,.0f} /s ({latency}; {found.client_ms:.2f} ms)"


def _parsed(answer: bytes) -> pb.SearchIndexResponse:
    return pb.SearchIndexResponse.FromString(answer)
