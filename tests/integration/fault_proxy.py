"""A proxy before an HTTP server that delays, cuts, loses, replaces, truncates or changes answers, as it is told.

async with FaultProxy("127.0.0.1:9000") as proxy:
    proxy.rule = lambda request: Answer(503, SLOW_DOWN) if request.method == "PUT" else None
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
FULL = b"<?xml version='1.0'?><Error><Code>XMinioStorageFull</Code><Message>No space left.</Message></Error>"


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Delay:
    """Pass the request on after some time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in the server's stead."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Cut:
    """Let the server do its work, and break off after some bytes of its answer's body; -1 loses the head, too."""

    body_bytes: int = -1


@dataclass(frozen=True, slots=True)
class Change:
    """Let the server do its work, and change its answer, head and all."""

    changed: Callable[[bytes], bytes]


Fault = Delay | Answer | Cut | Change
Rule = Callable[[Request], Fault | None]


class FaultProxy:
    """Passes everything on until it gets a `rule`; `faults` counts what it has done. One request a connection."""

    def __init__(self, server: str) -> None:
        self.rule: Rule = lambda _: None
        self.faults: Counter[str] = Counter()
        self.address = ""
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "FaultProxy":
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**16)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = _parsed(head)
        if request.headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(request.headers.get("content-length", 0)))
        answer = await self._answer(request, head, body)
        if answer:
            writer.write(answer)
            await writer.drain()
            writer.write_eof()
            await reader.read()

    async def _answer(self, request: Request, head: bytes, body: bytes) -> bytes:
        fault = self.rule(request)
        if fault is not None:
            self.faults[type(fault).__name__] += 1
        match fault:
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._passed_on(head, body)
            case Answer(status, content):
                return _answer_of(status, content)
            case Cut(body_bytes):
                answer_head, blank, rest = (await self._passed_on(head, body)).partition(b"\r\n\r\n")
                return answer_head + blank + rest[:body_bytes] if body_bytes >= 0 else b""
            case Change(changed):
                return changed(await self._passed_on(head, body))
            case None:
                return await self._passed_on(head, body)

    async def _passed_on(self, head: bytes, body: bytes) -> bytes:
        """Return the server's answer; it is asked to close the connection, so that we see where its answer ends."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            line, _, rest = head.partition(b"\r\n")
            lines = [each for each in rest.split(b"\r\n") if not each.lower().startswith((b"connection:", b"expect:"))]
            writer.write(b"\r\n".join([line, b"Connection: close", *lines]) + body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.transport.abort()


def _parsed(head: bytes) -> Request:
    line, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ", 2)
    pairs = (each.split(":", 1) for each in lines if ":" in each)
    return Request(method, target, {name.strip().lower(): value.strip() for name, value in pairs})


def _answer_of(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
