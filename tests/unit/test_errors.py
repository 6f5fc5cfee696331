"""Every error a service can raise is in the API."""

import importlib
import pkgutil
from collections.abc import Iterator

import services
from medley.v1.error_reason_pb2 import ErrorReason
from services.common.errors import NotFoundError, ServiceError
from services.common.rpc.statuses import from_status, status_code, to_status

OPTIONAL = {"torch", "transformers", "onnx", "safetensors", "triton_python_backend_utils"}
"""What no server needs: packages of the extra `export`, and what Triton's own process has. No call reaches them."""


def test_every_reason_is_in_the_api_and_has_a_status() -> None:
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if not module.name.endswith("__main__"):
            _import(module.name)
    reasons = set(ErrorReason.keys())
    leaves = set(_leaves(ServiceError))
    assert leaves
    for error in leaves:
        assert f"ERROR_REASON_{error.reason}" in reasons, error
        assert status_code(error)


def test_an_error_survives_the_wire() -> None:
    class MelonError(NotFoundError):
        reason = "ITEM_NOT_FOUND"

    back = from_status(to_status(MelonError("no melon", id="melon")))
    assert isinstance(back, NotFoundError)
    assert (str(back), back.reason, back.metadata) == ("no melon", "ITEM_NOT_FOUND", {"id": "melon"})


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise


def _leaves(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for child in kind.__subclasses__():
        if hasattr(child, "reason"):
            yield child
        yield from _leaves(child)
