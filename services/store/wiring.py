"""Which parts make a store service: the only module that names adapters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from services.common.concurrency.executors import BoundedExecutor, DeadlineExecutor
from services.store.core.collections import Collections
from services.store.core.media_links import MediaLinks
from services.store.core.media_store import MediaStore
from services.store.core.row_cache import CachedCatalog, RowCache
from services.store.core.table import TableCatalog
from services.store.core.tags import Tags
from services.store.core.validation import RowValidator
from services.store.data.change_feed import Feed
from services.store.data.media import MediaService
from services.store.data.reader import Reader
from services.store.data.writer import Writer
from services.store.maintenance.garbage_collection import GarbageCollector, Retention
from services.store.maintenance.integrity_check import IntegrityCheck
from services.store.maintenance.purge import Purge
from services.store.servicer import StoreServicer
from services.store.settings import StoreSettings

if TYPE_CHECKING:
    from services.common.s3.bucket import S3Bucket
    from services.store.adapters.lance.location import TableDirectory
    from services.store.adapters.s3_media import S3Media


@asynccontextmanager
async def store_servicer(settings: StoreSettings) -> AsyncIterator[StoreServicer]:
    """Build the service, hand it over, release what it holds."""
    async with AsyncExitStack() as stack:
        bucket = await _bucket(settings, stack) if "s3" in (settings.rows, settings.media) else None
        tables = await _catalogue(settings, stack, bucket if settings.rows == "s3" else None)
        catalogue = CachedCatalog(tables, RowCache(settings.row_cache_bytes))
        await stack.enter_async_context(catalogue.loading())
        media, links = await _media(settings, stack, bucket if settings.media == "s3" else None)
        collections = await stack.enter_async_context(
            Collections(catalogue, max_waiting_rows=settings.max_waiting_rows, clock=_now)
        )
        upkeep = GarbageCollector(collections, media, _retention(settings), clock=_now)
        await stack.enter_async_context(
            upkeep.running(tidy_seconds=settings.tidy_seconds, collect_seconds=settings.collect_seconds)
        )
        history = Tags(collections)
        reader = Reader(
            history,
            media,
            max_inline_bytes=settings.max_inline_media_bytes,
            max_answer_bytes=settings.max_message_bytes // 2,
        )
        yield StoreServicer(
            collections,
            Writer(collections, RowValidator(media)),
            reader,
            MediaService(media, links),
            Feed(collections),
            checker=IntegrityCheck(collections, media, clock=_now),
            upkeep=upkeep,
            history=history,
            purger=Purge(collections, media, clock=_now),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _retention(settings: StoreSettings) -> Retention:
    return Retention(
        timedelta(seconds=settings.deletions_kept_seconds),
        timedelta(seconds=settings.versions_kept_seconds),
        timedelta(seconds=settings.media_grace_seconds),
    )


async def _catalogue(settings: StoreSettings, stack: AsyncExitStack, bucket: "S3Bucket | None") -> TableCatalog:
    if settings.rows == "memory":
        from services.store.adapters.memory_tables import MemoryCatalogue

        return MemoryCatalogue()
    from services.store.adapters.lance.catalog import LanceCatalogue

    shelf, executor = await _shelf_in_bucket(bucket, settings) if bucket else _shelf_in_folder(settings)
    catalogue = LanceCatalogue(
        shelf,
        executor=await stack.enter_async_context(executor),
        upkeep=await stack.enter_async_context(BoundedExecutor("upkeep", 1)),
        index_cache_bytes=settings.index_cache_bytes,
        metadata_cache_bytes=settings.metadata_cache_bytes,
    )
    await stack.enter_async_context(catalogue.running(settings.poll_seconds))
    return catalogue


def _shelf_in_folder(settings: StoreSettings) -> "tuple[TableDirectory, BoundedExecutor]":
    from services.store.adapters.lance.folder_location import FolderShelf

    return FolderShelf(settings.directory), BoundedExecutor("rows", settings.threads)


async def _shelf_in_bucket(bucket: "S3Bucket", settings: StoreSettings) -> "tuple[TableDirectory, BoundedExecutor]":
    from services.store.adapters.lance.s3_location import S3Shelf
    from services.store.adapters.s3_preflight import check_conditions, check_lance

    shelf = S3Shelf(bucket)
    for check in (check_conditions, check_lance):
        await asyncio.to_thread(check, bucket)
    return shelf, DeadlineExecutor("rows", settings.threads, "object store", settings.s3_timeout_seconds)


async def _media(
    settings: StoreSettings, stack: AsyncExitStack, bucket: "S3Bucket | None"
) -> tuple[MediaStore, MediaLinks | None]:
    if bucket is not None:
        in_bucket = await _media_in_bucket(bucket, settings, stack)
        return in_bucket, in_bucket
    if settings.media == "memory":
        from services.store.adapters.memory_media import MemoryMedia

        return MemoryMedia(), None
    from services.store.adapters.folder_media import FolderMedia

    executor = await stack.enter_async_context(BoundedExecutor("media", settings.threads))
    syncers = await stack.enter_async_context(BoundedExecutor("sync", settings.sync_threads))
    media = FolderMedia(settings.directory / "media", executor, syncers)
    await media.open()
    return media, None


async def _media_in_bucket(bucket: "S3Bucket", settings: StoreSettings, stack: AsyncExitStack) -> "S3Media":
    from services.store.adapters.s3_media import S3Media

    executor = DeadlineExecutor("media", settings.s3_calls, "object store", settings.s3_timeout_seconds)
    media = S3Media(bucket, await stack.enter_async_context(executor), verified_share=settings.s3_verified_share)
    await media.open()
    return media


async def _bucket(settings: StoreSettings, stack: AsyncExitStack) -> "S3Bucket":
    from services.common.s3.bucket import S3Bucket
    from services.store.adapters.s3_preflight import make_ready

    bucket = S3Bucket(settings.s3_options(settings.s3_calls + settings.threads, settings.s3_url_endpoint))
    stack.callback(bucket.close)
    await asyncio.to_thread(make_ready, bucket, create=settings.s3_create_bucket)
    return bucket
