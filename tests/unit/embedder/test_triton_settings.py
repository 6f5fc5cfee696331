"""Where Triton is, as the environment says it."""

import pytest
from pydantic import ValidationError

from services.embedder.settings import EmbedderSettings


def test_endpoints_come_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDER_RUNTIME", "triton")
    monkeypatch.setenv("EMBEDDER_TRITON_ENDPOINTS", "one:8001, 10.0.0.2:8001,[::1]:8001,")
    assert EmbedderSettings().triton_endpoints == ("one:8001", "10.0.0.2:8001", "[::1]:8001")


@pytest.mark.parametrize("endpoints", ["one", "http://one:8001", "one:", ":8001", "one:grpc"])
def test_what_is_no_host_and_port_is_refused(endpoints: str) -> None:
    with pytest.raises(ValidationError, match="is not host:port"):
        EmbedderSettings(runtime="triton", triton_endpoints=endpoints)


@pytest.mark.parametrize("endpoints", ["", " , "])
def test_triton_without_an_endpoint_is_refused(endpoints: str) -> None:
    with pytest.raises(ValidationError, match="needs triton_endpoints"):
        EmbedderSettings(runtime="triton", triton_endpoints=endpoints)
