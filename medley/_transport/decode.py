"""Messages to plain values, for both clients."""

import json
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from medley._transport.encode import COLLECTIONS, enum_prefix
from medley.errors import from_status
from medley.indexes import (
    ExactIndex,
    ExactStorage,
    HnswIndex,
    IndexConfig,
    IndexRecall,
    IndexState,
    IndexStatus,
    IvfIndex,
    VectorStorage,
)
from medley.v1 import (
    check_pb2,
    collection_pb2,
    embedder_service_pb2,
    index_config_pb2,
    item_pb2,
    search_service_pb2,
    vector_pb2,
)
from medley.v1 import gateway_service_pb2 as pb
from medley.values import (
    ArmReport,
    ArmScore,
    CheckProgress,
    Collection,
    CollectionStatus,
    ContentType,
    Finding,
    FindingKind,
    Hit,
    IngestResult,
    Item,
    Lookup,
    Media,
    Metric,
    Model,
    Receipt,
    ReceiptCheck,
    SearchMode,
    SearchResult,
    ServiceStatus,
    Space,
    Status,
    Tag,
)


def collection(message: collection_pb2.Collection) -> Collection:
    """Return a collection under its short name."""
    return Collection(
        name=message.name.removeprefix(COLLECTIONS),
        spaces=tuple(map(_space, message.spaces)),
        version=message.version,
        create_time=_time(message, "create_time"),
    )


def item(message: item_pb2.Item) -> Item:
    """Return an item; fields that were not requested are None or empty."""
    return Item(
        id=message.id,
        content_type=_content_type(message.content_type),
        text=message.text if message.HasField("text") else None,
        media=media(message.media) if message.HasField("media") else None,
        metadata=json.loads(message.metadata_json) if message.HasField("metadata_json") else None,
        vectors={space: np.frombuffer(vector.float32_le, "<f4") for space, vector in message.vectors.items()},
        spaces=tuple(message.spaces),
        revision=message.revision,
        create_time=_time(message, "create_time"),
        update_time=_time(message, "update_time"),
    )


def media(message: item_pb2.Media) -> Media:
    """Return a reference to a stored object."""
    return Media(
        sha256=message.sha256,
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        width=message.width,
        height=message.height,
        data=message.data if message.HasField("data") else None,
    )


def ingest_results(message: pb.IngestItemsResponse) -> list[IngestResult]:
    """Return the results of some items."""
    return [item_result(each.id, each.sequence, each.result) for each in message.items]


def item_result(item_id: str, sequence: int, outcome: item_pb2.ItemResult) -> IngestResult:
    """Return the result of one item of a batch."""
    if outcome.HasField("error"):
        return IngestResult(item_id, sequence, error=from_status(outcome.error))
    return IngestResult(item_id, sequence, outcome.written.revision, outcome.written.version)


def lookup(item_id: str, message: item_pb2.ItemLookup) -> Lookup:
    """Return the answer about `item_id`."""
    if message.HasField("error"):
        return Lookup(item_id, error=from_status(message.error))
    return Lookup(item_id, item(message.item))


def search_result(message: pb.SearchResponse) -> SearchResult:
    """Return hits and the report of each arm."""
    return SearchResult(tuple(map(_hit, message.hits)), tuple(map(_arm_report, message.arms)), message.version)


def status(message: pb.GetStatusResponse) -> Status:
    """Return the status of services, models, collections and indexes."""
    return Status(
        services=tuple(
            ServiceStatus(service.name, from_status(service.error) if service.HasField("error") else None)
            for service in message.services
        ),
        models=tuple(map(_model, message.models)),
        collections=tuple(
            CollectionStatus(collection(state.collection), state.items, tuple(map(_index, state.indexes)))
            for state in message.collections
        ),
    )


def tag(message: collection_pb2.Tag) -> Tag:
    """Return a tag."""
    return Tag(message.name, message.version)


def receipt(message: pb.Receipt) -> Receipt:
    """Return a receipt."""
    return Receipt(
        collection=message.collection.removeprefix(COLLECTIONS),
        id=message.id,
        sha256=message.sha256,
        existed=message.existed,
        complete=message.complete,
        checks=tuple(ReceiptCheck(check.what, check.gone, check.detail) for check in message.checks),
        deleted_version=message.deleted_version,
        purged_version=message.purged_version,
        time=_time(message, "time"),
    )


def check_event(message: pb.CheckCollectionsResponse) -> Finding | CheckProgress:
    """Return a finding or the progress of a check."""
    return _finding(message.finding) if message.HasField("finding") else _progress(message.progress)


