"""Ingests a stream of items: embeds and commits them in batches and answers each item in order.

A stream is a pipeline of four tasks, so that reading, embedding and committing overlap:
read (waits while the limits are reached) → batch → embed (several batches at a time) → commit, in order.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from services.common.concurrency.limiter import ConcurrencyLimiter, WeightedSemaphore
from services.common.concurrency.retry import is_transient, retry
from services.common.concurrency.tasks import task_group
from services.common.errors import ServiceError
from services.gateway.core.items import Collection, InlineMedia, NewItem, StoredMedia
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import MediaReader, Row, RowWriter, WrittenRow
from services.gateway.ingest.batcher import BatchLimits, ItemBatcher, PendingItem
from services.gateway.ingest.item_embedder import ItemContent, ItemEmbedder, ItemVectors, build_row_media
from services.gateway.ingest.validation import estimate_size, validate_item

LOADS_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Limits of one stream: `items` not yet answered, `bytes` not yet committed, `batches` in progress."""

    batch: BatchLimits
    batches: int
    items: int
    bytes: int
    max_media_bytes: int
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The outcome of the item numbered `sequence`, from 0."""

    sequence: int
    id: str
    outcome: WrittenRow | ServiceError


class IngestStore(RowWriter, MediaReader, Protocol):
    """The store as an ingest uses it."""


class IngestPipeline:
    """Ingests items into collections."""

    def __init__(
        self,
        cache: MetadataCache,
        item_embedder: ItemEmbedder,
        store: IngestStore,
        limits: IngestLimits,
        limiter: ConcurrencyLimiter,
    ) -> None:
        self._cache = cache
        self._item_embedder = item_embedder
        self._store = store
        self._limits = limits
        self._limiter = limiter

    async def ingest(self, name: str, items: AsyncIterator[NewItem]) -> AsyncGenerator[Sequence[IngestResult], None]:
        """Yield the outcomes of `items`, in order and several at a time, once they are durable or refused.

        An error raised by `items` itself is raised after the items before it are answered.

        Raises:
            NotFoundError: no such collection.
            OverloadedError: too many ingests are running.
        """
        with self._limiter.admit():
            self._cache.invalidate(name)
            collection = await self._cache.get_collection(name)
            stream = _IngestStream(collection, self._item_embedder, self._store, self._limits)
            running = asyncio.create_task(stream.run(items))
            try:
                while results := await stream.results.get():
                    yield results
                    stream.release(len(results))
                await running
            finally:
                running.cancel()
                await asyncio.wait([running])


@dataclass(frozen=True, slots=True)
class _Batch:
    items: Sequence[PendingItem]
    embedding: asyncio.Task[list[ItemVectors | ServiceError]]


class _IngestStream:
    """One running ingest. Its queue `results` ends with an empty sequence and holds at most the items in flight."""

    def __init__(
        self, collection: Collection, item_embedder: ItemEmbedder, store: IngestStore, limits: IngestLimits
    ) -> None:
        self.results: asyncio.Queue[Sequence[IngestResult]] = asyncio.Queue()
        self._collection = collection
        self._model_spaces = [space for space in collection.spaces if space.model]
        self._item_embedder = item_embedder
        self._store = store
        self._limits = limits
        self._items = WeightedSemaphore(limits.items)
        self._bytes = WeightedSemaphore(limits.bytes)
        self._loading: asyncio.Queue[PendingItem | asyncio.Task[PendingItem] | None] = asyncio.Queue(LOADS_IN_FLIGHT)
        self._batcher = ItemBatcher(limits.batch)
        self._batch_slots = asyncio.Semaphore(limits.batches)
        self._commits: asyncio.Queue[_Batch | None] = asyncio.Queue()
        self._failure: ServiceError | None = None

    async def run(self, items: AsyncIterator[NewItem]) -> None:
        try:
            async with task_group() as group:
                group.create_task(self._read(items, group))
                group.create_task(self._batch())
                group.create_task(self._embed(group))
                group.create_task(self._commit())
        finally:
            self.results.put_nowait(())
        if self._failure:
            raise self._failure

    def release(self, count: int) -> None:
        """Make room for `count` more items, after as many results were sent."""
        self._items.release(count)

    async def _read(self, items: AsyncIterator[NewItem], group: asyncio.TaskGroup) -> None:
        sequence = 0
        try:
            async for item in items:
                await self._items.acquire(1)
                await self._bytes.acquire(estimate_size(item))
                await self._loading.put(self._load(sequence, item, group))
                sequence += 1
        except ServiceError as error:
            self._failure = error
        await self._loading.put(None)

    def _load(self, sequence: int, item: NewItem, group: asyncio.TaskGroup) -> PendingItem | asyncio.Task[PendingItem]:
        """Return the validated item, or a task that also reads its stored image."""
        size = estimate_size(item)
        try:
            validated = validate_item(item, self._collection)
        except ServiceError as error:
            return PendingItem(sequence, item.id, error, None, size)
        match item.media:
            case StoredMedia(sha256):
                return group.create_task(
                    self._read_image(PendingItem(sequence, item.id, validated, None, size), sha256)
                )
            case InlineMedia(data):
                return PendingItem(sequence, item.id, validated, data, size)
            case None:
                return PendingItem(sequence, item.id, validated, None, size)

    async def _read_image(self, pending: PendingItem, sha256: str) -> PendingItem:
        load = partial(self._store.read_media, sha256, self._limits.max_media_bytes)
        try:
            image = await retry(load, is_transient, seconds=self._limits.retry_seconds)
        except ServiceError as error:
            return replace(pending, item=error)
        self._bytes.force_acquire(len(image))
        return replace(pending, image=image, size=pending.size + len(image))

    async def _batch(self) -> None:
        while (loading := await self._loading.get()) is not None:
            self._batcher.put(loading if isinstance(loading, PendingItem) else await loading)
        self._batcher.close()

    async def _embed(self, group: asyncio.TaskGroup) -> None:
        while await self._batcher.wait():
            await self._batch_slots.acquire()
            items = self._batcher.take()
            embedding = group.create_task(self._item_embedder.embed([self._content(item) for item in items]))
            self._commits.put_nowait(_Batch(items, embedding))
        self._commits.put_nowait(None)

    def _content(self, pending: PendingItem) -> ItemContent:
        if isinstance(pending.item, ServiceError):
            return ItemContent(())
        return ItemContent(self._model_spaces, pending.item.text, pending.image)

    async def _commit(self) -> None:
        while (batch := await self._commits.get()) is not None:
            outcomes = await self._write(batch.items, await batch.embedding)
            self._batch_slots.release()
            self._bytes.release(sum(item.size for item in batch.items))
            self.results.put_nowait(
                [
                    IngestResult(item.sequence, item.id, outcome)
                    for item, outcome in zip(batch.items, outcomes, strict=True)
                ]
            )

    async def _write(
        self, items: Sequence[PendingItem], embedded: Sequence[ItemVectors | ServiceError]
    ) -> list[WrittenRow | ServiceError]:
        outcomes = [_build_row(item, vectors) for item, vectors in zip(items, embedded, strict=True)]
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        committed = iter(await self._upsert(rows)) if rows else iter(())
        return [next(committed) if isinstance(outcome, Row) else outcome for outcome in outcomes]

    async def _upsert(self, rows: Sequence[Row]) -> Sequence[WrittenRow | ServiceError]:
        fingerprints = _used_fingerprints(self._collection, rows)
        upsert = partial(self._store.upsert, self._collection.name, rows, fingerprints)
        try:
            # Safe to retry: a row replaces the one of its id.
            return await retry(upsert, is_transient, seconds=self._limits.retry_seconds)
        except ServiceError as error:
            return [error] * len(rows)


def _build_row(pending: PendingItem, vectors: ItemVectors | ServiceError) -> Row | ServiceError:
    item = pending.item
    if isinstance(item, ServiceError):
        return item
    if isinstance(vectors, ServiceError):
        return vectors
    media = build_row_media(item.media, vectors)
    return Row(item.id, item.text, media, item.metadata_json, {**vectors.vectors, **item.vectors})


def _used_fingerprints(collection: Collection, rows: Sequence[Row]) -> Mapping[str, str]:
    used = {space for row in rows for space in row.vectors}
    return {space.name: space.fingerprint for space in collection.spaces if space.model and space.name in used}
