"""Streams of the clients: ingests, uploads and downloads."""

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
    """Yield the target, then the items as `window` admits them; another thread iterates `items`.

    If `items` raises, the messages end as if it were exhausted, so that sent items are still answered; the window keeps
    the exception, which the client raises at the end.
    """
    yield encode.ingest_target(collection)
    chunker, changed = RequestChunker(), threading.Condition()
    threading.Thread(
        target=_read_items, args=(items, window, chunker, changed), name="medley-ingest", daemon=True
    ).start()
    while True:
        with changed:
            changed.wait_for(chunker.ready)
            chunk = chunker.take()
        if not chunk:
            return
        yield encode.ingest_chunk(chunk)


def _read_items(
    items: Iterable[NewItem], window: Window, chunker: RequestChunker, changed: threading.Condition
) -> None:
    try:
        for item in items:
            message = encode.ingest_item(item)
            size = message.ByteSize()
            if not window.acquire(size):
                break
            with changed:
                chunker.put(message, size)
                changed.notify()
    except Exception as failure:  # raised again in the caller's thread
        window.flow.failure = failure
    finally:
        with changed:
            chunker.end()
            changed.notify()


async def async_ingest_messages(
    collection: str, items: AsyncIterable[NewItem] | Iterable[NewItem], window: AsyncWindow
) -> AsyncIterator[pb.IngestItemsRequest]:
    """Yield as `ingest_messages` does; a task iterates `items`, and files are read on a thread."""
    yield encode.ingest_target(collection)
    chunker, changed = RequestChunker(), asyncio.Event()
    reader = asyncio.create_task(_async_read_items(items, window, chunker, changed))
    try:
        while True:
            while not chunker.ready():
                changed.clear()
                await changed.wait()
            if not (chunk := chunker.take()):
                return
            yield encode.ingest_chunk(chunk)
    finally:
        reader.cancel()


async def _async_read_items(
    items: AsyncIterable[NewItem] | Iterable[NewItem],
    window: AsyncWindow,
    chunker: RequestChunker,
    changed: asyncio.Event,
) -> None:
    try:
        async for item in iterate(items):
            is_path = isinstance(item.media, str | os.PathLike)
            message = await asyncio.to_thread(encode.ingest_item, item) if is_path else encode.ingest_item(item)
            size = message.ByteSize()
            if not await window.acquire(size):
                break
            chunker.put(message, size)
            changed.set()
            if chunker.full:
                await asyncio.sleep(0)  # lets the loop send even if the source never suspends
    except Exception as failure:  # raised again in the caller's thread
        window.flow.failure = failure
    finally:
        chunker.end()
        changed.set()


class Upload:
    """An upload that is aborted if its source raises: an early end would look like the end of the object.

    `abort` is called, on the thread that iterates the messages, with `failure` set.
    """

    def __init__(self, source: Picture | Iterable[bytes] | AsyncIterable[bytes], mime_type: str) -> None:
        self._source = source
        self._header = encode.upload_header(source, mime_type)
        self.failure: Exception | None = None

    def messages(self, abort: Callable[[], object]) -> Iterator[pb.UploadMediaRequest]:
        """Yield the header, then the source's bytes in chunks."""
        yield self._header
        try:
            for block in encode.blocks(self._source):  # type: ignore[arg-type]  # the source is synchronous here
                yield from encode.upload_chunks(block)
        except Exception as failure:  # raised again in the caller's thread
            self.failure = failure
            abort()

    async def async_messages(self, abort: Callable[[], object]) -> AsyncIterator[pb.UploadMediaRequest]:
        """Yield the header, then the source's bytes in chunks; files are read on a thread."""
        yield self._header
        try:
            async for block in _async_blocks(self._source):
                for message in encode.upload_chunks(block):
                    yield message
        except Exception as failure:  # raised again in the caller's thread
            self.failure = failure
            abort()


class Download:
    """The blocks of one download, which are hashed if the whole object is requested."""

    def __init__(self, request: pb.DownloadMediaRequest) -> None:
        self._sha256 = request.sha256
        self._hash = None if request.HasField("range") else hashlib.sha256()

    def block(self, message: pb.DownloadMediaResponse) -> bytes:
        """Return the block of `message`."""
        if self._hash is not None:
            self._hash.update(message.chunk)
        return message.chunk

    def check(self) -> None:
        """Raise an error if the whole object was received and has another hash."""
        if self._hash is not None and self._hash.hexdigest() != self._sha256:
            raise Error(f"the object {self._sha256} was received with the hash {self._hash.hexdigest()}")


async def iterate(elements: AsyncIterable[Element] | Iterable[Element]) -> AsyncIterator[Element]:
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
    """Return the next block that is not empty, or an empty one at the end."""
    return next(filter(None, blocks), b"")
