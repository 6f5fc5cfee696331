"""Ingest: a stream of items, embedded and committed in batches, each answered in order.

One stream is four tasks in a row, so that reading, embedding and committing go on at once:
read (waits while too much is in flight) → gather into batches → embed (several batches at a time) → commit, in order.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from services.common.concurrency.limiter import ConcurrencyLimiter, WeightedSemaphore
from services.common.concurrency.retry import is_transient, retry
from services.common.concurrency.tasks import task_group
from services.common.errors import ServiceError
from services.gateway.core.items import Collection, Inline, NewItem, Stored
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import MediaReader, Row, RowWriter, Written
from services.gateway.ingest.batcher import Batches, BatchLimits, Entry
from services.gateway.ingest.item_encoder import Encoded, ItemContent, ItemEmbedder, row_media
from services.gateway.ingest.validation import size_of, validate_item

LOADS_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """How much of one stream is in flight: items not yet answered, bytes not yet committed, batches at a time."""

    batch: BatchLimits
    batches: int
    items: int
    bytes: int
    max_media_bytes: int
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the item numbered `sequence`, from 0."""

    sequence: int
    id: str
    outcome: Written | ServiceError


@dataclass(frozen=True, slots=True)
class Stores:
    """The sides of the store that an ingest needs."""

    rows: RowWriter
    media: MediaReader


class IngestPipeline:
    """Takes in items."""

    def __init__(
        self,
        catalogue: MetadataCache,
        encoder: ItemEmbedder,
        stores: Stores,
        pace: IngestLimits,
        limiter: ConcurrencyLimiter,
    ) -> None:
        self._catalogue = catalogue
        self._encoder = encoder
        self._stores = stores
        self._pace = pace
        self._limiter = limiter

    async def ingest(self, name: str, items: AsyncIterator[NewItem]) -> AsyncGenerator[Sequence[Answer], None]:
        """Yield what became of `items`, in order, some at a time, once they are durable or refused.

        An error of `items` itself is raised once those before it are answered.

        Raises:
            NotFoundError: no such collection.
            OverloadedError: too many ingests are running.
        """
        with self._limiter.admit():
            self._catalogue.forget(name)
            collection = await self._catalogue.collection(name)
            stream = _Stream(collection, self._encoder, self._stores, self._pace)
            running = asyncio.create_task(stream.run(items))
            try:
                while answers := await stream.answers.get():
                    yield answers
                    stream.delivered(len(answers))
                await running
            finally:
                running.cancel()
                await asyncio.wait([running])


@dataclass(frozen=True, slots=True)
class _Batch:
    entries: Sequence[Entry]
    encoding: asyncio.Task[list[Encoded | ServiceError]]


