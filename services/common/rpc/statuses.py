"""Conversion between `ServiceError` and `google.rpc.Status`."""

from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from services.common.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptError,
    DeadlineError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    ServiceError,
    UnavailableError,
)

DOMAIN = "medley"
STATUS_CODES: dict[type[ServiceError], grpc.StatusCode] = {
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    ConflictError: grpc.StatusCode.ABORTED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    CorruptError: grpc.StatusCode.DATA_LOSS,
}
TRAILER_BYTES = 7_000
"""Maximum size of an error in a call's trailers; gRPC clients may refuse trailers over 8,192 bytes."""

_UNQUOTED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_TRUNCATED_MESSAGE_BYTES = 800
_TRUNCATED_VALUE_BYTES = 300
_KINDS = {code.value[0]: kind for kind, code in STATUS_CODES.items()}


def status_code(error: type[ServiceError]) -> grpc.StatusCode:
    """Return the status of errors of class `error`: that of its nearest ancestor in `STATUS_CODES`."""
    return next(STATUS_CODES[kind] for kind in error.__mro__ if kind in STATUS_CODES)


def to_status(error: ServiceError) -> status_pb2.Status:
    """Return `error` as a status with an `ErrorInfo`."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    return status_pb2.Status(code=status_code(type(error)).value[0], message=str(error), details=[info])


def truncate_for_trailers(status: status_pb2.Status) -> status_pb2.Status:
    """Return `status` with message and values truncated, ending in …, if it is too large for trailers."""
    if _trailer_bytes(status) <= TRAILER_BYTES:
        return status
    truncated = status_pb2.Status(code=status.code, message=_truncate(status.message, _TRUNCATED_MESSAGE_BYTES))
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            for name, value in info.metadata.items():
                info.metadata[name] = _truncate(value, _TRUNCATED_VALUE_BYTES)
            truncated.details.add().Pack(info)
    return truncated


def _trailer_bytes(status: status_pb2.Status) -> int:
    """Return the size of `grpc-message`, percent-encoded, with that of `grpc-status-details-bin`, in base64."""
    base64 = len(status.SerializeToString()) * 4 // 3
    return len(quote(status.message, safe=_UNQUOTED)) + base64


def _truncate(text: str, max_bytes: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode(errors="ignore") + "…"


def from_status(status: status_pb2.Status) -> ServiceError | None:
    """Return the error of `status`, of the matching kind and with its reason; None if no kind has the code."""
    kind = _KINDS.get(status.code)
    info = error_details_pb2.ErrorInfo()
    if kind is None or not any(detail.Unpack(info) for detail in status.details):
        return None
    error = kind(status.message, **info.metadata)
    error.reason = info.reason
    return error
