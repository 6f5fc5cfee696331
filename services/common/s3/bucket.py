"""A bucket of an S3 endpoint, by the `minio` client, with deadlines, retries and translated errors.

Calls block; make them in threads.
"""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import ComposeSource
from minio.credentials.providers import ChainedProvider, EnvAWSProvider, IamAwsProvider
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.sse import Sse, SseKMS, SseS3
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import TimeoutError as HttpTimeoutError

from services.common.concurrency.retry import Backoff, retry_blocking
from services.common.deadlines import deadline_in, remaining_seconds
from services.common.s3.errors import S3_ERRORS, NoSuchKeyError, error_code, is_transient, translate_error
from services.common.s3.options import S3Options

T = TypeVar("T")
Headers = dict[str, str | list[str] | tuple[str]]  # as the client types it

BACKOFF = Backoff(first=0.1, longest=2.0)
CONNECT_SECONDS = 5.0
READ_BYTES = 2**18
MIN_PART_BYTES = 5 * 2**20
PARTS_PER_TIMEOUT = 16
PAGE = 1000


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of the bucket: its key without the prefix, its size, and when it was written, by the endpoint's clock.

    The time has millisecond precision in listings; look-ups round it down to seconds.
    """

    path: str
    size_bytes: int
    written: datetime


@dataclass(frozen=True, slots=True)
class GetResult:
    """Some bytes of an object, and the size of the whole object."""

    content: bytes
    object_bytes: int


class S3Bucket:
    """A bucket, or the part of one under a prefix. Paths are keys without the prefix."""

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self._http = _BoundedHttp(options)
        self.client = _client(options, options.endpoint, self._http)
        self._sse = _encryption(options)

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def put(self, path: str, content: bytes) -> None:
        """Write an object, or replace it.

        Raises:
            StorageFullError: the bucket is full.
        """
        length, one_part = len(content), max(len(content), MIN_PART_BYTES)
        self._call(
            lambda: self.client.put_object(
                *self._at(path), io.BytesIO(content), length, sse=self._sse, part_size=one_part
            )
        )

    def create(self, path: str, content: bytes) -> None:
        """Write an object if none exists.

        Raises:
            PreconditionFailedError: an object exists; after a retry it may be the one just written.
        """
        headers: Headers = {"If-None-Match": "*", "Content-Type": "application/json"}
        headers |= self._sse.headers() if self._sse else {}
        # The client has no public way to send this header.
        self._call(lambda: self.client._put_object(*self._at(path), content, headers))

    def compose(self, path: str, parts: Iterable[str]) -> None:
        """Concatenate objects, each but the last of at least 5 MiB, into one; takes up to `compose_seconds`."""
        sources = [ComposeSource(*self._at(part)) for part in parts]
        compose = partial(self.client.compose_object, *self._at(path), sources, sse=self._sse)
        self._call(compose, self.compose_seconds(len(sources)))

    def compose_seconds(self, parts: int) -> float:
        """Return the timeout of composing an object of `parts` parts, which the endpoint copies sequentially."""
        return self.options.timeout_seconds * (1 + parts / PARTS_PER_TIMEOUT)

    def get(self, path: str, offset: int, length: int) -> GetResult:
        """Return `length` bytes, at least 1, from `offset`, fewer if the object ends earlier.

        Raises:
            NoSuchKeyError: there is no such object.
        """
        try:
            return self._call(lambda: self._get(path, offset, length))
        except S3_ERRORS as error:
            if error_code(error) != "InvalidRange":
                raise
            return GetResult(b"", offset)

    def look_up(self, path: str) -> ObjectInfo | None:
        """Return the object at `path`; None if there is none."""
        try:
            return self._object_info(self._call(lambda: self.client.stat_object(*self._at(path))))
        except NoSuchKeyError:
            return None

    def page(self, folder: str, after: str = "") -> list[ObjectInfo]:
        """Return the first objects under `folder` with paths over `after`, by path; empty only if there are no more."""
        prefix, start = self.options.key(folder), self.options.key(after) if after else None

        def list_page() -> list[ObjectInfo]:
            found = self.client.list_objects(self.options.bucket, prefix, recursive=True, start_after=start)
            return [self._object_info(each) for each in itertools.islice(found, PAGE)]

        return self._call(list_page)

    def entries(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield all objects under `folder`, by path."""
        after = ""
        while page := self.page(folder, after):
            yield from page
            after = page[-1].path

    def remove(self, path: str) -> None:
        """Remove an object if it exists."""
        self._call(lambda: self.client.remove_object(*self._at(path)))

    def remove_all(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        rest = iter(paths)
        while batch := [DeleteObject(self.options.key(path)) for path in itertools.islice(rest, PAGE)]:
            self._call(lambda batch=batch: list(self.client.remove_objects(self.options.bucket, batch)))  # type: ignore[misc]  # bound at once

    def abort_uploads(self, folder: str, before: datetime) -> int:
        """Abort multipart uploads to `folder` that started before `before` and never completed; return how many."""
        uploads = [each for each in self._call(self._list_uploads) if each[0].startswith(self.options.key(folder))]
        old = [(key, upload) for key, upload, started in uploads if started < before]
        for key, upload in old:
            self._call(partial(self.client._abort_multipart_upload, self.options.bucket, key, upload))
        return len(old)

    def url(self, path: str, seconds: int, mime_type: str) -> str:
        """Return a presigned URL that reads the object, valid for `seconds`."""
        given: Headers | None = {"response-content-type": mime_type} if mime_type else None
        client = _client(self.options, self.options.url_endpoint or self.options.endpoint, self._http)
        return client.presigned_get_object(*self._at(path), timedelta(seconds=seconds), response_headers=given)

    def _at(self, path: str) -> tuple[str, str]:
        return self.options.bucket, self.options.key(path)

    def _list_uploads(self) -> list[tuple[str, str, datetime]]:
        """Return key, upload id and start of all multipart uploads; some endpoints cannot filter them by prefix."""
        found: list[tuple[str, str, datetime]] = []
        key: str | None = None
        upload: str | None = None
        while True:  # the client has no public method for this
            page = self.client._list_multipart_uploads(self.options.bucket, key_marker=key, upload_id_marker=upload)
            found += [
                (each.object_name, each.upload_id or "", cast(datetime, each.initiated_time)) for each in page.uploads
            ]
            if not page.is_truncated:
                return found
            key, upload = page.next_key_marker, page.next_upload_id_marker

    def _object_info(self, found: Object) -> ObjectInfo:
        key = found.object_name or ""
        written = cast(datetime, found.last_modified)  # S3 always returns it
        return ObjectInfo(key[len(self.options.key("")) :], found.size or 0, written.astimezone(UTC))

    def _get(self, path: str, offset: int, length: int) -> GetResult:
        response = self.client.get_object(*self._at(path), offset, length)
        try:
            content = _read_body(response)
        except BaseException:
            response.close()
            raise
        finally:
            response.release_conn()
        return GetResult(content, _object_bytes(response, len(content)))

    def _call(self, work: Callable[[], T], timeout_seconds: float = 0.0) -> T:
        """Return the result of `work`, retried while there is time; translate its errors."""
        with deadline_in(timeout_seconds or self.options.timeout_seconds):
            try:
                return retry_blocking(work, is_transient, backoff=BACKOFF)
            except S3_ERRORS as error:
                translated = translate_error(error, self.options.bucket)
                if translated is error:
                    raise
                raise translated from error


class _BoundedHttp(urllib3.PoolManager):
    """Connections whose timeouts are limited by the remaining time of the call's deadline.

    It does not retry; `S3Bucket` does, because reading a body can fail too.
    """

    def __init__(self, options: S3Options) -> None:
        trusted = str(options.ca_file) if options.ca_file else certifi.where()
        super().__init__(maxsize=options.connections, retries=False, ca_certs=trusted)
        self._read_timeout_seconds = options.read_timeout_seconds

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]  # untyped there
        left = remaining_seconds(self._read_timeout_seconds)
        if left <= 0:
            raise HttpTimeoutError("no time left")
        timeout = urllib3.Timeout(connect=min(left, CONNECT_SECONDS), read=left)
        return super().urlopen(method, url, redirect, timeout=timeout, **kw)


