"""Which parts make a store service: the only module that names adapters."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

from services.store.checker import Checker
from services.store.feed import Feed
from services.store.intake import Intake
from services.store.keeper import Collections
from services.store.library import Library
from services.store.media_store import MediaStore
from services.store.reader import Reader
from services.store.servicer import StoreServicer
from services.store.settings import StoreSettings
from services.store.tables import Catalogue
from services.store.upkeep import Retention, Upkeep
from services.store.writer import Writer


@asynccontextmanager
async def store_servicer(settings: StoreSettings) -> AsyncIterator[StoreServicer]:
    """Build the service, hand it over, release what it holds."""
    async with AsyncExitStack() as stack:
        catalogue = await _catalogue(settings, stack)
        media = await _media(settings, stack)
        collections = await stack.enter_async_context(
            Collections(catalogue, max_waiting_rows=settings.max_waiting_rows, clock=_now)
        )
        upkeep = Upkeep(collections, media, _retention(settings), clock=_now)
        await stack.enter_async_context(
            upkeep.running(tidy_seconds=settings.tidy_seconds, collect_seconds=settings.collect_seconds)
        )
        reader = Reader(
            collections,
            media,
            max_inline_bytes=settings.max_inline_media_bytes,
            max_answer_bytes=settings.max_message_bytes // 2,
        )
        yield StoreServicer(
            collections,
            Writer(collections, Intake(media)),
            reader,
            Library(media),
            Feed(collections),
            checker=Checker(collections, media, clock=_now),
            upkeep=upkeep,
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _retention(settings: StoreSettings) -> Retention:
    return Retention(
        timedelta(seconds=settings.deletions_kept_seconds),
        timedelta(seconds=settings.versions_kept_seconds),
        timedelta(seconds=settings.media_grace_seconds),
    )


async def _catalogue(settings: StoreSettings, stack: AsyncExitStack) -> Catalogue:
    if settings.rows == "memory":
        from services.store.adapters.memory_tables import MemoryCatalogue

        return MemoryCatalogue()
    from services.store.adapters.folder_shelf import FolderShelf
    from services.store.adapters.lance_catalogue import LanceCatalogue
    from services.store.adapters.threads import Threads

    catalogue = LanceCatalogue(
        FolderShelf(settings.directory),
        threads=await stack.enter_async_context(Threads("rows", settings.threads)),
        upkeep=await stack.enter_async_context(Threads("upkeep", 1)),
        index_cache_bytes=settings.index_cache_bytes,
        metadata_cache_bytes=settings.metadata_cache_bytes,
    )
    await stack.enter_async_context(catalogue.running(settings.poll_seconds))
    return catalogue


async def _media(settings: StoreSettings, stack: AsyncExitStack) -> MediaStore:
    if settings.media == "memory":
        from services.store.adapters.memory_media import MemoryMedia

        return MemoryMedia()
    from services.store.adapters.folder_media import FolderMedia
    from services.store.adapters.threads import Threads

    media = FolderMedia(
        settings.directory / "media", await stack.enter_async_context(Threads("media", settings.threads))
    )
    await media.open()
    return media
