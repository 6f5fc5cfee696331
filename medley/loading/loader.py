"""Ingest inputs to the end: past inputs that fail, and past times when the server does not answer."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from medley.client import Client
from medley.errors import DeadlineError, Error, OverloadedError, UnavailableError
from medley.inputs import BadInputError, Input, InputError
from medley.loading.draft import Draft, unreadable
from medley.loading.feed import PendingItems
from medley.loading.report import Failure, Report
from medley.values import IngestResult, Lookup, NewItem, Source

TIMEOUT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
INLINE_BYTES = 16 * 2**20
"""Larger files are uploaded in chunks, before the item that refers to them."""

PASSING_REASONS = ("OVERLOADED", "STORAGE_FULL")


class Importer:
    """Brings inputs into a collection.

    Nothing is kept between runs: each input is compared with what the collection holds under its id, and sent only
    where text, metadata or media differ. So a run after an interruption goes on where that one stopped, whatever
    happened to the collection meanwhile.
    """

    def __init__(
        self,
        client: Client,
        collection: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        waiting: Callable[[Error], object] = lambda error: None,
    ) -> None:
        """Load into `collection`; `waiting` is told why whenever the server cannot go on.

        After `timeout_seconds` in which no input was settled the loader gives up.
        """
        self._client = client
        self._collection = collection
        self._timeout_seconds = timeout_seconds
        self._waiting = waiting

    def load(self, inputs: Iterable[Input], report: Report) -> None:
        """Ingest `inputs`, filling in `report`, which says so where not all could be settled.

        Raises:
            Error: the server refuses the ingest as a whole, before any input was settled.
        """
        feed = PendingItems(inputs, self._unchanged, self._packed, report)
        patience = RetryBudget(self._timeout_seconds)
        while True:
            try:
                self._stream(feed, report)
                return
            except InputError as error:
                report.stopped = str(error)
                return
            except Error as error:
                if not self._goes_on(error, patience, report):
                    return

    def _goes_on(self, error: Error, patience: "RetryBudget", report: Report) -> bool:
        """Wait a while after `error`; False where there is no sense in trying again."""
        if not is_passing(error):
            if not report.settled:
                raise error
            report.stopped = str(error)
        elif patience.spent(report.settled):
            report.stopped = f"no progress in {self._timeout_seconds:g} seconds: {error}"
        else:
            self._waiting(error)
            patience.wait()
        return not report.stopped

    def _stream(self, feed: PendingItems, report: Report) -> None:
        with closing(self._client.ingest(self._collection, feed.stream())) as results:
            for result in results:
                draft = feed.answered()
                if result.error is not None and is_passing(result.error):
                    feed.put_back(draft)
                    raise result.error
                _settle(draft, result, report)

    def _unchanged(self, drafts: Sequence[Draft]) -> set[str]:
        lookups = self._lookups([draft.id for draft in drafts])
        stored = {lookup.id: lookup.item for lookup in lookups if lookup.item is not None}
        return {draft.id for draft in drafts if draft.id in stored and draft.is_stored_as(stored[draft.id])}

    def _lookups(self, ids: Sequence[str]) -> tuple[Lookup, ...]:
        """Return what is stored under `ids`, in as many answers as their size takes."""
        try:
            return self._client.get_many(self._collection, ids, fields=("text", "metadata", "media"))
        except OverloadedError as error:
            if error.reason != "MESSAGE_TOO_LARGE" or len(ids) == 1:
                raise
            middle = len(ids) // 2
            return self._lookups(ids[:middle]) + self._lookups(ids[middle:])

    def _packed(self, draft: Draft) -> NewItem:
        try:
            return replace(draft.item, media=self._portable(draft.item.media))
        except OSError as error:
            raise unreadable(error) from error
        except Error as error:
            if is_passing(error):
                raise
            raise BadInputError(str(error)) from error

    def _portable(self, media: Source | None) -> Source | None:
        """Return media that go with their item: the bytes, or, where these are many, a reference to them uploaded."""
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
    """How long to go on without progress, in growing pauses."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._settled = -1
        self._until = 0.0
        self._pause = 0.0

    def spent(self, settled: int) -> bool:
        """Whether the time is up; it starts anew when more inputs are `settled` than before."""
        if settled != self._settled:
            self._settled = settled
            self._until = time.monotonic() + self._seconds
            self._pause = FIRST_PAUSE_SECONDS
        return time.monotonic() >= self._until

    def wait(self) -> None:
        """Pause, longer each time."""
        time.sleep(max(0.0, min(self._pause, self._until - time.monotonic())))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


def is_passing(error: Error) -> bool:
    """Whether the same may succeed later."""
    return isinstance(error, UnavailableError | DeadlineError) or error.reason in PASSING_REASONS


def _settle(draft: Draft, result: IngestResult, report: Report) -> None:
    if result.error is None:
        report.count_ingested()
    else:
        report.fail(Failure(draft.name, draft.id, result.error.reason, str(result.error)))
