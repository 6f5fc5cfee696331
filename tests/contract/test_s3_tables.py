"""Tables in a bucket: the contracts, and what only a bucket has."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from services.common.concurrency.executors import BoundedExecutor, DeadlineExecutor
from services.common.errors import ServiceUnavailableError
from services.common.s3.bucket import S3Bucket
from services.common.s3.options import S3Options
from services.store.adapters.lance.catalog import LanceCatalogue
from services.store.adapters.lance.s3_location import S3Shelf
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import NOTHING
from services.store.core.table import TableCatalog
from tests.contract.store_tables import CatalogueContract, TableContract, definition, row
from tests.integration.s3_endpoint import fresh_options
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.s3

CACHE_BYTES = 16 * 2**20


async def opened(bucket: S3Bucket) -> AsyncIterator[LanceCatalogue]:
    """Give a catalogue in the bucket, as another process has it."""
    async with DeadlineExecutor("rows", 4, "object store", 20) as threads, BoundedExecutor("upkeep", 1) as upkeep:
        catalogue = LanceCatalogue(
            S3Shelf(bucket),
            executor=threads,
            upkeep=upkeep,
            index_cache_bytes=CACHE_BYTES,
            metadata_cache_bytes=CACHE_BYTES,
        )
        async with catalogue.running(poll_seconds=0.05):
            yield catalogue


@pytest.fixture
def options() -> S3Options:
    return fresh_options()


@pytest.fixture
async def bucket(options: S3Options) -> AsyncIterator[S3Bucket]:
    bucket = S3Bucket(options)
    yield bucket
    bucket.remove_all([entry.path for entry in bucket.entries("")])
    bucket.close()


@pytest.fixture
async def catalogue(bucket: S3Bucket) -> AsyncIterator[TableCatalog]:
    async for each in opened(bucket):
        yield each


@pytest.fixture
async def other(bucket: S3Bucket) -> AsyncIterator[TableCatalog]:
    async for each in opened(bucket):
        yield each


class InBucket:
    @pytest.fixture
    async def catalogue(self, catalogue: TableCatalog) -> TableCatalog:
        return catalogue


class TestS3Catalogue(InBucket, CatalogueContract):
    pass


class TestS3Table(InBucket, TableContract):
    pass


async def test_of_two_processes_that_create_one_does(catalogue: TableCatalog, other: TableCatalog) -> None:
    outcomes = await asyncio.gather(
        *(each.create(definition(uid=f"u{i}")) for i, each in enumerate((catalogue, other, catalogue, other))),
        return_exceptions=True,
    )
    assert sorted(isinstance(outcome, CollectionExistsError) for outcome in outcomes) == [False, True, True, True]
    uids = {(await each.open("collections/photos")).definition.uid for each in (catalogue, other)}
    assert len(uids) == 1


async def test_what_one_process_writes_the_other_sees(catalogue: TableCatalog, other: TableCatalog) -> None:
    mine = await catalogue.create(definition())
    theirs = await other.open("collections/photos")
    version = await mine.write([row("x")], [], mine.version)
    assert await asyncio.wait_for(theirs.newer_than(version - 1), HANG_SECONDS) == version
    assert list((await theirs.get(["x"], NOTHING)).rows) == ["x"]


async def test_a_definition_whose_answer_was_lost_is_ours(bucket: S3Bucket) -> None:
    shelf = S3Shelf(bucket)
    shelf.publish(definition())
    shelf.publish(definition())
    with pytest.raises(CollectionExistsError):
        shelf.publish(definition(uid="u2"))


async def test_another_collection_of_the_name_is_not_retracted(bucket: S3Bucket) -> None:
    shelf = S3Shelf(bucket)
    shelf.publish(definition(uid="u2"))
    shelf.retract(definition(uid="u1"))
    assert shelf.definition("collections/photos") == definition(uid="u2")


async def test_a_start_removes_tables_that_a_crash_left_and_nothing_else(
    catalogue: TableCatalog, bucket: S3Bucket
) -> None:
    await catalogue.create(definition())
    bucket.put("rows/left.lance/data/x.lance", b"left")
    S3Shelf(bucket).heal()
    assert bucket.look_up("rows/left.lance/data/x.lance"), "it is young: another process may be creating it"
    S3Shelf(bucket, left_rows=timedelta(seconds=-10)).heal()
    assert not bucket.look_up("rows/left.lance/data/x.lance")
    assert await (await catalogue.open("collections/photos")).count() == 0


async def test_an_endpoint_that_is_away_is_told_in_time(options: S3Options) -> None:
    bucket = S3Bucket(replace(options, endpoint="127.0.0.1:9", timeout_seconds=1))
    with pytest.raises(ServiceUnavailableError):
        S3Shelf(bucket).names()
    bucket.close()
