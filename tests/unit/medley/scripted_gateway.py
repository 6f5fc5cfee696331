"""A server that answers as a test says, and the asynchronous client in the clothes of the synchronous one."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from medley import aio
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from services.common.errors import ServiceError
from services.common.rpc.statuses import to_status

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


Servicer: Any = pb_grpc.GatewayServiceServicer


class ScriptedGateway(Servicer):  # type: ignore[misc]  # the stubs call it abstract, which it is not
    """Answers each method by the behaviour given for it, and counts the calls."""

    def __init__(self, **behaviours: Behaviour) -> None:
        self.calls: list[str] = []
        for method, behaviour in behaviours.items():
            setattr(self, method, self._counted(method, behaviour))

    def _counted(self, method: str, behaviour: Behaviour) -> Behaviour:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.calls.append(method)
            try:
                return behaviour(request, context)
            except ServiceError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))

        def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.calls.append(method)
            try:
                yield from behaviour(request, context)
            except ServiceError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))

        return answers if inspect.isgeneratorfunction(behaviour) else answer


@contextmanager
def serving(gateway: ScriptedGateway, *, max_message_bytes: int = -1) -> Iterator[str]:
    """Serve `gateway` while the block runs; yield its address."""
    options = [("grpc.max_receive_message_length", max_message_bytes)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    pb_grpc.add_GatewayServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


class AioClient:
    """An `aio.Client` whose methods block and whose iterators are ordinary, so that one test holds both clients."""

    def __init__(self, server: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(_connected(server, options))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            async def begin() -> Any:
                answer = getattr(self._client, name)(*args, **kwargs)
                return await answer if inspect.iscoroutine(answer) else answer

            answer = self._runner.run(begin())
            return self._each(answer) if isinstance(answer, AsyncIterator) else answer

        return method

    def _each(self, answers: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(answers)

        async def closing() -> None:
            await answers.aclose()

        try:
            while True:
                try:
                    answer = self._runner.run(following())
                except StopAsyncIteration:
                    return
                yield answer
        finally:
            self._runner.run(closing())

    def __enter__(self) -> "AioClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


async def _connected(server: str, options: dict[str, Any]) -> aio.Client:
    return aio.Client(server, **options)