class _Stream:
    """One ingest on its way. `answers` ends with none; it holds no more than may be in flight."""

    def __init__(self, collection: Collection, encoder: ItemEmbedder, stores: Stores, pace: IngestLimits) -> None:
        self.answers: asyncio.Queue[Sequence[Answer]] = asyncio.Queue()
        self._collection = collection
        self._embedded = [space for space in collection.spaces if space.model]
        self._encoder = encoder
        self._stores = stores
        self._pace = pace
        self._items = WeightedSemaphore(pace.items)
        self._bytes = WeightedSemaphore(pace.bytes)
        self._loads: asyncio.Queue[Entry | asyncio.Task[Entry] | None] = asyncio.Queue(LOADS_IN_FLIGHT)
        self._batches = Batches(pace.batch)
        self._free = asyncio.Semaphore(pace.batches)
        self._commits: asyncio.Queue[_Batch | None] = asyncio.Queue()
        self._failure: ServiceError | None = None

    async def run(self, items: AsyncIterator[NewItem]) -> None:
        try:
            async with task_group() as group:
                group.create_task(self._read(items, group))
                group.create_task(self._gather())
                group.create_task(self._embed(group))
                group.create_task(self._commit())
        finally:
            self.answers.put_nowait(())
        if self._failure:
            raise self._failure

    def delivered(self, count: int) -> None:
        """Say that so many answers were taken from `answers` and sent."""
        self._items.release(count)

    async def _read(self, items: AsyncIterator[NewItem], group: asyncio.TaskGroup) -> None:
        sequence = 0
        try:
            async for item in items:
                await self._items.acquire(1)
                await self._bytes.acquire(size_of(item))
                await self._loads.put(self._load(sequence, item, group))
                sequence += 1
        except ServiceError as error:
            self._failure = error
        await self._loads.put(None)

    def _load(self, sequence: int, item: NewItem, group: asyncio.TaskGroup) -> Entry | asyncio.Task[Entry]:
        """Return the item as an entry, or what fetches its picture ahead of its turn."""
        size = size_of(item)
        try:
            draft = validate_item(item, self._collection)
        except ServiceError as error:
            return Entry(sequence, item.id, error, None, size)
        match item.media:
            case Stored(sha256):
                return group.create_task(self._fetched(Entry(sequence, item.id, draft, None, size), sha256))
            case Inline(data):
                return Entry(sequence, item.id, draft, data, size)
            case None:
                return Entry(sequence, item.id, draft, None, size)

    async def _fetched(self, entry: Entry, sha256: str) -> Entry:
        load = partial(self._stores.media.read, sha256, self._pace.max_media_bytes)
        try:
            picture = await retry(load, is_transient, seconds=self._pace.retry_seconds)
        except ServiceError as error:
            return replace(entry, draft=error)
        self._bytes.force_acquire(len(picture))
        return replace(entry, picture=picture, size=entry.size + len(picture))

    async def _gather(self) -> None:
        while (loading := await self._loads.get()) is not None:
            self._batches.put(loading if isinstance(loading, Entry) else await loading)
        self._batches.close()

    async def _embed(self, group: asyncio.TaskGroup) -> None:
        while await self._batches.wait():
            await self._free.acquire()
            entries = self._batches.take()
            encoding = group.create_task(self._encoder.encode([self._contents(entry) for entry in entries]))
            self._commits.put_nowait(_Batch(entries, encoding))
        self._commits.put_nowait(None)

    def _contents(self, entry: Entry) -> ItemContent:
        if isinstance(entry.draft, ServiceError):
            return ItemContent(())
        return ItemContent(self._embedded, entry.draft.text, entry.picture)

    async def _commit(self) -> None:
        while (batch := await self._commits.get()) is not None:
            outcomes = await self._outcomes(batch.entries, await batch.encoding)
            self._free.release()
            self._bytes.release(sum(entry.size for entry in batch.entries))
            self.answers.put_nowait(
                [
                    Answer(entry.sequence, entry.id, outcome)
                    for entry, outcome in zip(batch.entries, outcomes, strict=True)
                ]
            )

    async def _outcomes(
        self, entries: Sequence[Entry], encoded: Sequence[Encoded | ServiceError]
    ) -> list[Written | ServiceError]:
        outcomes = [_row(entry, vectors) for entry, vectors in zip(entries, encoded, strict=True)]
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        committed = iter(await self._upsert(rows)) if rows else iter(())
        return [next(committed) if isinstance(outcome, Row) else outcome for outcome in outcomes]

    async def _upsert(self, rows: Sequence[Row]) -> Sequence[Written | ServiceError]:
        fingerprints = _fingerprints(self._collection, rows)
        upsert = partial(self._stores.rows.upsert, self._collection.name, rows, fingerprints)
        try:
            # Safe to do twice: a row replaces the one of its id.
            return await retry(upsert, is_transient, seconds=self._pace.retry_seconds)
        except ServiceError as error:
            return [error] * len(rows)


def _row(entry: Entry, encoded: Encoded | ServiceError) -> Row | ServiceError:
    draft = entry.draft
    if isinstance(draft, ServiceError):
        return draft
    if isinstance(encoded, ServiceError):
        return encoded
    return Row(
        draft.id, draft.text, row_media(draft.media, encoded), draft.metadata_json, {**encoded.vectors, **draft.vectors}
    )


def _fingerprints(collection: Collection, rows: Sequence[Row]) -> Mapping[str, str]:
    used = {space for row in rows for space in row.vectors}
    return {space.name: space.fingerprint for space in collection.spaces if space.model and space.name in used}