def _finding(message: check_pb2.Finding) -> Finding:
    return Finding(
        kind=cast(FindingKind | None, _enum_name(check_pb2.FindingKind, message.kind)),
        collection=message.collection.removeprefix(COLLECTIONS),
        id=message.id,
        space=message.space,
        sha256=message.sha256,
        detail=message.detail,
        repaired=message.repaired,
        not_repaired_because=message.not_repaired_because,
    )


def _progress(message: pb.CheckProgress) -> CheckProgress:
    return CheckProgress(
        collection=message.collection.removeprefix(COLLECTIONS),
        version=message.version,
        rows_total=message.rows_total,
        rows=message.rows,
        media=message.media.objects,
        media_read=message.media.objects_read,
        media_bytes_read=message.media.bytes_read,
        vectors_compared=message.vectors_compared,
        done=message.done,
    )


def _space(message: collection_pb2.Space) -> Space:
    return Space(
        name=message.name,
        model=message.model,
        dimensions=message.dimensions,
        metric=_metric(message.metric),
        sources=_content_types(message.sources),
        fingerprint=message.fingerprint,
        index=_index_config(message.index),
    )


def _hit(message: pb.Hit) -> Hit:
    scores = tuple(ArmScore(score.arm, score.rank, score.score) for score in message.arms)
    return Hit(message.rank, message.score, scores, item(message.item))


def _arm_report(message: pb.ArmReport) -> ArmReport:
    return ArmReport(
        request_arm=message.request_arm,
        space=message.space,
        metric=_metric(message.metric),
        weight=message.weight,
        mode=cast(SearchMode | None, _enum_name(search_service_pb2.SearchMode, message.mode)),
        candidates=message.candidates,
        milliseconds=message.milliseconds,
        compared=message.compared,
    )


def _model(message: embedder_service_pb2.Model) -> Model:
    return Model(
        name=message.name,
        dimensions=message.dimensions,
        metric=_metric(message.metric),
        inputs=_content_types(message.inputs),
        fingerprint=message.fingerprint,
        summary=message.summary,
    )


def _index(message: search_service_pb2.Index) -> IndexStatus:
    return IndexStatus(
        collection=message.collection.removeprefix(COLLECTIONS),
        space=message.space,
        engine=message.engine,
        vectors=message.vectors,
        memory_bytes=message.memory_bytes,
        version=message.version,
        config=_index_config(message.config),
        state=cast(IndexState | None, _enum_name(search_service_pb2.IndexState, message.state)),
        note=message.note,
        recall=tuple(
            IndexRecall(each.share_above, each.share_up_to, each.recall, each.queries) for each in message.recall
        ),
        lag_seconds=message.lag_seconds,
    )


def _index_config(message: index_config_pb2.IndexConfig) -> IndexConfig | None:
    """Return how a space is indexed; None if unset or of a kind that this client does not know."""
    shares = {"exact_below_selectivity": message.exact_below_selectivity, "recall_floor": message.recall_floor}
    match message.WhichOneof("kind"):
        case "exact":
            return ExactIndex(cast(ExactStorage | None, _storage(message.exact.storage)))
        case "hnsw":
            hnsw = message.hnsw
            storage = _storage(hnsw.storage)
            return HnswIndex(hnsw.m, hnsw.ef_construction, hnsw.ef_search, storage, **shares)
        case "ivf":
            ivf = message.ivf
            return IvfIndex(ivf.nlist, ivf.nprobe, _storage(ivf.storage), ivf.product_bytes, **shares)
        case _:
            return None


def _storage(number: int) -> VectorStorage | None:
    return cast(VectorStorage | None, _enum_name(index_config_pb2.VectorStorage, number))


def _metric(number: int) -> Metric | None:
    return cast(Metric | None, _enum_name(vector_pb2.Metric, number))


def _content_type(number: int) -> ContentType | None:
    return cast(ContentType | None, _enum_name(collection_pb2.ContentType, number))


def _content_types(numbers: Any) -> tuple[ContentType, ...]:
    return tuple(kind for kind in map(_content_type, numbers) if kind is not None)


def _enum_name(enum: Any, number: int) -> str | None:
    """Return the name of `number` in lower case; None if unset or added by a newer server."""
    if number == 0 or number not in enum.values():
        return None
    name: str = enum.Name(number)
    return name.removeprefix(enum_prefix(enum)).lower()


def _time(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)
