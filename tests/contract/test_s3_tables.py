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
from services.store.adapters.lance.catalog import LanceCatalog
from services.store.adapters.lance.s3_directory import S3TableDirectory
from services.store.core.errors import CollectionExistsError
from services.store.core.rows import NO_FIELDS
from services.store.core.table import TableCatalog
from tests.contract.store_tables import CatalogContract, TableContract, row, schema
from tests.integration.s3_endpoint import fresh_options
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.s3

CACHE_BYTES = 16 * 2**20


async def open_catalog(bucket: S3Bucket) -> AsyncIterator[LanceCatalog]:
    """Give a catalog in the bucket, as another process has it."""
    async with (
        DeadlineExecutor("rows", 4, "object store", 20) as threads,
        BoundedExecutor("maintenance", 1) as maintenance,
    ):
        catalog = LanceCatalog(
            S3TableDirectory(bucket),
            executor=threads,
            maintenance_executor=maintenance,
            index_cache_bytes=CACHE_BYTES,
            metadata_cache_bytes=CACHE_BYTES,
        )
        async with catalog.running(poll_seconds=0.05):
            yield catalog


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
async def catalog(bucket: S3Bucket) -> AsyncIterator[TableCatalog]:
    async for each in open_catalog(bucket):
        yield each


@pytest.fixture
async def other(bucket: S3Bucket) -> AsyncIterator[TableCatalog]:
    async for each in open_catalog(bucket):
        yield each


class InBucket:
    @pytest.fixture
    async def catalog(self, catalog: TableCatalog) -> TableCatalog:
        return catalog


class TestS3Catalog(InBucket, CatalogContract):
    pass


class TestS3Table(InBucket, TableContract):
    pass


async def test_of_two_processes_that_create_one_does(catalog: TableCatalog, other: TableCatalog) -> None:
    outcomes = await asyncio.gather(
        *(each.create(schema(uid=f"u{i}")) for i, each in enumerate((catalog, other, catalog, other))),
        return_exceptions=True,
    )
    assert sorted(isinstance(outcome, CollectionExistsError) for outcome in outcomes) == [False, True, True, True]
    uids = {(await each.open("collections/photos")).schema.uid for each in (catalog, other)}
    assert len(uids) == 1


async def test_what_one_process_writes_the_other_sees(catalog: TableCatalog, other: TableCatalog) -> None:
    mine = await catalog.create(schema())
    theirs = await other.open("collections/photos")
    version = await mine.write([row("x")], [], mine.version)
    assert await asyncio.wait_for(theirs.wait_for_commit(version - 1), HANG_SECONDS) == version
    assert list((await theirs.get(["x"], NO_FIELDS)).rows) == ["x"]


async def test_a_definition_whose_answer_was_lost_is_ours(bucket: S3Bucket) -> None:
    directory = S3TableDirectory(bucket)
    directory.publish(schema())
    directory.publish(schema())
    with pytest.raises(CollectionExistsError):
        directory.publish(schema(uid="u2"))


async def test_another_collection_of_the_name_is_not_retracted(bucket: S3Bucket) -> None:
    directory = S3TableDirectory(bucket)
    directory.publish(schema(uid="u2"))
    directory.unpublish(schema(uid="u1"))
    assert directory.schema("collections/photos") == schema(uid="u2")


async def test_a_start_removes_tables_that_a_crash_left_and_nothing_else(
    catalog: TableCatalog, bucket: S3Bucket
) -> None:
    await catalog.create(schema())
    bucket.put("rows/left.lance/data/x.lance", b"left")
    S3TableDirectory(bucket).recover()
    assert bucket.look_up("rows/left.lance/data/x.lance"), "it is young: another process may be creating it"
    S3TableDirectory(bucket, orphan_age=timedelta(seconds=-10)).recover()
    assert not bucket.look_up("rows/left.lance/data/x.lance")
    assert await (await catalog.open("collections/photos")).count() == 0


async def test_an_endpoint_that_is_away_is_told_in_time(options: S3Options) -> None:
    bucket = S3Bucket(replace(options, endpoint="127.0.0.1:9", timeout_seconds=1))
    with pytest.raises(ServiceUnavailableError):
        S3TableDirectory(bucket).names()
    bucket.close()
