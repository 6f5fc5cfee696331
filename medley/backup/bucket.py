"""Backups in an S3 bucket, with the `minio` client."""

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, Self

from minio import Minio
from minio.credentials.providers import ChainedProvider, EnvAWSProvider, IamAwsProvider
from minio.error import S3Error

from medley.backup.destination import BLOCK_BYTES

PART_BYTES = 16 * 2**20
ENDPOINT = "https://s3.amazonaws.com"


class BucketDestination:
    """`Destination` under a prefix of a bucket. Objects are written atomically."""

    def __init__(self, client: Minio, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the destination `s3://bucket/prefix` at the endpoint MEDLEY_S3_ENDPOINT, Amazon's if unset.

        Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the machine's role; the region from
        AWS_REGION.

        Raises:
            ValueError: `url` names no bucket.
        """
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise ValueError(f"{url}: must be s3://BUCKET/PREFIX")
        scheme, separator, host = os.environ.get("MEDLEY_S3_ENDPOINT", ENDPOINT).rpartition("://")
        client = Minio(
            endpoint=host,
            secure=scheme == "https" or not separator,
            credentials=ChainedProvider([EnvAWSProvider(), IamAwsProvider()]),
            region=os.environ.get("AWS_REGION"),
        )
        return cls(client, bucket, prefix.strip("/"))

    def size(self, path: str) -> int | None:
        try:
            return self._client.stat_object(bucket_name=self._bucket, object_name=self._prefix + path).size
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                return None
            raise _to_os_error(error) from error

    def read(self, path: str) -> Iterator[bytes]:
        try:
            response = self._client.get_object(bucket_name=self._bucket, object_name=self._prefix + path)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                raise FileNotFoundError(2, "no such object", f"s3://{self._bucket}/{self._prefix}{path}") from error
            raise _to_os_error(error) from error
        try:
            yield from response.stream(BLOCK_BYTES)
        finally:
            response.close()
            response.release_conn()

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        data: Any = io.BufferedReader(_Blocks(blocks), BLOCK_BYTES)
        try:
            self._client.put_object(
                bucket_name=self._bucket,
                object_name=self._prefix + path,
                data=data,
                length=-1,
                part_size=PART_BYTES,
            )
        except S3Error as error:
            raise _to_os_error(error) from error

    def delete(self, path: str) -> None:
        try:
            self._client.remove_object(bucket_name=self._bucket, object_name=self._prefix + path)
        except S3Error as error:
            raise _to_os_error(error) from error


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a readable file."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _to_os_error(error: S3Error) -> OSError:
    """Return `error` as an OSError, which the command line prints in one line."""
    return OSError(5, f"{error.code}: {error.message}", f"s3://{error.bucket_name}/{error.object_name or ''}")
