"""What Milvus and its driver raise, as errors of ours."""

import pytest

pytest.importorskip("pymilvus", reason="needs the extra milvus")

from pymilvus.exceptions import MilvusException

from services.common.errors import OverloadedError
from services.search.engines.milvus.errors import (
    MilvusLostError,
    MilvusUnavailableError,
    NotLoadedError,
    milvus_errors,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MilvusException(8, "rate limit exceeded"), OverloadedError),
        (MilvusException(9, "quota exceeded"), OverloadedError),
        (MilvusException(3, "memory limit exceeded"), OverloadedError),
        (MilvusException(100, "collection not found"), MilvusLostError),
        (MilvusException(101, "collection not loaded"), NotLoadedError),
        (MilvusException(2, "Fail connecting to server"), MilvusUnavailableError),
        (MilvusException(1, "service not ready[querynode]"), MilvusUnavailableError),
        (MilvusException(message="[search] Retry timeout: 2s"), MilvusUnavailableError),
        (MilvusException(503, "channel not available", retriable=True), MilvusUnavailableError),
    ],
)
def test_known_errors_are_ours(error: MilvusException, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, milvus_errors("http://milvus:19530", "searching x"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [MilvusException(1100, "invalid parameter"), MilvusException(65535, "?"), KeyError()])
def test_unknown_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, milvus_errors("http://milvus:19530", "searching x"):
        raise error
    assert caught.value is error


def test_the_token_is_in_no_message() -> None:
    from services.search.engines.milvus.options import MilvusOptions

    assert "secret" not in repr(MilvusOptions("http://milvus:19530", "user:secret"))
