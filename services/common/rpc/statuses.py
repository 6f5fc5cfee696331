"""`ServiceError` to `google.rpc.Status` and back: the one table of kinds and codes."""

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
"""What an error may take of a call's trailing headers; gRPC's clients begin to refuse them at 8,192."""

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
    """Return `status` as a call can end with it: message and values cut, with …, where they are too long to arrive."""
    if _trailer_bytes(status) <= TRAILER_BYTES:
        return status
    cut = status_pb2.Status(code=status.code, message=_truncate(status.message, _TRUNCATED_MESSAGE_BYTES))
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            for name, value in info.metadata.items():
                info.metadata[name] = _truncate(value, _TRUNCATED_VALUE_BYTES)
            cut.details.add().Pack(info)
    return cut


def _trailer_bytes(status: status_pb2.Status) -> int:
    """Return the size of `grpc-message`, percent-encoded, with that of `grpc-status-details-bin`, in base64."""
    base64 = len(status.SerializeToString()) * 4 // 3
    return len(quote(status.message, safe=_UNQUOTED)) + base64


def _truncate(text: str, most: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most else encoded[:most].decode(errors="ignore") + "…"


def from_status(status: status_pb2.Status) -> ServiceError | None:
    """Return the error that `status` tells of, of its kind, with its reason; None where the code is no kind's."""
    kind = _KINDS.get(status.code)
    info = error_details_pb2.ErrorInfo()
    if kind is None or not any(detail.Unpack(info) for detail in status.details):
        return None
    error = kind(status.message, **info.metadata)
    error.reason = info.reason
    return error