def _client(options: S3Options, endpoint: str, http: urllib3.PoolManager) -> Minio:
    client = Minio(
        endpoint,
        options.access_key or None,
        options.secret_key or None,
        secure=options.secure,
        region=options.region,
        http_client=http,
        credentials=None if options.access_key else ChainedProvider([EnvAWSProvider(), IamAwsProvider()]),
    )
    if options.path_style:
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    else:
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def _encryption(options: S3Options) -> Sse | None:
    match options.encryption:
        case "s3":
            return SseS3()
        case "kms":
            return SseKMS(options.kms_key, {})
        case _:
            return None


def _read_body(response: urllib3.BaseHTTPResponse) -> bytes:
    parts = []
    while part := response.read(READ_BYTES):
        parts.append(part)
        if remaining_seconds(1.0) <= 0:
            raise HttpTimeoutError("no time left")
    content = b"".join(parts)
    announced = response.headers.get("content-length")
    if announced is None or len(content) != int(announced):
        raise ProtocolError(f"{len(content)} bytes of {announced}")
    return content


def _object_bytes(response: urllib3.BaseHTTPResponse, received: int) -> int:
    """Return the size of the object; `Content-Range` is `bytes {first}-{last}/{size}`."""
    size = response.headers.get("content-range", "").rpartition("/")[2]
    return int(size) if size.isdigit() else received
