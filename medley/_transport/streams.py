"""What the clients stream: items and uploads on their way out, downloads on their way in."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar

from medley._transport import encode
from medley._transport.chunking import RequestChunker
from medley._transport.flow_control import AsyncWindow, Window
from medley.errors import Error
from medley.v1 import gateway_service_pb2 as pb
from medley.values import NewItem, Picture

Element = TypeVar("Element")


def ingest_messages(collection: str, items: Iterable[NewItem], window: Window) -> Iterator[pb.IngestItemsRequest]:
    """Yield the target, then the items as `window` lets them through, drawn on a thread of their own.

    Where `items` raises, the messages end as if it were exhausted, so that what was sent is still answered; the window
    keeps what was raised for the client to raise at the end.
    """
    yield encode.ingest_target(collection)
    lots, changed = RequestChunker(), threading.Condition()
    threading.Thread(target=_draw, args=(items, window, lots, changed), name="medley-ingest", daemon=True).start()
    while True:
        with changed:
            changed.wait_for(lots.ready)
            lot = lots.take()
        if not lot:
            return
        yield encode.ingest_chunk(lot)


def _draw(items: Iterable[NewItem], window: Window, lots: RequestChunker, changed: threading.Condition) -> None:
    try:
        for item in items:
            message = encode.ingest_item(item)
            size = message.ByteSize()
            if not window.enter(size):
                break
            with changed:
                lots.put(message, size)
                changed.notify()
    except Exception as failure:  # whatever the caller's own source raises is the caller's to see
        window.room.failure = failure
    finally:
        with changed:
            lots.end()
            changed.notify()


async def async_ingest_messages(
    collection: str, items: AsyncIterable[NewItem] | Iterable[NewItem], window: AsyncWindow
) -> AsyncIterator[pb.IngestItemsRequest]:
    """Yield as `ingest_messages` does; `items` are drawn by a task, and files read on a thread."""
    yield encode.ingest_target(collection)
    lots, changed = RequestChunker(), asyncio.Event()
    drawing = asyncio.create_task(_async_draw(items, window, lots, changed))
    try:
        while True:
            while not lots.ready():
                changed.clear()
                await changed.wait()
            if not (lot := lots.take()):
                return
            yield encode.ingest_chunk(lot)
    finally:
        drawing.cancel()


async def _async_draw(
    items: AsyncIterable[NewItem] | Iterable[NewItem], window: AsyncWindow, lots: RequestChunker, changed: asyncio.Event
) -> None:
    try:
        async for item in each(items):
            is_path = isinstance(item.media, str | os.PathLike)
            message = await asyncio.to_thread(encode.ingest_item, item) if is_path else encode.ingest_item(item)
            size = message.ByteSize()
            if not await window.enter(size):
                break
            lots.put(message, size)
            changed.set()
            if lots.full:
                await asyncio.sleep(0)  # a source that never waits is not to keep the loop from sending
    except Exception as failure:  # whatever the caller's own source raises is the caller's to see
        window.room.failure = failure
    finally:
        lots.end()
        changed.set()


class Upload:
    """An upload that its own source can fail: it is then aborted, as its end would pass for the object's.

    `abort` is called, on whichever thread draws the messages, with `failure` set.
    """

    def __init__(self, source: Picture | Iterable[bytes] | AsyncIterable[bytes], mime_type: str) -> None:
        self._source = source
        self._header = encode.upload_header(source, mime_type)
        self.failure: Exception | None = None

    def messages(self, abort: Callable[[], object]) -> Iterator[pb.UploadMediaRequest]:
        """Yield the header, then the source's bytes in chunks."""
        yield self._header
        try:
            for block in encode.blocks(self._source):  # type: ignore[arg-type]  # no asynchronous one comes here
                yield from encode.upload_chunks(block)
        except Exception as failure:  # whatever the caller's own source raises is the caller's to see
            self.failure = failure
            abort()

    async def async_messages(self, abort: Callable[[], object]) -> AsyncIterator[pb.UploadMediaRequest]:
        """Yield the header, then the source's bytes in chunks; files are read on a thread."""
        yield self._header
        try:
            async for block in _async_blocks(self._source):
                for message in encode.upload_chunks(block):
                    yield message
        except Exception as failure:  # whatever the caller's own source raises is the caller's to see
            self.failure = failure
            abort()


class Download:
    """The blocks of one download, hashed as they pass where the whole object is asked for."""

    def __init__(self, request: pb.DownloadMediaRequest) -> None:
        self._sha256 = request.sha256
        self._hash = None if request.HasField("range") else hashlib.sha256()

    def block(self, message: pb.DownloadMediaResponse) -> bytes:
        """Return the block that `message` brings."""
        if self._hash is not None:
            self._hash.update(message.chunk)
        return message.chunk

    def check(self) -> None:
        """Raise an error where the object came whole and is not what was asked for."""
        if self._hash is not None and self._hash.hexdigest() != self._sha256:
            raise Error(f"the object {self._sha256} came with the hash {self._hash.hexdigest()}")


async def each(elements: AsyncIterable[Element] | Iterable[Element]) -> AsyncIterator[Element]:
    """Yield the elements of an iterable of either kind."""
    if isinstance(elements, AsyncIterable):
        async for element in elements:
            yield element
    else:
        for element in elements:
            yield element


async def _async_blocks(source: Picture | Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(source, AsyncIterable):
        async for block in source:
            yield block
        return
    blocks = encode.blocks(source)
    while block := await asyncio.to_thread(_next, blocks):
        yield block


def _next(blocks: Iterator[bytes]) -> bytes:
    """Return the next block that is not empty; an empty one at the end."""
    return next(filter(None, blocks), b"")
