"""Converts the gateway's maintenance requests and responses."""

from collections.abc import Sequence
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from medley.v1 import check_pb2, collection_pb2, embedder_service_pb2, item_pb2, search_service_pb2, store_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from services.common.rpc.statuses import to_status
from services.gateway.core.findings import CheckedMedia, Finding
from services.gateway.enums import FINDING_KINDS
from services.gateway.maintenance.erasure import Receipt, ReceiptCheck
from services.gateway.maintenance.integrity_check import CheckProgress, CheckRequest
from services.gateway.maintenance.restore import RestoreRequest
from services.gateway.maintenance.status import CollectionStatus, ServiceStatus, Status

CollectionStatusView: TypeAlias = CollectionStatus[collection_pb2.Collection, search_service_pb2.Index]
StatusView: TypeAlias = Status[embedder_service_pb2.Model, collection_pb2.Collection, search_service_pb2.Index]


def from_check_request(request: pb.CheckCollectionsRequest) -> CheckRequest:
    """Return the check to run."""
    return CheckRequest(
        request.collection,
        media_objects=request.media.objects,
        all_media=request.media.all,
        vector_sample=request.vector_sample,
        repair=request.repair,
        drop_lost_media=request.drop_lost_media,
    )


def to_check_response(part: Finding | CheckProgress) -> pb.CheckCollectionsResponse:
    """Return a part of a check's report."""
    match part:
        case Finding():
            return pb.CheckCollectionsResponse(finding=_finding(part))
        case CheckProgress():
            return pb.CheckCollectionsResponse(progress=_progress(part))


def from_restore_request(request: pb.RestoreItemsRequest) -> RestoreRequest[store_service_pb2.Row]:
    """Return the rows to restore, unread except for the names of their vectors' spaces."""
    spaces = frozenset(space for row in request.rows for space in row.vectors)
    return RestoreRequest(request.collection, request.rows, spaces, request.fingerprints)


def to_restore_response(results: Sequence[item_pb2.ItemResult]) -> pb.RestoreItemsResponse:
    """Return the outcomes of restored rows."""
    return pb.RestoreItemsResponse(results=results)


def to_erase_response(receipts: Sequence[Receipt]) -> pb.EraseItemsResponse:
    """Return the receipts of an erasure."""
    return pb.EraseItemsResponse(receipts=map(_receipt, receipts))


def to_status_response(status: StatusView) -> pb.GetStatusResponse:
    """Return the status of the services."""
    return pb.GetStatusResponse(
        services=map(_service, status.services),
        models=status.models,
        collections=map(_collection, status.collections),
    )


def _finding(finding: Finding) -> check_pb2.Finding:
    return check_pb2.Finding(
        kind=FINDING_KINDS[finding.kind],
        collection=finding.collection,
        id=finding.id,
        space=finding.space,
        sha256=finding.sha256,
        detail=finding.detail,
        repaired=finding.repaired,
        not_repaired_because=finding.not_repaired_because,
    )


def _progress(progress: CheckProgress) -> pb.CheckProgress:
    return pb.CheckProgress(
        collection=progress.collection,
        version=progress.version,
        rows_total=progress.rows_total,
        rows=progress.rows,
        media=_media(progress.media) if progress.media else None,
        vectors_compared=progress.vectors_compared,
        done=progress.done,
    )


def _media(media: CheckedMedia) -> store_service_pb2.CheckedMedia:
    return store_service_pb2.CheckedMedia(
        objects=media.objects, objects_read=media.objects_read, bytes_read=media.bytes_read
    )


def _receipt(receipt: Receipt) -> pb.Receipt:
    time = Timestamp()
    time.FromDatetime(receipt.time)
    return pb.Receipt(
        collection=receipt.collection,
        id=receipt.id,
        sha256=receipt.sha256,
        existed=receipt.existed,
        complete=receipt.complete,
        checks=map(_receipt_check, receipt.checks),
        deleted_version=receipt.deleted_version,
        purged_version=receipt.purged_version,
        time=time,
    )


def _receipt_check(check: ReceiptCheck) -> pb.ReceiptCheck:
    return pb.ReceiptCheck(what=check.what, gone=check.gone, detail=check.detail)


def _service(service: ServiceStatus) -> pb.ServiceStatus:
    return pb.ServiceStatus(name=service.name, error=to_status(service.error) if service.error else None)


def _collection(status: CollectionStatusView) -> pb.CollectionStatus:
    return pb.CollectionStatus(collection=status.collection, items=status.items, indexes=status.indexes)
