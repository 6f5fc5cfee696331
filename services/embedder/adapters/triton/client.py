"""A client of one Triton server, which translates its errors."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from services.common.errors import DeadlineError, OverloadedError, ServiceUnavailableError
from services.common.vectors import Matrix
from services.embedder.adapters.triton.inputs import Inputs
from services.embedder.adapters.triton.layout import VECTOR

CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Reconnect to a restarted server within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

NOT_EXECUTED = ("failed to connect", "connection refused", "stopped accepting", "is shutting down")
QUEUE_FULL = "exceeds maximum queue size"
QUEUE_TIMEOUT = "timeout expired"
DEAD = "is not healthy"


class NotExecutedError(ServiceUnavailableError):
    """A server did not execute the request: it may be sent to another one."""


class DeadBackendError(ServiceUnavailableError):
    """A server reports that the model is ready, but its backend is dead or returns invalid results."""


class ModelMissingError(ServiceUnavailableError):
    """A server does not have the model, or not at this time."""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A server's metadata and configuration of a model."""

    inputs: Inputs
    outputs: Inputs
    max_batch: int
    """Most rows in a request; 1 if the model takes no batches."""
    instances: int
    parameters: dict[str, str]


class TritonClient:
    """A client of the server at `address`, host:port."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answered: Counter[str] = Counter()
        """Requests answered, by model."""
        self._client = InferenceServerClient(address, channel_args=CHANNEL)
        self._calls: defaultdict[str, set[asyncio.Task[Any]]] = defaultdict(set)
        self._abandoned: set[asyncio.Task[Any]] = set()

    @property
    def outstanding(self) -> int:
        """Number of requests in flight."""
        return sum(map(len, self._calls.values()))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def infer(self, model: str, inputs: list[InferInput], rows: int, dimensions: int, seconds: float) -> Matrix:
        """Return a vector for each of `rows`, shape (rows, dimensions).

        Raises:
            NotExecutedError: the server cannot be reached, or is stopping.
            DeadBackendError: the model's backend is dead.
            ModelMissingError: the model is not there.
            OverloadedError: the model's queue is full.
            DeadlineError: `seconds` passed.
            ServiceUnavailableError: the connection broke, or the request was abandoned.
        """
        if seconds <= 0:
            raise DeadlineError("the deadline passed before the request to Triton", service="triton")
        with self._translate_errors(model):
            answer = await self._track(model, self._request(model, inputs, seconds))
        vectors = answer.as_numpy(VECTOR)
        if vectors is None or vectors.shape != (rows, dimensions) or not np.isfinite(vectors).all():
            shape = None if vectors is None else vectors.shape
            raise DeadBackendError("triton", f"at {self.address} returns shape {shape} from {model} for {rows} rows")
        self.answered[model] += 1
        result: Matrix = vectors
        return result

    def abandon(self, model: str) -> None:
        """Fail the requests in flight for `model`, so that callers do not wait for a server that hangs."""
        for task in self._calls[model]:
            self._abandoned.add(task)
            task.cancel()

    async def metadata(self, model: str, seconds: float) -> ModelMetadata:
        """Return the metadata of `model`; raises as `infer`."""
        with self._translate_errors(model):
            signature = await self._client.get_model_metadata(model, client_timeout=seconds)
            config = (await self._client.get_model_config(model, client_timeout=seconds)).config
        return ModelMetadata(
            inputs=_signature(signature.inputs),
            outputs=_signature(signature.outputs),
            max_batch=max(1, config.max_batch_size),
            instances=sum(group.count for group in config.instance_group) or 1,
            parameters={key: value.string_value for key, value in config.parameters.items()},
        )

    async def ready(self, seconds: float) -> bool:
        """Return whether the server reports that all its models are loaded; raises as `infer`."""
        with self._translate_errors(""):
            return bool(await self._client.is_server_ready(client_timeout=seconds))

    async def unload(self, model: str, seconds: float) -> None:
        """Unload `model`; raises as `infer`."""
        with self._translate_errors(model):
            await self._client.unload_model(model, client_timeout=seconds)

    async def load(self, model: str, seconds: float) -> None:
        """Load `model`; raises as `infer`."""
        with self._translate_errors(model):
            await self._client.load_model(model, client_timeout=seconds)

    async def _request(self, model: str, inputs: list[InferInput], seconds: float) -> Any:
        # Triton's timeout, in microseconds, applies to its queue: an expired request is not executed.
        return await self._client.infer(
            model, inputs, outputs=OUTPUTS, timeout=max(1, int(seconds * 1e6)), client_timeout=seconds
        )

    async def _track(self, model: str, request: Any) -> Any:
        task = asyncio.ensure_future(request)
        self._calls[model].add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task in self._abandoned and not (current and current.cancelling()):
                raise ServiceUnavailableError("triton", f"at {self.address} stopped answering") from None
            raise
        finally:
            self._calls[model].discard(task)
            self._abandoned.discard(task)

    @contextmanager
    def _translate_errors(self, model: str) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            self._raise_translated(model, error)

    def _raise_translated(self, model: str, error: InferenceServerException) -> NoReturn:
        problem = f"at {self.address}: {error.message()}"
        message = str(error.message()).lower()
        match str(error.status()).removeprefix("StatusCode."):
            case "DEADLINE_EXCEEDED":
                raise DeadlineError(f"triton at {self.address} did not answer in time", service="triton") from error
            case "UNAVAILABLE" | "RESOURCE_EXHAUSTED" if QUEUE_FULL in message:
                raise OverloadedError(f"triton {problem}", queue=model, limit="") from error
            case "UNAVAILABLE" if QUEUE_TIMEOUT in message:
                raise DeadlineError(f"triton {problem}", service="triton") from error
            case "UNAVAILABLE" if any(phrase in message for phrase in NOT_EXECUTED):
                raise NotExecutedError("triton", problem) from error
            case "NOT_FOUND":
                raise ModelMissingError("triton", problem) from error
            case "UNAVAILABLE" if "unknown model" in message or "not ready" in message:
                raise ModelMissingError("triton", problem) from error
            case "UNAVAILABLE" | "CANCELLED":
                raise ServiceUnavailableError("triton", problem) from error
            case "INTERNAL" | "UNKNOWN" if DEAD in message:
                raise DeadBackendError("triton", problem) from error
            case "INTERNAL" | "UNKNOWN":
                raise ServiceUnavailableError("triton", problem) from error
            case _:
                raise error


OUTPUTS: Sequence[InferRequestedOutput] = [InferRequestedOutput(VECTOR)]


def _signature(tensors: Sequence[service_pb2.ModelMetadataResponse.TensorMetadata]) -> Inputs:
    return {tensor.name: (tensor.datatype, tuple(tensor.shape)[1:]) for tensor in tensors}
