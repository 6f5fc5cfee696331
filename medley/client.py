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

    Methods that read, `create_collection`, `update_space` and `delete` are retried with exponential backoff while the
    server is unavailable, at most four attempts in all and within the timeout. `ingest`, `update`, `drop_collection`
    and `upload_media` are not retried. An item ingested again under its id replaces itself, so unanswered items can
    safely be sent again.
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
        """Connect to `server`, "host:port", at the first call; `timeout` is the default of each method, in seconds.

        `tls` encrypts the connection and trusts the system's certificate authorities; `ca`, a PEM file or its bytes,
        encrypts it and is trusted alone. `token` is sent as a bearer token.
        """
        config = ChannelConfig(server, max_message_bytes, tls, ca, token)
        options = config.options()
        self._channel = (
            grpc.secure_channel(server, config.credentials(), options)
            if config.encrypted
            else grpc.insecure_channel(server, options)
        )
        self._stub = pb_grpc.GatewayServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = config.metadata()
        self._versions = SessionVersions()

    def create_collection(
        self, name: str, spaces: Iterable[Space] | None = None, *, timeout: float | None = None
    ) -> Collection:
        """Create a collection and return it; one that exists with these spaces is returned unchanged.

        Without `spaces` it gets two: "clip" for pictures and "text" for texts. How spaces are indexed is not compared.

        Raises:
            AlreadyExistsError: it exists with other spaces.
        """
        return self._run(operations.create_collection(name, spaces), timeout)

    def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """Return one collection.

        Raises:
            NotFoundError: no such collection.
        """
        return self._run(operations.collection(name), timeout)

    def collections(self, *, page_size: int = PAGE_SIZE, timeout: float | None = None) -> Iterator[Collection]:
        """Yield the collections by name, page by page; `timeout` is for each page."""
        return self._pages(operations.collections(page_size), timeout)

    def restore(
        self, collection: str, items: Iterable[Item], fingerprints: Mapping[str, str], *, timeout: float | None = None
    ) -> tuple[IngestResult, ...]:
        """Write up to 10,000 items as they were, with vectors of the models in `fingerprints`, by space.

        Upload their media first. Returns a result for each item, in order.

        Raises:
            PreconditionError: the collection's vectors have another fingerprint.
        """
        return self._run(operations.restore(self._versions, collection, items, fingerprints), timeout)

    def erase(
        self, collection: str, ids: Iterable[str], *, media: Iterable[str] = (), timeout: float = ERASE_SECONDS
    ) -> tuple[Receipt, ...]:
        """Delete up to 1000 items permanently, and return a receipt for each, in order.

        All versions without a tag are removed. `media` are hashes of media that the items had, for items that are
        already deleted. Takes up to a minute more if the media were used recently.
        """
        return self._run(operations.erase(self._versions, collection, ids, media), timeout)

    def tag(self, collection: str, name: str, *, version: str = "", timeout: float | None = None) -> Tag:
        """Tag a version, the newest for "", which is then kept until the tag is deleted.

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
        """Change how a space is indexed; return the updated collection.

        The current index answers searches until the new one is built; `status` reports its progress.

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
        """Send `items` as the returned iterator is advanced, and yield a result for each, in order.

        Nothing is sent before the first result is requested, and at most 1024 items or 64 MiB are in flight. Another
        thread iterates `items`; an exception of theirs is raised here once all sent items are answered. Closing the
        iterator ends the ingest: answered items are durable, unanswered ones may or may not be. Has no timeout by
        default.

        Raises:
            NotFoundError: no such collection.
            UnavailableError: the connection broke; the items answered so far are durable.
        """
        window = Window()
        requests = ingest_messages(collection, items, window)
        call = self._stub.IngestItems(requests, timeout=timeout, metadata=self._metadata)
        try:
            with _translate_errors():
                for response in call:
                    for result in decode.ingest_results(response):
                        window.release()
                        self._versions.record(collection, result.version)
                        yield result
            window.flow.check()
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
        """Return one item, as of a version or tag if one is given.

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
        """Return a lookup for each of `ids`, in their order: the item, or the error."""
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

        With `as_of`, a version token or a tag, items are read as they were then.
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

    def update(  # one option for each change
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
        """Change some fields of an item, keep the others, and return the item.

        `text=""` removes the text. `metadata` replaces all metadata; `merge` sets the keys given and removes those that
        are None. With `expected_revision` the update fails if the item has been written since.

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
        """Delete the items of `ids`, or all that satisfy `where`; return how many were deleted.

        After a retry the number is that of the last attempt.
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
        """Return the `top_k` best items for the queries, best first.

        `text`, `image` (bytes or a path), `item` (the id of a stored one) and `vector` each become an arm, in `space`
        or in every space that accepts it, with its weight in `weights`, e.g. `{"text": 2}`; `arms` are added to them.
        Reciprocal rank fusion with the constant `k` (60) merges the best `depth` items of each arm into one ranking.
        `version` is the token of the oldest version that may answer: by default the last this client has seen, any for
        "". `exact` compares every candidate, however the spaces are indexed.

        Raises:
            NotFoundError: no such collection, space or item.
            InvalidError: a query, the filter or a number is invalid.
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

        An object that no item refers to is removed after a grace period. Has no timeout by default.
        """
        upload = Upload(source, mime_type)
        started: Future[grpc.Future[Any]] = Future()
        requests = upload.messages(abort=lambda: started.result().cancel())
        call = self._stub.UploadMedia.future(requests, timeout=timeout, metadata=self._metadata)
        started.set_result(call)
        try:
            with _translate_errors():
                return decode.media(call.result().media)
        except grpc.FutureCancelledError:
            raise upload.failure or Error("the upload was cancelled") from None
        finally:
            call.cancel()

    def media_url(self, sha256: str, *, seconds: int = 3600, mime_type: str = "", timeout: float | None = None) -> str:
        """Return a presigned URL of an object, valid for `seconds` (1 to 604,800) and served as `mime_type`.

        Raises:
            PreconditionError: the server does not keep media in an S3 bucket.
        """
        return self._run(operations.media_url(sha256, seconds, mime_type), timeout)

    def download_media(
        self, sha256: str, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> Generator[bytes, None, None]:
        """Yield the bytes of a stored object, or `length` of them from `offset` on, block by block.

        A whole object is checked against its hash. Has no timeout by default.

        Raises:
            NotFoundError: no such object.
        """
        request = operations.download_request(sha256, offset, length)
        download = Download(request)
        call = self._stub.DownloadMedia(request, timeout=timeout, metadata=self._metadata)
        try:
            with _translate_errors():
                for message in call:
                    yield download.block(message)
            download.check()
        finally:
            call.cancel()

    def check(  # one parameter for each option of a check
        self,
        collection: str | None = None,
        *,
        media_sample: int | None = 0,
        vector_sample: int = 100,
        repair: bool = False,
        drop_lost_media: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Finding | CheckProgress]:
        """Yield the findings in a collection, or in all and in unreferenced objects, and the progress.

        `media_sample` objects of each collection are read and compared with their hash, None for all; the vectors of
        `vector_sample` items are compared with the index. `repair` repairs everything that can be repaired without
        loss; `drop_lost_media` also drops references to media that are missing or damaged. Has no timeout by default.

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
            with _translate_errors():
                for message in call:
                    yield decode.check_event(message)
        finally:
            call.cancel()

    def status(self, *, timeout: float | None = None) -> Status:
        """Return the status of services, models, collections and indexes."""
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
        """Make the calls of `operation` until it returns, all within one timeout."""
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
            with _translate_errors():
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
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from error
