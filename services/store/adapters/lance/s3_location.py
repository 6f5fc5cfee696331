"""Lance tables in an S3 bucket. A name is taken by writing its definition on the condition that there is none."""

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
from services.store.adapters.lance.definition_json import from_json, to_json
from services.store.adapters.lance.location import PREFIX, TableLocation
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import CollectionSchema

log = logging.getLogger(__name__)

LEFT_ROWS = timedelta(days=1)
DEFINITION_BYTES = 2**24


class S3Shelf:
    """`Shelf` in a bucket."""

    def __init__(self, bucket: S3Bucket, *, left_rows: timedelta = LEFT_ROWS) -> None:
        self._bucket = bucket
        if bucket.options.ca_file:  # Lance takes what it trusts from the environment alone
            os.environ["SSL_CERT_FILE"] = str(bucket.options.ca_file)
        self._left_rows = left_rows

    def heal(self) -> None:
        """Remove tables without a definition; young ones may be another process's that is just creating them."""
        kept = {definition.uid for name in self.names() if (definition := self.definition(name))}
        young = datetime.now(UTC) - self._left_rows
        for uid, entries in groupby(self._bucket.entries("rows/"), _uid):
            paths, written = zip(*((entry.path, entry.written) for entry in entries), strict=True)
            if uid not in kept and max(written) < young:
                log.warning("removing table %s, which belongs to no collection", uid)
                self._bucket.remove_all(paths)

    def names(self) -> list[str]:
        """List the definitions."""
        return sorted(entry.path.removesuffix(".json") for entry in self._bucket.entries(PREFIX))

    def definition(self, name: str) -> CollectionSchema | None:
        """Read the object."""
        try:
            return from_json(self._bucket.get(_path(name), 0, DEFINITION_BYTES).content.decode())
        except NoSuchKeyError:
            return None

    def place(self, definition: CollectionSchema) -> TableLocation:
        """Name the place in the bucket."""
        options = self._bucket.options
        return TableLocation(
            f"s3://{options.bucket}/{options.key(_rows(definition))}", Durable(), options.lance_options()
        )

    @contextmanager
    def creating(self, definition: CollectionSchema) -> Iterator[None]:
        """Look first; only `publish` decides."""
        if self._bucket.look_up(_path(definition.name)):
            raise CollectionExistsError(definition.name)
        try:
            yield
        except Exception:
            self.discard(definition)
            raise

    def publish(self, definition: CollectionSchema) -> None:
        """Write the definition if there is none; one that is there may be ours, where an answer was lost."""
        try:
            self._bucket.create(_path(definition.name), to_json(definition).encode())
        except PreconditionFailedError as error:
            if self.definition(definition.name) != definition:
                raise CollectionExistsError(definition.name) from error

    def retract(self, definition: CollectionSchema) -> None:
        """Remove the definition, unless it is another's meanwhile."""
        there = self.definition(definition.name)
        if there and there.uid == definition.uid:
            self._bucket.remove(_path(definition.name))

    def discard(self, definition: CollectionSchema) -> None:
        """Remove the table's objects."""
        try:
            self._bucket.remove_all(entry.path for entry in self._bucket.entries(f"{_rows(definition)}/"))
        except ServiceUnavailableError:
            log.warning("table %s is left without a collection until a later start", definition.uid)


class Durable:
    """`Files` of a bucket: what is written outlives a power failure."""

    def sync(self, dataset: Any) -> None:
        """Return at once."""


def _path(name: str) -> str:
    return f"{name}.json"


def _rows(definition: CollectionSchema) -> str:
    return f"rows/{definition.uid}.lance"


def _uid(entry: ObjectInfo) -> str:
    return entry.path.split("/")[1].removesuffix(".lance")
