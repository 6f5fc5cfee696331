"""Converts the gateway's requests and responses."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from medley.v1 import collection_pb2, item_pb2, store_service_pb2, vector_pb2
from medley.v1 import gateway_service_pb2 as pb
from services.common import index_config_codec
from services.common.content import ContentType
from services.common.enum_codec import CONTENT_TYPES, METRICS, from_proto
from services.common.errors import ArgumentError, ServiceError
from services.common.filter_codec import from_where
from services.common.rpc.statuses import to_status
from services.common.vectors import Metric
from services.gateway.core.collection_factory import SpaceSpec
from services.gateway.core.items import InlineMedia, MediaSource, NewItem, StoredMedia
from services.gateway.core.store import MergeMetadata, MetadataChange, ReplaceMetadata, WrittenRow
from services.gateway.enums import FIELDS, MODES
from services.gateway.ingest.pipeline import IngestResult
from services.gateway.ingest.updater import UpdateRequest
from services.gateway.search.fusion import RRF_K, FusedHit
from services.gateway.search.planner import ArmSpec, ContentQuery, ItemQuery, Query, VectorQuery
from services.gateway.search.searcher import ArmResult, SearchRequest, SearchResult


def from_create_request(request: pb.CreateCollectionRequest) -> tuple[str, list[SpaceSpec]]:
    """Return the name and the spaces to create.

    Raises:
        ArgumentError: an enum's value is not known.
    """
    return request.collection.name, list(map(_space_spec, request.collection.spaces))


async def from_ingest_requests(requests: AsyncIterator[pb.IngestItemsRequest]) -> tuple[str, AsyncIterator[NewItem]]:
    """Return the collection named by the first of `requests`, and the items of the others as they arrive.

    Raises:
        ArgumentError: the first is not a target; while iterating, another is not a chunk.
    """
    first = await anext(aiter(requests), pb.IngestItemsRequest())
    if first.WhichOneof("part") != "target":
        raise ArgumentError("part", first.WhichOneof("part"), "must be the target in the first message")
    return first.target.collection, _new_items(requests)


def to_ingest_response(results: Iterable[IngestResult]) -> pb.IngestItemsResponse:
    """Return the outcomes of some items."""
    return pb.IngestItemsResponse(items=map(_ingested_item, results))


def _ingested_item(ingested: IngestResult) -> pb.IngestedItem:
    match ingested.outcome:
        case WrittenRow(item_id, revision, version):
            written = item_pb2.ItemWritten(id=item_id, revision=revision, version=version)
            result = item_pb2.ItemResult(written=written)
        case ServiceError() as error:
            result = item_pb2.ItemResult(error=to_status(error))
    return pb.IngestedItem(result=result, sequence=ingested.sequence, id=ingested.id)


def from_update_request(request: pb.UpdateItemRequest) -> UpdateRequest:
    """Return the update.

    Raises:
        ArgumentError: metadata are set without a change.
    """
    return UpdateRequest(
        request.collection,
        request.id,
        text=request.text if request.HasField("text") else None,
        media=_media(request.media) if request.HasField("media") else None,
        remove_media=request.remove_media,
        metadata=_metadata(request.metadata) if request.HasField("metadata") else None,
        vectors=_vectors(request.vectors),
        expected_revision=request.expected_revision if request.HasField("expected_revision") else None,
    )


def from_search_request(request: pb.SearchRequest) -> SearchRequest:
    """Return the search.

    Raises:
        ArgumentError: an arm without a query, or an enum's value that is not known.
        FilterError: the filter cannot be read.
    """
    rrf = request.fusion.rrf
    return SearchRequest(
        request.collection,
        [_arm(number, arm) for number, arm in enumerate(request.arms)],
        top_k=request.top_k,
        depth=request.depth,
        rrf_k=rrf.k if rrf.HasField("k") else RRF_K,
        condition=from_where(request.where),
        fields=[from_proto("fields", number, FIELDS) for number in request.fields],
        version=request.version,
        exact=request.exact,
    )


def to_search_response(result: SearchResult[item_pb2.Item]) -> pb.SearchResponse:
    """Return the response of Search."""
    hits = [_hit(rank, hit, item) for rank, (hit, item) in enumerate(result.hits, start=1)]
    return pb.SearchResponse(hits=hits, arms=map(_report, result.arms), version=result.version)


def _space_spec(message: collection_pb2.Space) -> SpaceSpec:
    return SpaceSpec(
        message.name,
        message.model,
        message.dimensions,
        _metric(message.metric),
        _sources(message.sources),
        index_config_codec.from_message(message.index),
    )


async def _new_items(requests: AsyncIterator[pb.IngestItemsRequest]) -> AsyncIterator[NewItem]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise ArgumentError("part", request.WhichOneof("part"), "must be a chunk of items after the first message")
        for item in request.chunk.items:
            yield _new_item(item)


def _new_item(item: pb.IngestItem) -> NewItem:
    return NewItem(
        item.id,
        text=item.text if item.HasField("text") else None,
        media=_media(item.media) if item.HasField("media") else None,
        metadata_json=item.metadata_json,
        vectors=_vectors(item.vectors),
    )


def _media(message: pb.MediaSource) -> MediaSource:
    match message.WhichOneof("source"):
        case "sha256":
            return StoredMedia(message.sha256)
        case _:
            return InlineMedia(message.data)


def _metadata(message: store_service_pb2.MetadataUpdate) -> MetadataChange:
    match message.WhichOneof("change"):
        case "replace_json":
            return ReplaceMetadata(message.replace_json)
        case "merge_json":
            return MergeMetadata(message.merge_json)
        case _:
            raise ArgumentError("metadata", "", "must set replace_json or merge_json")


def _vectors(messages: Mapping[str, vector_pb2.Vector]) -> dict[str, bytes]:
    return {space: vector.float32_le for space, vector in messages.items()}


def _arm(number: int, message: pb.Arm) -> ArmSpec:
    return ArmSpec(_query(number, message), message.space, message.weight)


def _query(number: int, message: pb.Arm) -> Query:
    match message.WhichOneof("query"):
        case "text":
            return ContentQuery(message.text)
        case "image":
            return ContentQuery(message.image)
        case "item_id":
            return ItemQuery(message.item_id)
        case "vector":
            return VectorQuery(message.vector.float32_le)
        case _:
            raise ArgumentError(f"arms[{number}].query", "", "is not set")


def _hit(rank: int, hit: FusedHit, item: item_pb2.Item) -> pb.Hit:
    arms = [pb.ArmScore(arm=score.arm, rank=score.rank, score=score.score) for score in hit.arms]
    return pb.Hit(rank=rank, score=hit.score, arms=arms, item=item)


def _report(arm: ArmResult) -> pb.ArmReport:
    return pb.ArmReport(
        request_arm=arm.arm.request_arm,
        space=arm.arm.space.name,
        metric=METRICS[arm.arm.space.metric],
        weight=arm.arm.weight,
        mode=MODES[arm.result.mode],
        candidates=arm.result.candidates,
        milliseconds=arm.milliseconds,
        compared=arm.result.compared,
    )


def _metric(number: int) -> Metric | None:
    return from_proto("metric", number, METRICS) if number else None


def _sources(numbers: Sequence[int]) -> tuple[ContentType, ...]:
    return tuple(from_proto("sources", number, CONTENT_TYPES) for number in numbers)
