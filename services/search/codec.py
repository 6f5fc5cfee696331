"""Messages to values and back."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from medley.v1 import search_service_pb2 as pb
from services.common import index_config_codec
from services.common.errors import ArgumentError
from services.common.filter_codec import from_message
from services.common.vectors import Matrix, from_bytes, rows_from_bytes, to_bytes
from services.common.versions import Version
from services.search.core.collection_index import Mode, Recall, SearchResult
from services.search.core.errors import BatchDimensionError, BatchVectorError
from services.search.core.hits import columns_of
from services.search.query.arrow import from_arrow
from services.search.query.requests import EncodedVectors, Query, SearchOptions
from services.search.replication.status import IndexReport

IDS_A_MESSAGE = 10_000
RANKING_BYTES_A_MESSAGE = 2**20
_MODES = {mode: pb.SearchMode.Value(f"SEARCH_MODE_{mode.value}") for mode in Mode}


@dataclass(frozen=True, slots=True)
class Float32Vectors:
    """`EncodedVectors` as float32 end to end."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def decode(self, dimensions: int, offset: int) -> Matrix:
        """Return the vectors, shape (n, dimensions)."""
        whole, rest = divmod(len(self.data), 4 * dimensions)
        if rest % 4:
            raise BatchVectorError(offset + whole, f"ends within a component: {len(self.data)} bytes came")
        if rest:
            raise BatchDimensionError(offset + whole, dimensions, rest // 4)
        return rows_from_bytes(self.data, dimensions)


@dataclass(frozen=True, slots=True)
class ArrowVectors:
    """`EncodedVectors` as an Arrow IPC stream."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def decode(self, dimensions: int, offset: int) -> Matrix:
        """Return the vectors, shape (n, dimensions)."""
        return from_arrow(self.data, dimensions, offset)


def to_query(request: pb.SearchIndexRequest) -> Query:
    """Return what `request` asks.

    Raises:
        VectorError: the vector's bytes are no vector.
        FilterError: the filter cannot be read.
        TokenError: the version cannot be read.
    """
    vector = from_bytes(request.vector.float32_le)
    return Query(_options(request, request.ids), vector, paged=request.paged, page_token=request.page_token)


async def to_parts(
    requests: AsyncIterable[pb.SearchIndexBatchRequest],
) -> AsyncIterator[SearchOptions | EncodedVectors]:
    """Yield the options and the vectors of a batch, in the order of `requests`.

    Raises:
        ArgumentError: a request has neither.
        FilterError: the filter cannot be read.
        TokenError: the version cannot be read.
    """
    async for request in requests:
        yield _part(request)


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


def from_found(result: SearchResult, next_page_token: str = "") -> pb.SearchIndexResponse:
    """Return `result` as a response."""
    response = pb.SearchIndexResponse(
        version=str(result.version),
        mode=_MODES[result.mode],
        candidates=result.candidates,
        compared=result.compared,
        next_page_token=next_page_token,
    )
    hits = columns_of(result.hits)
    for item_id, score, spaces in zip(hits.ids, hits.scores.tolist(), hits.spaces, strict=True):
        hit = response.hits.add()  # one made apart would be copied, which takes three times as long
        hit.id, hit.score = item_id, score
        hit.spaces.extend(spaces)
    return response


def from_rankings(result: Sequence[SearchResult]) -> Sequence[pb.SearchIndexBatchResponse]:
    """Return what the vectors of a part of a batch found as responses, one at least, none of them very large."""
    responses: list[pb.SearchIndexBatchResponse] = []
    room = 0
    for each in result:
        ranking = _ranking(each)
        if room <= 0:
            responses.append(pb.SearchIndexBatchResponse(version=str(each.version), candidates=each.candidates))
            room = RANKING_BYTES_A_MESSAGE
        responses[-1].rankings.append(ranking)
        room -= ranking.ByteSize()
    return responses


def from_reports(reports: Sequence[IndexReport], next_page_token: str) -> pb.ListIndexesResponse:
    """Return a page of indexes as a response."""
    return pb.ListIndexesResponse(indexes=map(_from_report, reports), next_page_token=next_page_token)


def _options(message: pb.SearchIndexRequest | pb.SearchIndexBatchOptions, ids: Sequence[str] = ()) -> SearchOptions:
    return SearchOptions(
        collection=message.collection,
        space=message.space,
        fingerprint=message.fingerprint,
        top_k=message.top_k,
        condition=from_message(message.filter) if message.HasField("filter") else None,
        version=version_value(message.version),
        ids=ids,
        score_limit=message.score_limit if message.HasField("score_limit") else None,
        exact=message.exact,
    )


def _part(request: pb.SearchIndexBatchRequest) -> SearchOptions | EncodedVectors:
    if request.WhichOneof("part") == "options":
        return _options(request.options)
    match request.vectors.WhichOneof("encoding"):
        case "float32_le":
            return Float32Vectors(request.vectors.float32_le)
        case "arrow_ipc":
            return ArrowVectors(request.vectors.arrow_ipc)
        case _:
            raise ArgumentError("part", "", "must be options, or vectors as float32_le or arrow_ipc")


def _ranking(result: SearchResult) -> pb.IndexRanking:
    hits = columns_of(result.hits)
    return pb.IndexRanking(
        ids=hits.ids,
        scores_float32_le=to_bytes(hits.scores),
        mode=_MODES[result.mode],
        compared=result.compared,
    )


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
