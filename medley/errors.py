"""Errors the client raises; every one is an `Error`, named as the server names them."""

from collections.abc import Mapping
from typing import Protocol

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class Error(Exception):
    """Base class. `reason` is the machine-readable cause ("" when there is none), `metadata` the values involved."""

    def __init__(self, message: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})


class NotFoundError(Error):
    """The named thing does not exist."""


class InvalidError(Error):
    """The request is invalid, whatever the state of the server."""


class AlreadyExistsError(Error):
    """The thing to create exists and differs."""


class PreconditionError(Error):
    """The server is not in the state that the request needs; a retry does not help."""


class ConflictError(Error):
    """Another write came first; read again and retry."""


class OverloadedError(Error):
    """A limit is reached; send fewer, smaller or later requests."""


class UnavailableError(Error):
    """The server does not answer; the same call may succeed later."""


class CorruptError(Error):
    """The server's stored data are damaged; only another copy helps."""


class DeadlineError(Error):
    """The call's timeout passed."""


class FailedCall(Protocol):
    """What the exceptions of synchronous and asynchronous channels have in common."""

    def code(self) -> grpc.StatusCode: ...  # noqa: D102
    def details(self) -> str | None: ...  # noqa: D102


_KINDS: dict[grpc.StatusCode, type[Error]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,  # by a server that stops; the client's own raises no RpcError
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.DATA_LOSS: CorruptError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_REASONS = {
    grpc.StatusCode.UNAVAILABLE: "SERVICE_UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "SERVICE_UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
}


def from_rpc(call: FailedCall) -> Error:
    """Return the error of `call`, a failed call, with a reason by its status code if the server gave none."""
    status = _sent_status(call)
    if status is not None:
        return from_status(status)
    details = call.details() or ""
    kind = _KINDS.get(call.code(), Error)
    return kind(details or call.code().name, _reason(call.code(), details))


def from_status(status: status_pb2.Status) -> Error:
    """Return the error of `status`, which belongs to a call or to one item of a batch."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _KINDS.get(code, Error)
    info = error_details_pb2.ErrorInfo()
    if any(detail.Unpack(info) for detail in status.details):
        return kind(status.message, info.reason, info.metadata)
    return kind(status.message or code.name, _reason(code, status.message))


def _sent_status(call: FailedCall) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)  # type: ignore[arg-type]  # accepts an aio error as well
    except ValueError:  # the details contradict the call's status, which is used alone
        return None


def _reason(code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in details:
        return "MESSAGE_TOO_LARGE"
    return _REASONS.get(code, "")
