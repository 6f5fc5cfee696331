import pytest

from medley.v1.error_reason_pb2 import ErrorReason
from services.common.errors import ServiceError
from services.store import errors

LEAVES = [each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__]


@pytest.mark.parametrize("error", LEAVES)
def test_every_reason_is_in_the_api(error: type[ServiceError]) -> None:
    assert f"ERROR_REASON_{error.reason}" in ErrorReason.keys()  # noqa: SIM118  # not a mapping


def test_there_are_errors_to_check() -> None:
    assert len(LEAVES) >= 13
