"""Snapshots in an S3 bucket, for machines without a disk of their own and for replicas that share them."""

from collections.abc import Iterable, Sequence

from services.common.s3.bucket import S3Bucket
from services.common.s3.errors import NoSuchKeyError
from services.search.snapshots.object_store import MissingFileError, StoredFile

FOLDER = "snapshots/"
_ANY_LENGTH = 2**32


class S3Snapshots:
    """`SnapshotStore` in a bucket, under `snapshots/`, so that a store may have the same bucket and prefix."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket

    def put(self, path: str, content: bytes) -> None:
        self._bucket.put(FOLDER + path, content)

    def get(self, path: str) -> bytes:
        try:
            return self._bucket.get(FOLDER + path, 0, _ANY_LENGTH).content
        except NoSuchKeyError as error:
            raise MissingFileError(path) from error

    def files(self, folder: str) -> Sequence[StoredFile]:
        entries = self._bucket.entries(f"{FOLDER}{folder}/" if folder else FOLDER)
        return [StoredFile(each.path.removeprefix(FOLDER), each.size_bytes, each.written) for each in entries]

    def remove(self, paths: Iterable[str]) -> None:
        self._bucket.remove_all(FOLDER + path for path in paths)
