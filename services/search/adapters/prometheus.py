"""The state of the indexes and the searches, for Prometheus."""

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.rpc.metrics import BUCKETS
from services.search.core.collection_index import Mode, SearchResult, State
from services.search.replication.replicas import Replicas
from services.search.replication.status import IndexReport, index_reports

SPACE = ("collection", "space")


class PrometheusMetrics:
    """`Meter` that counts searches by mode, and times those of one vector."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._searches = Counter("medley_searches", "Vectors searched for.", (*SPACE, "mode"), registry=registry)
        self._compared = Counter(
            "medley_search_compared_vectors", "Vectors whose scores were computed.", SPACE, registry=registry
        )
        self._seconds = Histogram(
            "medley_search_seconds",
            "Time that the search for one vector took, waiting included.",
            (*SPACE, "mode"),
            registry=registry,
            buckets=BUCKETS,
        )

    def record_search(self, collection: str, space: str, result: SearchResult, seconds: float) -> None:
        mode = result.mode.value.lower()
        self._searches.labels(collection, space, mode).inc()
        self._compared.labels(collection, space).inc(result.compared)
        self._seconds.labels(collection, space, mode).observe(seconds)

    def record_batch(self, collection: str, space: str, result: Sequence[SearchResult]) -> None:
        tally: Tally[Mode] = Tally(each.mode for each in result)
        for mode, number in tally.items():
            self._searches.labels(collection, space, mode.value.lower()).inc(number)
        self._compared.labels(collection, space).inc(sum(each.compared for each in result))


class IndexCollector(Collector):
    """The state of each index, asked for when it is collected."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge for each thing that is told of an index."""
        reports = index_reports(self._replicas.all())
        yield _gauge("vectors", "Vectors held.", reports, lambda report: report.state.vectors)
        yield _gauge("memory_bytes", "Memory taken.", reports, lambda report: report.state.memory_bytes)
        yield _gauge(
            "lag_seconds",
            "For how long the store has been known to hold a version not applied yet.",
            reports,
            lambda report: report.lag_seconds,
        )
        yield _states(reports)
        yield from _recall(reports)


def _gauge(
    name: str, description: str, reports: Sequence[IndexReport], value: Callable[[IndexReport], float]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"medley_index_{name}", description, labels=SPACE)
    for report in reports:
        gauge.add_metric(_space(report), value(report))
    return gauge


def _states(reports: Sequence[IndexReport]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("medley_index_state", "1 for the state that the index is in.", labels=(*SPACE, "state"))
    for report in reports:
        for state in State:
            gauge.add_metric((*_space(report), state.value.lower()), report.state.state is state)
    return gauge


def _recall(reports: Sequence[IndexReport]) -> Iterator[GaugeMetricFamily]:
    labels = (*SPACE, "share_above", "share_up_to")
    recall = GaugeMetricFamily(
        "medley_index_recall", "Recall at 10 of approximate answers, by the share that filters left.", labels=labels
    )
    queries = GaugeMetricFamily("medley_index_recall_queries", "Queries that recall was measured on.", labels=labels)
    for report in reports:
        for each in report.state.recall:
            place = (*_space(report), f"{each.share_above:g}", f"{each.share_up_to:g}")
            recall.add_metric(place, each.recall)
            queries.add_metric(place, each.queries)
    yield recall
    yield queries


def _space(report: IndexReport) -> tuple[str, str]:
    return report.collection, report.state.space.name
