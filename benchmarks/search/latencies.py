"""One caller at a time: how long it waits, unfiltered and under each filter, and what it gets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.search.conditions import CONDITIONS, Condition
from benchmarks.search.corpus import Corpus, Matrix
from benchmarks.search.figures import Line, judged
from benchmarks.search.floors import RawFlat, RawHnsw, flat_selector, graph_selector
from benchmarks.search.service import Search, Store
from benchmarks.search.truth import Truth
from benchmarks.timing import Latency, interleaved

UNFILTERED_MS, FILTERED_MS, HNSW_OVER_RAW_MS, RECALL = 3.0, 2.0, 1.5, 0.999
SELECTIVE = 0.1  # a filter that fewer pass is held to `FILTERED_MS`
HALF_SLOWER = 1.05  # "not slower than unfiltered", as two medians of one thing differ

Ask = Callable[[Matrix], Sequence[int]]
Anything = Callable[[Matrix], object]


class Engine(Protocol):
    """What answers a query under a condition."""

    def search(self, query: Matrix, condition: Condition | None = None) -> Sequence[int]:
        """Return the ten best items."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """How long an engine took, and its recall."""

    latency: Latency
    recall: float


def exact_lines(corpus: Corpus, truth: Truth, raw: RawFlat, near: Engine | None, medley: Search) -> list[Line]:
    """Return the lines of exact search: raw, raw behind gRPC (`near`, which knows no filters), and Medley."""
    conditions = (None, *CONDITIONS)
    selectors = [flat_selector(truth.masks[each]) if each else None for each in conditions]
    works = [_raw(raw, selector) for selector in selectors] + [_asked(medley, each) for each in conditions]
    works += [_asked(near, None)] if near else []
    taken = _measured(works, corpus, truth, [*conditions, *conditions, *([None] if near else [])])
    count = len(conditions)
    floors, found, over_grpc = taken[:count], taken[count : 2 * count], taken[2 * count :]
    return [
        Line(
            _what("exact", truth, condition),
            str(floor.latency),
            str(over_grpc[0].latency) if over_grpc and not condition else "",
            str(answer.latency),
            _recall(answer),
            _exact_target(condition, answer, found[0].latency.p50),
        )
        for condition, floor, answer in zip(conditions, floors, found, strict=True)
    ]


def metadata_lines(corpus: Corpus, store: Store, medley: Search, gateway: Anything) -> list[Line]:
    """Return the lines of answers with metadata: rows asked of the store, and all of it by the gateway."""

    def by_rows(query: Matrix) -> object:
        return store.metadata(medley.search(query))

    ways: Mapping[str, Anything] = {
        "exact, then the hits' metadata from the store, rows not read before": by_rows,
        "exact, then the hits' metadata from the store, rows read before": by_rows,
        "exact, with metadata, through the gateway, rows read before": gateway,
    }
    latencies = interleaved(list(ways.values()), list(corpus.queries), warm_up=len(corpus.queries) // 5)
    return [Line(f"{what}: p50 (p95)", medley=str(each)) for what, each in zip(ways, latencies, strict=True)]


def hnsw_lines(corpus: Corpus, truth: Truth, raw: RawHnsw, medley: Search) -> list[Line]:
    """Return the lines of HNSW: raw and Medley."""
    lines = []
    for condition in (None, *CONDITIONS):
        selector = graph_selector(truth.masks[condition]) if condition else None
        floor, found = _measured([_raw(raw, selector), _asked(medley, condition)], corpus, truth, [condition] * 2)
        over = found.latency.p50 - floor.latency.p50
        target = "" if condition else judged(f"≤ raw + {HNSW_OVER_RAW_MS} ms", over <= HNSW_OVER_RAW_MS)
        recall = f"{_recall(found)}; raw {_recall(floor)}"
        lines.append(Line(_what("HNSW", truth, condition), str(floor.latency), "", str(found.latency), recall, target))
    return lines


def _measured(
    works: Sequence[Ask], corpus: Corpus, truth: Truth, conditions: Sequence[Condition | None]
) -> list[Measured]:
    """Return what each of `works` did, taking turns, each under its own of `conditions`."""
    latencies = interleaved(works, list(corpus.queries), warm_up=len(corpus.queries) // 5)
    answers = [[work(query) for query in corpus.queries] for work in works]
    recalls = [truth.mean(found, condition) for found, condition in zip(answers, conditions, strict=True)]
    return [Measured(*each) for each in zip(latencies, recalls, strict=True)]


def _raw(index: RawFlat | RawHnsw, selector: object) -> Ask:
    return lambda query: index.search(query, selector)


def _asked(engine: Engine, condition: Condition | None) -> Ask:
    return lambda query: engine.search(query, condition)


def _what(kind: str, truth: Truth, condition: Condition | None) -> str:
    share = truth.share(condition)
    passing = f"filter passing {100 * share:.2f} %" if condition else "unfiltered"
    return f"{kind}, {passing}, 1 caller: p50 (p95)"


def _recall(found: Measured) -> str:
    return f"{found.recall:.4f}"


def _exact_target(condition: Condition | None, found: Measured, unfiltered: float) -> str:
    p50 = found.latency.p50
    if condition is None:
        return judged(f"≤ {UNFILTERED_MS:.0f} ms, recall ≥ {RECALL}", p50 <= UNFILTERED_MS and found.recall >= RECALL)
    if condition.share < SELECTIVE:
        return judged(f"≤ {FILTERED_MS:.0f} ms, recall 1", p50 <= FILTERED_MS and found.recall == 1)
    return judged("not slower than unfiltered", p50 <= unfiltered * HALF_SLOWER)
