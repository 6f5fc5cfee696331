"""The asynchronous client: the methods of `medley.Client`, awaited."""

# ruff: noqa: ASYNC109  # gRPC enforces the timeout of each call and sends it to the server

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from medley._transport import decode, encode, operations
from medley._transport.aio_status import server_status
from medley._transport.channel import ChannelConfig
from medley._transport.defaults import ERASE_SECONDS, MAX_MESSAGE_BYTES, PAGE_SIZE, SERVER, TIMEOUT_SECONDS
from medley._transport.flow_control import AsyncWindow
from medley._transport.operations import Call, Operation, PageOperation
from medley._transport.session_versions import SessionVersions
from medley._transport.streams import Download, Upload, async_ingest_messages
from medley.errors import Error, from_rpc
from medley.indexes import IndexConfig
from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from medley.values import (
    Arm,
    CheckProgress,
    Collection,
    Field,
    Finding,
    IngestResult,
    Item,
    Lookup,
    Media,
    NewItem,
    Page,
    Picture,
    Receipt,
    SearchResult,
    Source,
    Space,
    Status,
    Tag,
    VectorLike,
    Where,
)

Value = TypeVar("Value")


class Client:
    """A connection to a gateway, for one event loop. Use it in an `async with` block, or await `close`.

    Methods, errors, retries and limits are those of `medley.Client`; those that yield are asynchronous iterators.
    """

    def __init__(
        self,
        server: str = SERVER,
        *,
        timeout: float = TIMEOUT_SECONDS,
        tls: bool = False,
        ca: bytes | str | os.PathLike[str] | None = None,
        token: str | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """Connect as `medley.Client` does."""
        config = ChannelConfig(server, max_message_bytes, tls, ca, token)
        options = config.options()
        self._channel = (
            grpc.aio.secure_channel(server, config.credentials(), options)
            if config.encrypted
            else grpc.aio.insecure_channel(server, options)
        )
        self._stub = pb_grpc.GatewayServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = config.metadata()
        self._versions = SessionVersions()

    async def create_collection(
        self, name: str, spaces: Iterable[Space] | None = None, *, timeout: float | None = None
    ) -> Collection:
        """Create a collection and return it; see `medley.Client.create_collection`."""
        return await self._run(operations.create_collection(name, spaces), timeout)

    async def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """Return one collection."""
        return await self._run(operations.collection(name), timeout)

    def collections(self, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> AsyncIterator[Collection]:
        """Yield the collections by name, page by page; `timeout` is for each page."""
        return self._pages(operations.collections(page_size), timeout)

    async def restore(
        self, collection: str, items: Iterable[Item], fingerprints: Mapping[str, str], *, timeout: float | None = None
    ) -> tuple[IngestResult, ...]:
        """Write up to 10,000 items as they were, with vectors of the models in `fingerprints`, by space.

        Upload their media first. Returns a result for each item, in order.

        Raises:
            PreconditionError: the collection's vectors have another fingerprint.
        """
        return await self._run(operations.restore(self._versions, collection, items, fingerprints), timeout)

    async def erase(
        self, collection: str, ids: Iterable[str], *, media: Iterable[str] = (), timeout: float = ERASE_SECONDS
    ) -> tuple[Receipt, ...]:
        """Delete up to 1000 items permanently, and return a receipt for each, in order.

        All versions without a tag are removed. `media` are hashes of media that the items had, for items that are
        already deleted. Takes up to a minute more if the media were used recently.
        """
        return await self._run(operations.erase(self._versions, collection, ids, media), timeout)

    async def tag(self, collection: str, name: str, *, version: str = "", timeout: float | None = None) -> Tag:
        """Tag a version, the newest for "", which is then kept until the tag is deleted.

        Raises:
            AlreadyExistsError: the tag names another version.
            PreconditionError: the version is no longer kept.
        """
        return await self._run(operations.tag(collection, name, version), timeout)

    async def tags(self, collection: str, *, timeout: float | None = None) -> tuple[Tag, ...]:
        """Return the tags of a collection, by name."""
        return await self._run(operations.tags(collection), timeout)

    async def delete_tag(self, collection: str, name: str, *, timeout: float | None = None) -> None:
        """Delete a tag; its version is then kept no longer than others.

        Raises:
            NotFoundError: no such tag.
        """
        await self._run(operations.delete_tag(collection, name), timeout)

    async def update_space(
        self, collection: str, space: str, *, index: IndexConfig, timeout: float | None = None
    ) -> Collection:
        """Change how a space is indexed; see `medley.Client.update_space`."""
        return await self._run(operations.update_space(self._versions, collection, space, index), timeout)

    async def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a collection with all its items."""
        await self._run(operations.drop_collection(self._versions, name), timeout)

    async def ingest(
        self,
        collection: str,
        items: AsyncIterable[NewItem] | Iterable[NewItem],
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[IngestResult, None]:
        """Send `items` as the returned iterator is advanced, and yield a result for each, in order.

        As `medley.Client.ingest`; a task of this event loop iterates `items`. To end it early, close the iterator, e.g.
        with `contextlib.aclosing`.
        """
        window = AsyncWindow()
        requests = async_ingest_messages(collection, items, window)
        call = self._stub.IngestItems(requests, timeout=timeout, metadata=self._metadata)
        try:
            async with _translate_stream_errors(call):
                async for response in call:
                    for result in decode.ingest_results(response):
                        window.release()
                        self._versions.record(collection, result.version)
                        yield result
            window.flow.check()
        finally:
            window.close()
            call.cancel()

    async def get(
        self,
        collection: str,
        item_id: str,
        *,
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> Item:
        """Return one item."""
        return await self._run(operations.get(collection, item_id, fields, as_of), timeout)

    async def get_many(
        self,
        collection: str,
        ids: Iterable[str],
        *,
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> tuple[Lookup, ...]:
        """Return a lookup for each of `ids`, in their order: the item, or the error."""
        return await self._run(operations.get_many(collection, ids, fields, as_of), timeout)

    def list(
        self,
        collection: str,
        *,
        where: Where | None = None,
        page_size: int = PAGE_SIZE,
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> AsyncIterator[Item]:
        """Yield the items that satisfy `where`, by id, page by page; `timeout` is for each page."""
        return self._pages(operations.list_items(collection, where, page_size, fields, as_of), timeout)

    async def list_page(
        self,
        collection: str,
        *,
        where: Where | None = None,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> Page[Item]:
        """Return the page of `page_token`, the first for an empty one, with the token of the next."""
        return await self._run(operations.list_items(collection, where, page_size, fields, as_of)(page_token), timeout)

    async def count(
        self, collection: str, *, where: Where | None = None, as_of: str = "", timeout: float | None = None
    ) -> int:
        """Return how many items satisfy `where`."""
        return await self._run(operations.count(collection, where, as_of), timeout)

    async def update(  # one option for each change
        self,
        collection: str,
        item_id: str,
        *,
        text: str | None = None,
        media: Source | None = None,
        remove_media: bool = False,
        metadata: Mapping[str, object] | None = None,
        merge: Mapping[str, object] | None = None,
        vectors: Mapping[str, VectorLike] | None = None,
        expected_revision: int | None = None,
        timeout: float | None = None,
    ) -> Item:
        """Change some fields of an item and return the item; see `medley.Client.update`."""
        operation = operations.update(
            self._versions,
            collection,
            item_id,
            text=text,
            media=await asyncio.to_thread(encode.media, media),
            remove_media=remove_media,
            metadata=metadata,
            merge=merge,
            vectors=vectors or {},
            expected_revision=expected_revision,
        )
        return await self._run(operation, timeout)

    async def delete(
        self,
        collection: str,
        ids: Iterable[str] | None = None,
        *,
        where: Where | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete the items of `ids`, or all that satisfy `where`; return how many were deleted."""
        return await self._run(operations.delete(self._versions, collection, ids, where), timeout)

    async def search(  # one option for each part of a query
        self,
        collection: str,
        *,
        text: str | None = None,
        image: Picture | None = None,
        item: str | None = None,
        vector: VectorLike | None = None,
        arms: Iterable[Arm] = (),
        where: Where | None = None,
        top_k: int = 10,
        space: str = "",
        weights: Mapping[str, float] | None = None,
        k: float | None = None,
        depth: int = 0,
        fields: Sequence[Field] = (),
        version: str | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> SearchResult:
        """Return the `top_k` best items for the queries, best first; see `medley.Client.search`."""
        messages = await asyncio.to_thread(
            encode.arms, text, image, item, vector, arms, space=space, weights=weights or {}
        )
        operation = operations.search(
            self._versions,
            collection,
            messages,
            where=where,
            top_k=top_k,
            k=k,
            depth=depth,
            fields=fields,
            version=version,
            exact=exact,
        )
        return await self._run(operation, timeout)

    async def upload_media(
        self,
        source: Picture | Iterable[bytes] | AsyncIterable[bytes],
        *,
        mime_type: str = "",
        timeout: float | None = None,
    ) -> Media:
        """Store an object and return its reference for `NewItem.media`; see `medley.Client.upload_media`."""
        upload = Upload(source, mime_type)
        requests = upload.async_messages(abort=lambda: call.cancel())  # noqa: PLW0108  # `call` is assigned below
        call = self._stub.UploadMedia(requests, timeout=timeout, metadata=self._metadata)
        try:
            async with _translate_stream_errors(call):
                return decode.media((await call).media)
        except asyncio.CancelledError:
            if upload.failure is not None:
                raise upload.failure from None
            raise
        finally:
            call.cancel()

    async def media_url(
        self, sha256: str, *, seconds: int = 3600, mime_type: str = "", timeout: float | None = None
    ) -> str:
        """Return a presigned URL of an object, valid for `seconds` (1 to 604,800) and served as `mime_type`.

        Raises:
            PreconditionError: the server does not keep media in an S3 bucket.
        """
        return await self._run(operations.media_url(sha256, seconds, mime_type), timeout)

    async def download_media(
        self, sha256: str, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a stored object, block by block; see `medley.Client.download_media`."""
        request = operations.download_request(sha256, offset, length)
        download = Download(request)
        call = self._stub.DownloadMedia(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translate_errors():
                async for message in call:
                    yield download.block(message)
            download.check()
        finally:
            call.cancel()

    async def check(  # one parameter for each option of a check
        self,
        collection: str | None = None,
        *,
        media_sample: int | None = 0,
        vector_sample: int = 100,
        repair: bool = False,
        drop_lost_media: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Finding | CheckProgress]:
        """Yield the findings in a collection, or in all, and the progress; see `medley.Client.check`."""
        request = operations.check_request(
            collection,
            media_sample=media_sample,
            vector_sample=vector_sample,
            repair=repair,
            drop_lost_media=drop_lost_media,
        )
        call = self._stub.CheckCollections(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translate_errors():
                async for message in call:
                    yield decode.check_event(message)
        finally:
            call.cancel()

    async def status(self, *, timeout: float | None = None) -> Status:
        """Return the status of services, models, collections and indexes."""
        return await self._run(operations.status(), timeout)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, operation: Operation[Value], timeout: float | None) -> Value:
        """Carry the calls of `operation` until it returns, all of them within one timeout."""
        until = time.monotonic() + (self._timeout if timeout is None else timeout)
        answer: Any = None
        failure: Error | None = None
        while True:
            try:
                call = operation.throw(failure) if failure else operation.send(answer)
            except StopIteration as stop:
                result: Value = stop.value
                return result
            answer, failure = await self._outcome(call, until - time.monotonic())

    async def _outcome(self, call: Call, seconds: float) -> tuple[Any, Error | None]:
        try:
            with _translate_errors():
                method = getattr(self._stub, call.method)
                return await method(call.request, timeout=seconds, metadata=self._metadata), None
        except Error as failure:
            return None, failure

    async def _pages(self, operation: PageOperation[Value], timeout: float | None) -> AsyncIterator[Value]:
        token = ""
        while True:
            page = await self._run(operation(token), timeout)
            for value in page.values:
                yield value
            if not (token := page.next_page_token):
                return


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from error


@asynccontextmanager
async def _translate_stream_errors(call: Any) -> AsyncIterator[None]:
    with _translate_errors():
        async with server_status(call):
            yield
