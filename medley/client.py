"""The synchronous client. `medley.aio` has its asynchronous twin."""

import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from medley._transport import decode, encode, operations
from medley._transport.channel import ChannelConfig
from medley._transport.defaults import ERASE_SECONDS, MAX_MESSAGE_BYTES, PAGE_SIZE, SERVER, TIMEOUT_SECONDS
from medley._transport.flow_control import Window
from medley._transport.operations import Call, Operation, PageOperation
from medley._transport.session_versions import SessionVersions
from medley._transport.streams import Download, Upload, ingest_messages
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
    """A connection to a gateway. Use it in a `with` block, or call `close`; threads may share it.

    Every method raises a subclass of `medley.Error`. Collections go by their short name: "photos" stands for
    "collections/photos". A search sees at least what this client has written before it.

    Methods that decode, `create_collection`, `update_space` and `delete` are tried again while the server does not
    answer, with growing pauses, at most four times and within the timeout. `ingest`, `update`, `drop_collection` and
    `upload_media` are not: an item ingested again under its id replaces itself, so that sending again what was not
    answered is safe.
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
        """Connect to `server`, "host:port", when it is first called; each method may take `timeout` seconds.

        `tls` encrypts the connection, trusting the system's certificate authorities, or the PEM file or bytes `ca`
        alone. `token` is sent as a bearer token.
        """
        target = ChannelConfig(server, max_message_bytes, tls, ca, token)
        options = target.options()
        self._channel = (
            grpc.secure_channel(server, target.credentials(), options)
            if target.encrypted
            else grpc.insecure_channel(server, options)
        )
        self._stub = pb_grpc.GatewayServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = target.metadata()
        self._versions = SessionVersions()

    def create_collection(
        self, name: str, spaces: Iterable[Space] | None = None, *, timeout: float | None = None
    ) -> Collection:
        """Create a collection and return it; the same one again is answered as it is, however it is indexed.

        Without `spaces` it gets two: "clip" for pictures and "text" for texts.

        Raises:
            AlreadyExistsError: it exists with other spaces.
        """
        return self._run(operations.create_collection(name, spaces), timeout)

    def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """Return one collection.

        Raises:
            NotFoundError: there is none of the name.
        """
        return self._run(operations.collection(name), timeout)

    def collections(self, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> Iterator[Collection]:
        """Yield the collections by name, page by page; `timeout` is for each page."""
        return self._pages(operations.collections(page_size), timeout)

    def restore(
        self, collection: str, items: Iterable[Item], fingerprints: Mapping[str, str], *, timeout: float | None = None
    ) -> tuple[IngestResult, ...]:
        """Write up to 10,000 items as they were, with their vectors, made under `fingerprints` by space.

        Their media have to be uploaded before. Returns what became of each, in order.

        Raises:
            PreconditionError: the collection's vectors have another fingerprint.
        """
        return self._run(operations.restore(self._versions, collection, items, fingerprints), timeout)

    def erase(
        self, collection: str, ids: Iterable[str], *, media: Iterable[str] = (), timeout: float = ERASE_SECONDS
    ) -> tuple[Receipt, ...]:
        """Delete up to 1000 items for good, and return a receipt for each, in order.

        All versions without a tag are forgotten. `media` are hashes of what the items had, where they are deleted
        already. Takes up to a minute more where the media were used just now.
        """
        return self._run(operations.erase(self._versions, collection, ids, media), timeout)

    def tag(self, collection: str, name: str, *, version: str = "", timeout: float | None = None) -> Tag:
        """Name a version, the newest for "", which is then kept until the tag is deleted.

        Raises:
            AlreadyExistsError: the tag names another version.
            PreconditionError: the version is no longer kept.
        """
        return self._run(operations.tag(collection, name, version), timeout)

    def tags(self, collection: str, *, timeout: float | None = None) -> tuple[Tag, ...]:
        """Return the tags of a collection, by name."""
        return self._run(operations.tags(collection), timeout)

    def delete_tag(self, collection: str, name: str, *, timeout: float | None = None) -> None:
        """Delete a tag; its version is then kept no longer than others.

        Raises:
            NotFoundError: no such tag.
        """
        self._run(operations.delete_tag(collection, name), timeout)

    def update_space(
        self, collection: str, space: str, *, index: IndexConfig, timeout: float | None = None
    ) -> Collection:
        """Change how a space is indexed; return the collection as it is now.

        Searches go on meanwhile: the index there is answers until the new one is built. `status` tells how far it is.

        Raises:
            NotFoundError: no such collection or space.
            InvalidError: a number is out of its range.
        """
        return self._run(operations.update_space(self._versions, collection, space, index), timeout)

    def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a collection with all its items."""
        self._run(operations.drop_collection(self._versions, name), timeout)

    def ingest(
        self, collection: str, items: Iterable[NewItem], *, timeout: float | None = None
    ) -> Generator[IngestResult, None, None]:
        """Send `items` as the returned iterator is advanced, and yield what became of each, in order.

        Nothing is sent before the first result is asked for, and no more than 1024 items or 64 MiB are under way
        unanswered. `items` are drawn on another thread; what they raise is raised here once all that was sent is
        answered. Closing the iterator, or leaving it, ends the ingest: what was answered is durable, what was not may
        or may not be. Has no time limit unless given one.

        Raises:
            NotFoundError: no such collection.
            UnavailableError: the connection broke; the items answered so far are durable.
        """
        window = Window()
        requests = ingest_messages(collection, items, window)
        call = self._stub.IngestItems(requests, timeout=timeout, metadata=self._metadata)
        try:
            with _translated():
                for response in call:
                    for result in decode.ingest_results(response):
                        window.leave()
                        self._versions.seen(collection, result.version)
                        yield result
            window.room.check()
        finally:
            window.close()
            call.cancel()

    def get(
        self,
        collection: str,
        item_id: str,
        *,
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> Item:
        """Return one item, as it was as of a version or tag if one is given.

        Raises:
            PreconditionError: the version is no longer kept.
            NotFoundError: no such item or collection.
        """
        return self._run(operations.get(collection, item_id, fields, as_of), timeout)

    def get_many(
        self,
        collection: str,
        ids: Iterable[str],
        *,
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> tuple[Lookup, ...]:
        """Return one answer for each of `ids`, in their order: the item, or the error that says why not."""
        return self._run(operations.get_many(collection, ids, fields, as_of), timeout)

    def list(
        self,
        collection: str,
        *,
        where: Where | None = None,
        page_size: int = PAGE_SIZE,
        fields: Sequence[Field] = (),
        as_of: str = "",
        timeout: float | None = None,
    ) -> Iterator[Item]:
        """Yield the items that satisfy `where`, by id, page by page; `timeout` is for each page.

        With `as_of`, a version's token or a tag, items come as they were then.
        """
        return self._pages(operations.list_items(collection, where, page_size, fields, as_of), timeout)

    def list_page(
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
        return self._run(operations.list_items(collection, where, page_size, fields, as_of)(page_token), timeout)

    def count(
        self, collection: str, *, where: Where | None = None, as_of: str = "", timeout: float | None = None
    ) -> int:
        """Return how many items satisfy `where`."""
        return self._run(operations.count(collection, where, as_of), timeout)

    def update(  # one option for each thing that can change
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
        """Change some of an item, keep the rest, and return it as it is now.

        `text=""` removes the text. `metadata` replaces it all; `merge` sets the keys given and removes those that are
        None. With `expected_revision` it fails if the item was written meanwhile.

        Raises:
            NotFoundError: no such item or collection.
            ConflictError: the item has another revision.
        """
        operation = operations.update(
            self._versions,
            collection,
            item_id,
            text=text,
            media=encode.media(media),
            remove_media=remove_media,
            metadata=metadata,
            merge=merge,
            vectors=vectors or {},
            expected_revision=expected_revision,
        )
        return self._run(operation, timeout)

    def delete(
        self,
        collection: str,
        ids: Iterable[str] | None = None,
        *,
        where: Where | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete the items of `ids`, or all that satisfy `where`; return how many were there to delete.

        Where a try went unanswered and another followed, the number counts the last alone.
        """
        return self._run(operations.delete(self._versions, collection, ids, where), timeout)

    def search(  # one option for each part of a query
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
        """Return the `top_k` items that suit the queries best, best first.

        `text`, `image` (bytes or a path), `item` (the id of one stored) and `vector` each become an arm, in `space` or
        in every space that takes it, with its weight of `weights`, e.g. `{"text": 2}`; `arms` come on top. Reciprocal
        rank fusion with the constant `k` (60) makes one ranking of the best `depth` items of each arm. `version` is the
        token the answer must be as new as: the last this client has seen if left out, none if "". `exact` compares
        every candidate, however the spaces are indexed.

        Raises:
            NotFoundError: no such collection, space or item.
            InvalidError: a query, the filter or a number cannot be.
        """
        operation = operations.search(
            self._versions,
            collection,
            encode.arms(text, image, item, vector, arms, space=space, weights=weights or {}),
            where=where,
            top_k=top_k,
            k=k,
            depth=depth,
            fields=fields,
            version=version,
            exact=exact,
        )
        return self._run(operation, timeout)

    def upload_media(
        self, source: Picture | Iterable[bytes], *, mime_type: str = "", timeout: float | None = None
    ) -> Media:
        """Store an object, given as bytes, a path or blocks of bytes, and return its reference for `NewItem.media`.

        One that no item refers to is removed after a grace period. Has no time limit unless given one.
        """
        upload = Upload(source, mime_type)
        begun: Future[grpc.Future[Any]] = Future()
        requests = upload.messages(abort=lambda: begun.result().cancel())
        call = self._stub.UploadMedia.future(requests, timeout=timeout, metadata=self._metadata)
        begun.set_result(call)
        try:
            with _translated():
                return decode.media(call.result().media)
        except grpc.FutureCancelledError:
            raise upload.failure or Error("the upload was cancelled") from None
        finally:
            call.cancel()

    def media_url(self, sha256: str, *, seconds: int = 3600, mime_type: str = "", timeout: float | None = None) -> str:
        """Return a URL that anybody may read an object by for `seconds`, 1 to 604,800, served as `mime_type`.

        Only a server that keeps media in an S3 bucket has such URLs; another raises `PreconditionError`.
        """
        return self._run(operations.media_url(sha256, seconds, mime_type), timeout)

    def download_media(
        self, sha256: str, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> Generator[bytes, None, None]:
        """Yield the bytes of a stored object, or `length` of them from `offset` on, block by block.

        A whole object is checked against its hash. Has no time limit unless given one.

        Raises:
            NotFoundError: no such object.
        """
        request = operations.download_request(sha256, offset, length)
        download = Download(request)
        call = self._stub.DownloadMedia(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translated():
                for message in call:
                    yield download.block(message)
            download.check()
        finally:
            call.cancel()

    def check(  # one option for each thing a check can be told
        self,
        collection: str | None = None,
        *,
        media_sample: int | None = 0,
        vector_sample: int = 100,
        repair: bool = False,
        drop_lost_media: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Finding | CheckProgress]:
        """Yield what is wrong with a collection, or with all and the objects that belong to none, and how far it is.

        `media_sample` objects of each collection are read and compared with their hash, None for all; `vector_sample`
        items' vectors are compared with the index. `repair` repairs what can be without loss; `drop_lost_media` also
        drops references to media that are missing or damaged. Has no time limit unless given one.

        Raises:
            NotFoundError: no such collection.
        """
        request = operations.check_request(
            collection,
            media_sample=media_sample,
            vector_sample=vector_sample,
            repair=repair,
            drop_lost_media=drop_lost_media,
        )
        call = self._stub.CheckCollections(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translated():
                for message in call:
                    yield decode.checked(message)
        finally:
            call.cancel()

    def status(self, *, timeout: float | None = None) -> Status:
        """Return what the services are doing."""
        return self._run(operations.status(), timeout)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, operation: Operation[Value], timeout: float | None) -> Value:
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
            answer, failure = self._outcome(call, until - time.monotonic())

    def _outcome(self, call: Call, seconds: float) -> tuple[Any, Error | None]:
        try:
            with _translated():
                return getattr(self._stub, call.method)(call.request, timeout=seconds, metadata=self._metadata), None
        except Error as failure:
            return None, failure

    def _pages(self, operation: PageOperation[Value], timeout: float | None) -> Iterator[Value]:
        token = ""
        while True:
            page = self._run(operation(token), timeout)
            yield from page.values
            if not (token := page.next_page_token):
                return


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from error
