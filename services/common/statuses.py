"""`ServiceError` to `google.rpc.Status` and back: the one table of kinds and codes."""

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
_KINDS = {code.value[0]: kind for kind, code in STATUS_CODES.items()}


def status_code(error: type[ServiceError]) -> grpc.StatusCode:
    """Return the status of errors of class `error`: that of its nearest ancestor in `STATUS_CODES`."""
    return next(STATUS_CODES[kind] for kind in error.__mro__ if kind in STATUS_CODES)


def to_status(error: ServiceError) -> status_pb2.Status:
    """Return `error` as a status with an `ErrorInfo`."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    return status_pb2.Status(code=status_code(type(error)).value[0], message=str(error), details=[info])


def from_status(status: status_pb2.Status) -> ServiceError | None:
    """Return the error that `status` tells of, of its kind, with its reason; None where the code is no kind's."""
    kind = _KINDS.get(status.code)
    info = error_details_pb2.ErrorInfo()
    if kind is None or not any(detail.Unpack(info) for detail in status.details):
        return None
    error = kind(status.message, **info.metadata)
    error.reason = info.reason
    return error
