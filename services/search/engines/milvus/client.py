"""Calls of Milvus: bounded in size and time, their errors ours."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pymilvus import CollectionSchema, MilvusClient

from services.common.deadlines import remaining_seconds
from services.common.vectors import Matrix
from services.search.engines.milvus.errors import MilvusUnavailableError, NotLoadedError, milvus_errors
from services.search.engines.milvus.options import MilvusOptions

MAX_RESULTS = 16_384
"""Rows that Milvus returns of one query or search, for one vector, at most."""

REQUEST_BYTES = 8 * 2**20
"""Size up to which rows are put into one request or asked for at a time; Milvus refuses messages beyond 64 MiB."""

_CONNECT_SECONDS = 3.0
_UNREACHABLE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 2.0

Row = dict[str, Any]
T = TypeVar("T")

log = logging.getLogger(__name__)


class Milvus:
    """One Milvus, connected to at the first call and again whenever it is back. Calls block, in any threads.

    Every call raises `MilvusUnavailableError`, `OverloadedError`, or `MilvusLostError` where a collection is not there.
    """

    def __init__(self, options: MilvusOptions) -> None:
        self.options = options
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()
        self._unreachable_until = 0.0
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with tracebacks

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    @property
    def lite(self) -> bool:
        """Whether this is Milvus Lite."""
        return "lite" in str(self._call("asking for its version", "get_server_version")).lower()

    def names(self) -> list[str]:
        """Return the names of all collections."""
        return list(self._call("listing collections", "list_collections"))

    def create(self, name: str, schema: CollectionSchema) -> None:
        """Create a collection, without an index and not loaded."""
        self._call(
            f"creating {name}", "create_collection", name, schema=schema, consistency_level=self.options.consistency
        )

    def index(self, name: str, fields: Mapping[str, Mapping[str, Any]]) -> None:
        """Build indexes by field, each with `index_type` and what belongs to it, and load the collection.

        Returns once it can be searched.
        """
        params = MilvusClient.prepare_index_params()
        for field, values in fields.items():
            params.add_index(field, index_name=field, **values)
        self._call(f"indexing {name}", "create_index", name, params, sync=False)
        give_up = time.monotonic() + self.options.build_seconds
        for field in fields:
            self._wait(f"indexing {name}", give_up, lambda field=field: self._is_indexed(name, field))  # type: ignore[misc]
        self.load(name, give_up)

    def load(self, name: str, give_up: float | None = None) -> None:
        """Have Milvus take a collection into its memory; returns once it has."""
        self._call(f"loading {name}", "load_collection", name, _async=True)
        until = give_up or time.monotonic() + remaining_seconds(self.options.seconds)
        self._wait(f"loading {name}", until, lambda: self._loaded(name))

    def drop(self, name: str) -> None:
        """Remove a collection; one that is not there is none."""
        self._call(f"dropping {name}", "drop_collection", name)

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Write `rows`, of a request's size, over those of the same key."""
        self._call(f"writing to {name}", "upsert", name, list(rows), timeout=self.options.write_seconds)

    def delete(self, name: str, expression: str) -> None:
        """Remove the rows for which `expression` holds."""
        self._call(f"deleting from {name}", "delete", name, filter=expression, timeout=self.options.write_seconds)

    def count(self, name: str, expression: str) -> int:
        """Return for how many rows `expression` holds."""
        (counted,) = self._read(f"counting in {name}", "query", name, filter=expression, output_fields=["count(*)"])
        return int(counted["count(*)"])

    def query(self, name: str, expression: str, fields: Sequence[str], limit: int) -> list[Row]:
        """Return `fields` of the rows for which `expression` holds, `limit` at most, in any order."""
        options = {"filter": expression, "output_fields": list(fields), "limit": limit}
        return list(self._read(f"reading from {name}", "query", name, **options))

    def pages(self, name: str, expression: str, fields: Sequence[str], row_bytes: int) -> Iterator[list[Row]]:
        """Yield all rows for which `expression` holds, page by page; rows written meanwhile may be among them."""
        size = page_rows(row_bytes)
        options = {"filter": expression, "output_fields": list(fields), "batch_size": size}
        iterator = self._read(f"reading from {name}", "query_iterator", name, **options)
        try:
            while True:
                with self._errors(f"reading from {name}"):
                    page = list(iterator.next())
                if not page:
                    return
                yield page
        finally:
            iterator.close()

    def search(
        self, name: str, queries: Matrix, limit: int, *, expression: str, fields: Sequence[str], params: Row
    ) -> list[list[Row]]:
        """Return for each of `queries` the keys and `fields` of `limit` rows that are nearest, best first."""
        found = self._read(
            f"searching {name}",
            "search",
            name,
            data=list(queries),
            limit=limit,
            filter=expression,
            output_fields=list(fields),
            search_params={"params": params},
        )
        return [[{"row": hit["row"], **hit["entity"]} for hit in hits] for hits in found]

    def _read(self, doing: str, call: str, name: str, **options: Any) -> Any:
        options["consistency_level"] = self.options.consistency
        try:
            return self._call(doing, call, name, **options)
        except NotLoadedError:
            log.info("%s is not loaded; loading it", name)
            self.load(name)
            return self._call(doing, call, name, **options)

    def _call(self, doing: str, call: str, *arguments: Any, timeout: float | None = None, **options: Any) -> Any:
        seconds = remaining_seconds(timeout or self.options.seconds)
        with self._errors(doing):
            made: Callable[..., Any] = getattr(self._connect(seconds), call)
            return made(*arguments, timeout=max(seconds, 0.001), retry_on_rate_limit=False, **options)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Raise what the block raises as ours; once Milvus cannot be reached, let calls fail at once for a moment.

        Without that each of them would try to connect, one after the other.
        """
        try:
            with milvus_errors(self.options.uri, doing):
                yield
        except MilvusUnavailableError as error:
            if error.unreachable:
                self._unreachable_until = time.monotonic() + _UNREACHABLE_SECONDS
            raise

    def _connect(self, seconds: float) -> MilvusClient:
        with self._lock:
            if time.monotonic() < self._unreachable_until:
                raise MilvusUnavailableError(self.options.uri, "connecting", "cannot be reached")
            if self._client is None:
                options = self.options
                connecting = min(seconds, _CONNECT_SECONDS)
                self._client = MilvusClient(
                    options.uri, token=options.token, db_name=options.database, timeout=connecting, dedicated=True
                )
            return self._client

    def _wait(self, doing: str, give_up: float, done: Callable[[], bool]) -> None:
        pause = _POLL_SECONDS
        while not done():
            if time.monotonic() > give_up:
                raise MilvusUnavailableError(self.options.uri, doing, "is not done in time")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)

    def _is_indexed(self, name: str, field: str) -> bool:
        state = self._call(f"indexing {name}", "describe_index", name, field)
        if state and state.get("state") == "Failed":
            raise RuntimeError(f"Milvus cannot index {name}.{field}: {state}")
        return bool(state) and state.get("state") == "Finished"

    def _loaded(self, name: str) -> bool:
        return str(self._call(f"loading {name}", "get_load_state", name)["state"]) == "Loaded"


def page_rows(row_bytes: int) -> int:
    """Return how many rows of about `row_bytes` are read or written at a time."""
    return max(1, min(MAX_RESULTS, REQUEST_BYTES // row_bytes))


def batches(rows: Sequence[T], row_bytes: int) -> Iterator[Sequence[T]]:
    """Yield `rows`, each of about `row_bytes`, in parts that make a request."""
    size = page_rows(row_bytes)
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))
