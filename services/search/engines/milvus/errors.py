"""Milvus's exceptions as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc
from pymilvus.exceptions import ErrorCode, MilvusException

from services.common.errors import OverloadedError, ServiceUnavailableError

_NOT_LOADED = 101
_CONNECT_FAILED = 2  # pymilvus's; Milvus's own 2 means that it is not available, too
_NO_ANSWER = (_CONNECT_FAILED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_TOO_LATE = (grpc.StatusCode.DEADLINE_EXCEEDED,)
_NOT_ALLOWED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_LIMITED = (
    3,  # memory
    4,  # requests
    7,  # disk
    ErrorCode.RATE_LIMIT,
    ErrorCode.FORCE_DENY,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class MilvusUnavailableError(ServiceUnavailableError):
    """Milvus cannot be reached, or is too slow."""

    def __init__(self, uri: str, doing: str, problem: str, *, unreachable: bool = False) -> None:
        super().__init__("milvus", f"at {uri} {problem} ({doing})")
        self.unreachable = unreachable


class MilvusLostError(ServiceUnavailableError):
    """What was kept in Milvus is not there any more; it is built anew."""

    def __init__(self, missing: str) -> None:
        super().__init__("milvus", f"has no {missing} any more; the index is built anew")


class NotLoadedError(Exception):
    """A collection is not in Milvus's memory: it was restarted, or someone released it."""


@contextmanager
def milvus_errors(uri: str, doing: str) -> Iterator[None]:
    """Raise what the block raises as an error of ours, its cause attached; what is not known, as it is."""
    try:
        yield
    except MilvusException as error:
        if error.code == _NOT_LOADED:
            raise NotLoadedError from error
        if error.code == ErrorCode.COLLECTION_NOT_FOUND:
            raise MilvusLostError(f"collection for {doing}") from error
        if error.retriable or "Retry timeout" in error.message or "not ready" in error.message:
            raise MilvusUnavailableError(uri, doing, "cannot answer now") from error
        _raise(uri, doing, error.code, error)
    except grpc.FutureTimeoutError as error:
        _raise(uri, doing, _CONNECT_FAILED, error)
    except grpc.RpcError as error:
        _raise(uri, doing, error.code(), error)


def _raise(uri: str, doing: str, code: object, error: Exception) -> NoReturn:
    if code in _LIMITED:
        raise OverloadedError(f"milvus at {uri} takes no more now ({doing})", queue="milvus") from error
    if code in _NOT_ALLOWED:
        raise MilvusUnavailableError(uri, doing, "does not accept the token") from error
    if code in _TOO_LATE:
        raise MilvusUnavailableError(uri, doing, "does not answer in time") from error
    if code in _NO_ANSWER:
        raise MilvusUnavailableError(uri, doing, "cannot be reached", unreachable=True) from error
    raise error
