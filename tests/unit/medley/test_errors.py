import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import medley
from medley import Error, errors
from services.common import errors as served
from services.common.rpc.statuses import STATUS_CODES, to_status


class FailedCall:
    """A failed call as gRPC tells of it, without a status of ours."""

    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> None:
        return None


@pytest.mark.parametrize("kind", STATUS_CODES)
def test_a_served_error_comes_back_under_its_own_name(kind: type[served.ServiceError]) -> None:
    raised = kind("what went wrong", id="7")
    raised.reason = "SOME_REASON"
    read = errors.from_status(to_status(raised))
    assert type(read).__name__ == kind.__name__
    assert (str(read), read.reason, read.metadata) == ("what went wrong", "SOME_REASON", {"id": "7"})
    assert getattr(medley, kind.__name__) is type(read)


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", errors.UnavailableError, "SERVICE_UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineError, "DEADLINE_EXCEEDED"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max (9 vs. 4)",
            errors.OverloadedError,
            "MESSAGE_TOO_LARGE",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", errors.OverloadedError, "OVERLOADED"),
        (grpc.StatusCode.INTERNAL, "internal error", Error, ""),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", Error, ""),
    ],
)
def test_grpcs_own_failures_get_a_kind_and_a_reason(
    code: grpc.StatusCode, details: str, kind: type[Error], reason: str
) -> None:
    error = errors.from_rpc(FailedCall(code, details))
    assert (type(error), error.reason, str(error)) == (kind, reason, details)


def test_an_error_without_words_names_its_code() -> None:
    assert str(errors.from_rpc(FailedCall(grpc.StatusCode.ABORTED))) == "ABORTED"


def test_a_code_of_the_future_is_an_error() -> None:
    assert type(errors.from_status(status_pb2.Status(code=99, message="?"))) is Error


def test_details_of_another_kind_are_passed_over() -> None:
    other, info = any_pb2.Any(), any_pb2.Any()
    other.Pack(error_details_pb2.RetryInfo())
    info.Pack(error_details_pb2.ErrorInfo(reason="R"))
    assert errors.from_status(status_pb2.Status(code=5, details=[other, info])).reason == "R"
