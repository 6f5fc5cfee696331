"""Builds the store service from its settings; the only module that imports adapters."""

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
from services.store.data.change_feed import ChangeFeed
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
    from services.store.adapters.lance.table_directory import TableDirectory
    from services.store.adapters.s3_media import S3Media


@asynccontextmanager
async def store_servicer(settings: StoreSettings) -> AsyncIterator[StoreServicer]:
    """Yield the service; close its resources at exit."""
    async with AsyncExitStack() as stack:
        bucket = await _open_bucket(settings, stack) if "s3" in (settings.rows, settings.media) else None
        tables = await _open_catalog(settings, stack, bucket if settings.rows == "s3" else None)
        catalog = CachedCatalog(tables, RowCache(settings.row_cache_bytes))
        await stack.enter_async_context(catalog.loading())
        media, links = await _open_media(settings, stack, bucket if settings.media == "s3" else None)
        collections = await stack.enter_async_context(
            Collections(catalog, max_waiting_rows=settings.max_waiting_rows, clock=_now)
        )
        garbage_collector = GarbageCollector(collections, media, _retention(settings), clock=_now)
        await stack.enter_async_context(
            garbage_collector.running(
                optimize_seconds=settings.optimize_seconds, collect_seconds=settings.collect_seconds
            )
        )
        tags = Tags(collections)
        reader = Reader(
            tags,
            media,
            max_inline_bytes=settings.max_inline_media_bytes,
            max_response_bytes=settings.max_message_bytes // 2,
        )
        yield StoreServicer(
            collections,
            Writer(collections, RowValidator(media)),
            reader,
            MediaService(media, links),
            ChangeFeed(collections),
            integrity_check=IntegrityCheck(collections, media, clock=_now),
            garbage_collector=garbage_collector,
            tags=tags,
            purge=Purge(collections, media, clock=_now),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _retention(settings: StoreSettings) -> Retention:
    return Retention(
        timedelta(seconds=settings.deletions_kept_seconds),
        timedelta(seconds=settings.versions_kept_seconds),
        timedelta(seconds=settings.media_grace_seconds),
    )


async def _open_catalog(settings: StoreSettings, stack: AsyncExitStack, bucket: "S3Bucket | None") -> TableCatalog:
    if settings.rows == "memory":
        from services.store.adapters.memory_tables import MemoryCatalog

        return MemoryCatalog()
    from services.store.adapters.lance.catalog import LanceCatalog

    directory, executor = await _open_s3_tables(bucket, settings) if bucket else _open_folder_tables(settings)
    catalog = LanceCatalog(
        directory,
        executor=await stack.enter_async_context(executor),
        maintenance_executor=await stack.enter_async_context(BoundedExecutor("maintenance", 1)),
        index_cache_bytes=settings.index_cache_bytes,
        metadata_cache_bytes=settings.metadata_cache_bytes,
    )
    await stack.enter_async_context(catalog.running(settings.poll_seconds))
    return catalog


def _open_folder_tables(settings: StoreSettings) -> "tuple[TableDirectory, BoundedExecutor]":
    from services.store.adapters.lance.folder_directory import FolderTableDirectory

    return FolderTableDirectory(settings.directory), BoundedExecutor("rows", settings.threads)


async def _open_s3_tables(bucket: "S3Bucket", settings: StoreSettings) -> "tuple[TableDirectory, BoundedExecutor]":
    from services.store.adapters.lance.s3_directory import S3TableDirectory
    from services.store.adapters.s3_preflight import check_conditional_writes, check_lance

    directory = S3TableDirectory(bucket)
    for check in (check_conditional_writes, check_lance):
        await asyncio.to_thread(check, bucket)
    return directory, DeadlineExecutor("rows", settings.threads, "object store", settings.s3_timeout_seconds)


async def _open_media(
    settings: StoreSettings, stack: AsyncExitStack, bucket: "S3Bucket | None"
) -> tuple[MediaStore, MediaLinks | None]:
    if bucket is not None:
        s3_media = await _open_s3_media(bucket, settings, stack)
        return s3_media, s3_media
    if settings.media == "memory":
        from services.store.adapters.memory_media import MemoryMedia

        return MemoryMedia(), None
    from services.store.adapters.folder_media import FolderMedia

    executor = await stack.enter_async_context(BoundedExecutor("media", settings.threads))
    syncers = await stack.enter_async_context(BoundedExecutor("sync", settings.sync_threads))
    media = FolderMedia(settings.directory / "media", executor, syncers)
    await media.open()
    return media, None


async def _open_s3_media(bucket: "S3Bucket", settings: StoreSettings, stack: AsyncExitStack) -> "S3Media":
    from services.store.adapters.s3_media import S3Media

    executor = DeadlineExecutor("media", settings.s3_calls, "object store", settings.s3_timeout_seconds)
    media = S3Media(bucket, await stack.enter_async_context(executor), verified_share=settings.s3_verified_share)
    await media.open()
    return media


async def _open_bucket(settings: StoreSettings, stack: AsyncExitStack) -> "S3Bucket":
    from services.common.s3.bucket import S3Bucket
    from services.store.adapters.s3_preflight import prepare_bucket

    bucket = S3Bucket(settings.s3_options(settings.s3_calls + settings.threads, settings.s3_url_endpoint))
    stack.callback(bucket.close)
    await asyncio.to_thread(prepare_bucket, bucket, create=settings.s3_create_bucket)
    return bucket
