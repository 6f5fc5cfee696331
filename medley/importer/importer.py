"""Ingests all inputs: reports those that fail, and retries while the server is unavailable."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from medley.client import Client
from medley.errors import DeadlineError, Error, OverloadedError, UnavailableError
from medley.importer.pending_item import PendingItem, to_input_error
from medley.importer.pending_items import PendingItems
from medley.importer.report import Failure, Report
from medley.inputs import BadInputError, Input, InputError
from medley.values import IngestResult, Lookup, NewItem, Source

TIMEOUT_SECONDS = 60.0
INITIAL_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 5.0
INLINE_BYTES = 16 * 2**20
"""Larger files are uploaded in chunks, before the item that refers to them."""

TRANSIENT_REASONS = ("OVERLOADED", "STORAGE_FULL")


class Importer:
    """Imports inputs into a collection.

    No state is kept between runs: each input is compared with the stored item of its id, and sent only if text,
    metadata or media differ. So a run after an interruption continues where the last one stopped, even if the
    collection has changed since.
    """

    def __init__(
        self,
        client: Client,
        collection: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        on_wait: Callable[[Error], object] = lambda error: None,
    ) -> None:
        """Import into `collection`; `on_wait` is called with the error before each retry.

        The importer gives up after `timeout_seconds` in which no input was processed.
        """
        self._client = client
        self._collection = collection
        self._timeout_seconds = timeout_seconds
        self._on_wait = on_wait

    def run(self, inputs: Iterable[Input], report: Report) -> None:
        """Ingest `inputs` and fill in `report`; `report.stopped` says why some were not processed.

        Raises:
            Error: the server refused the ingest before any input was processed.
        """
        queue = PendingItems(inputs, self._find_unchanged, self._prepare, report)
        budget = RetryBudget(self._timeout_seconds)
        while True:
            try:
                self._stream(queue, report)
                return
            except InputError as error:
                report.stopped = str(error)
                return
            except Error as error:
                if not self._wait_to_retry(error, budget, report):
                    return

    def _wait_to_retry(self, error: Error, budget: "RetryBudget", report: Report) -> bool:
        """Wait before a retry after `error`; return False if a retry is pointless."""
        if not is_transient(error):
            if not report.processed:
                raise error
            report.stopped = str(error)
        elif budget.is_spent(report.processed):
            report.stopped = f"no progress in {self._timeout_seconds:g} seconds: {error}"
        else:
            self._on_wait(error)
            budget.wait()
        return not report.stopped

    def _stream(self, queue: PendingItems, report: Report) -> None:
        with closing(self._client.ingest(self._collection, queue.stream())) as results:
            for result in results:
                pending = queue.pop_oldest()
                if result.error is not None and is_transient(result.error):
                    queue.put_back(pending)
                    raise result.error
                _record(pending, result, report)

    def _find_unchanged(self, items: Sequence[PendingItem]) -> set[str]:
        lookups = self._lookups([pending.id for pending in items])
        stored = {lookup.id: lookup.item for lookup in lookups if lookup.item is not None}
        return {pending.id for pending in items if pending.id in stored and pending.matches(stored[pending.id])}

    def _lookups(self, ids: Sequence[str]) -> tuple[Lookup, ...]:
        """Return the items stored under `ids`, in several calls if the responses are too large."""
        try:
            return self._client.get_many(self._collection, ids, fields=("text", "metadata", "media"))
        except OverloadedError as error:
            if error.reason != "MESSAGE_TOO_LARGE" or len(ids) == 1:
                raise
            middle = len(ids) // 2
            return self._lookups(ids[:middle]) + self._lookups(ids[middle:])

    def _prepare(self, pending: PendingItem) -> NewItem:
        try:
            return replace(pending.item, media=self._prepare_media(pending.item.media))
        except OSError as error:
            raise to_input_error(error) from error
        except Error as error:
            if is_transient(error):
                raise
            raise BadInputError(str(error)) from error

    def _prepare_media(self, media: Source | None) -> Source | None:
        """Return media to send with their item: the bytes, or, if large, a reference to the uploaded object."""
        match media:
            case bytes() if len(media) > INLINE_BYTES:
                return self._client.upload_media(media)
            case str() | os.PathLike() if Path(media).stat().st_size > INLINE_BYTES:
                return self._client.upload_media(media)
            case str() | os.PathLike():
                return Path(media).read_bytes()
            case _:
                return media


class RetryBudget:
    """Time to retry without progress, with exponential backoff."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._processed = -1
        self._until = 0.0
        self._pause = 0.0

    def is_spent(self, processed: int) -> bool:
        """Whether the time is up; it restarts when `processed` has grown."""
        if processed != self._processed:
            self._processed = processed
            self._until = time.monotonic() + self._seconds
            self._pause = INITIAL_BACKOFF_SECONDS
        return time.monotonic() >= self._until

    def wait(self) -> None:
        """Pause, longer each time."""
        time.sleep(max(0.0, min(self._pause, self._until - time.monotonic())))
        self._pause = min(2 * self._pause, MAX_BACKOFF_SECONDS)


def is_transient(error: Error) -> bool:
    """Whether the same call may succeed later."""
    return isinstance(error, UnavailableError | DeadlineError) or error.reason in TRANSIENT_REASONS


def _record(pending: PendingItem, result: IngestResult, report: Report) -> None:
    if result.error is None:
        report.count_ingested()
    else:
        report.fail(Failure(pending.name, pending.id, result.error.reason, str(result.error)))
