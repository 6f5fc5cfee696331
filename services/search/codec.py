"""Messages to values and back."""

from collections.abc import Iterator, Sequence

from medley.v1 import search_service_pb2 as pb
from services.common import index_config_codec
from services.common.filter_codec import from_message
from services.common.vectors import from_bytes
from services.common.versions import Version
from services.search.collection_index import Found, Hit, Recall
from services.search.reports import IndexReport
from services.search.searcher import Query

IDS_A_MESSAGE = 10_000


def to_query(request: pb.SearchIndexRequest) -> Query:
    """Return what `request` asks.

    Raises:
        VectorError: the vector's bytes are no vector.
        FilterError: the filter cannot be read.
        TokenError: the version cannot be read.
    """
    return Query(
        collection=request.collection,
        space=request.space,
        vector=from_bytes(request.vector.float32_le),
        passport=request.passport,
        top_k=request.top_k,
        condition=from_message(request.filter) if request.HasField("filter") else None,
        version=version_value(request.version),
        ids=request.ids,
        score_limit=request.score_limit if request.HasField("score_limit") else None,
        exact=request.exact,
    )


def version_value(token: str) -> Version | None:
    """Return the version that `token` spells, None for the empty one.

    Raises:
        TokenError: it spells none.
    """
    return Version.parse(token) if token else None


def from_ids(ids: Sequence[str], version: Version) -> Iterator[pb.ListIndexItemsResponse]:
    """Yield `ids` as responses, one at least."""
    for start in range(0, max(1, len(ids)), IDS_A_MESSAGE):
        yield pb.ListIndexItemsResponse(ids=ids[start : start + IDS_A_MESSAGE], version=str(version))


def from_found(found: Found) -> pb.SearchIndexResponse:
    """Return `found` as a response."""
    return pb.SearchIndexResponse(
        hits=map(_from_hit, found.hits),
        version=str(found.version),
        mode=pb.SearchMode.Value(f"SEARCH_MODE_{found.mode.value}"),
        candidates=found.candidates,
        compared=found.compared,
    )


def from_reports(reports: Sequence[IndexReport], next_page_token: str) -> pb.ListIndexesResponse:
    """Return a page of indexes as a response."""
    return pb.ListIndexesResponse(indexes=map(_from_report, reports), next_page_token=next_page_token)


def _from_hit(hit: Hit) -> pb.IndexHit:
    return pb.IndexHit(id=hit.item_id, score=hit.score, spaces=hit.spaces)


def _from_report(report: IndexReport) -> pb.Index:
    state = report.state
    return pb.Index(
        collection=report.collection,
        space=state.space.name,
        engine=state.engine,
        vectors=state.vectors,
        memory_bytes=state.memory_bytes,
        version=str(state.version),
        config=index_config_codec.to_message(state.config),
        state=pb.IndexState.Value(f"INDEX_STATE_{state.state.value}"),
        note=state.note,
        recall=map(_from_recall, state.recall),
        lag_seconds=report.lag_seconds,
    )


def _from_recall(measured: Recall) -> pb.IndexRecall:
    return pb.IndexRecall(
        share_above=measured.share_above,
        share_up_to=measured.share_up_to,
        recall=measured.recall,
        queries=measured.queries,
    )
