"""Lance tables in an S3 bucket. A collection is created by a conditional write of its schema."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from services.common.errors import ServiceUnavailableError
from services.common.s3.bucket import ObjectInfo, S3Bucket
from services.common.s3.errors import NoSuchKeyError, PreconditionFailedError
from services.store.adapters.lance.schema_json import from_json, to_json
from services.store.adapters.lance.table_directory import PREFIX, TableLocation
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema

log = logging.getLogger(__name__)

ORPHAN_AGE = timedelta(days=1)
MAX_SCHEMA_BYTES = 2**24


class S3TableDirectory:
    """`TableDirectory` in a bucket."""

    def __init__(self, bucket: S3Bucket, *, orphan_age: timedelta = ORPHAN_AGE) -> None:
        self._bucket = bucket
        if bucket.options.ca_file:  # Lance reads the CA file from the environment only
            os.environ["SSL_CERT_FILE"] = str(bucket.options.ca_file)
        self._orphan_age = orphan_age

    def recover(self) -> None:
        known = {schema.uid for name in self.names() if (schema := self.schema(name))}
        cutoff = datetime.now(UTC) - self._orphan_age  # a newer one may be of a collection being created
        for uid, entries in groupby(self._bucket.entries("rows/"), _uid):
            paths, written = zip(*((entry.path, entry.written) for entry in entries), strict=True)
            if uid not in known and max(written) < cutoff:
                log.warning("removing table %s, which belongs to no collection", uid)
                self._bucket.remove_all(paths)

    def names(self) -> list[str]:
        return sorted(entry.path.removesuffix(".json") for entry in self._bucket.entries(PREFIX))

    def schema(self, name: str) -> CollectionSchema | None:
        try:
            return from_json(self._bucket.get(_path(name), 0, MAX_SCHEMA_BYTES).content.decode())
        except NoSuchKeyError:
            return None

    def location(self, schema: CollectionSchema) -> TableLocation:
        options = self._bucket.options
        return TableLocation(
            f"s3://{options.bucket}/{options.key(_rows(schema))}", BucketFiles(), options.lance_options()
        )

    @contextmanager
    def reserve(self, schema: CollectionSchema) -> Iterator[None]:
        if self._bucket.look_up(_path(schema.name)):
            raise CollectionExistsError(schema.name)
        try:
            yield
        except Exception:
            self.delete_table(schema)
            raise

    def publish(self, schema: CollectionSchema) -> None:
        try:
            self._bucket.create(_path(schema.name), to_json(schema).encode())
        except PreconditionFailedError as error:
            if self.schema(schema.name) != schema:  # else it was written here, and the response was lost
                raise CollectionExistsError(schema.name) from error

    def unpublish(self, schema: CollectionSchema) -> None:
        published = self.schema(schema.name)
        if published and published.uid == schema.uid:
            self._bucket.remove(_path(schema.name))

    def delete_table(self, schema: CollectionSchema) -> None:
        try:
            self._bucket.remove_all(entry.path for entry in self._bucket.entries(f"{_rows(schema)}/"))
        except ServiceUnavailableError:
            log.warning("table %s is left without a collection until a later start", schema.uid)


class BucketFiles:
    """`DatasetFiles` of a bucket, where every object written is durable."""

    def sync(self, dataset: Any) -> None:
        pass


def _path(name: str) -> str:
    return f"{name}.json"


def _rows(schema: CollectionSchema) -> str:
    return f"rows/{schema.uid}.lance"


def _uid(entry: ObjectInfo) -> str:
    return entry.path.split("/")[1].removesuffix(".lance")
