"""The search service restarts from its snapshots, or from the store where they cannot be used, and answers the same."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from medley.v1 import search_service_pb2 as pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.s3.bucket import S3Bucket
from tests.integration.fault_proxy import Answer, Change, FaultProxy
from tests.integration.s3_endpoint import fresh_options
from tests.integration.test_search_server import (
    PHOTOS,
    Photos,
    assert_right,
    changed,
    create,
    search_stub,
    store_process,
    store_stub,
    write,
)
from tests.waiting import HANG_SECONDS

LOADED, SAVED, BUILT = (
    f"of {PHOTOS} at",
    "INFO:services.search.snapshots.repository:saved",
    f"{PHOTOS} is built from the store",
)
LIMITED = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
RUN = "import runpy; runpy.run_module('services.search', run_name='__main__')"


@dataclass
class Search:
    """A search service that runs: its process, its stub, and what it has logged."""

    process: asyncio.subprocess.Process
    stub: Any
    log: Path

    @property
    def told(self) -> str:
        return self.log.read_text()

    async def tells(self, words: str) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while words not in self.told:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)

    async def ends(self, how: str) -> None:
        getattr(self.process, how)()
        async with asyncio.timeout(HANG_SECONDS):
            await self.process.wait()


class Suite:
    """A store with a collection, and searches that follow it and share their snapshots."""

    def __init__(self, folder: Path, store: Any, store_port: int) -> None:
        self.folder = folder
        self.store = store
        self.store_port = store_port
        self.photos = Photos()
        self.version = ""
        self.environment = {"SEARCH_SNAPSHOTS": "folder", "SEARCH_SNAPSHOTS_DIR": str(folder / "snapshots")}
        self.searches = 0

    @asynccontextmanager
    async def search(self, file_bytes: int = 0, **environment: str) -> AsyncIterator[Search]:
        """Run a search until the block ends; with `file_bytes`, it can write no larger files."""
        self.searches += 1
        path = self.folder / f"search-{self.searches}.log"
        settings = {"SEARCH_LISTEN": "127.0.0.1:0", "SEARCH_STORE_ADDRESS": f"127.0.0.1:{self.store_port}"}
        code = (LIMITED.format(file_bytes) if file_bytes else "") + RUN
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                env={**os.environ, **settings, **self.environment, **environment},
                stderr=log,
            )
        try:
            async with search_stub(await _port(process, path)) as stub:
                yield Search(process, stub, path)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def right(self, search: Search) -> None:
        await assert_right(search.stub, self.photos, self.version)

    async def grows(self, *ids: str) -> None:
        self.version = await write(self.store, self.photos, ids)

    def files(self) -> list[Path]:
        return sorted(path for path in (self.folder / "snapshots").rglob("*") if path.is_file())


async def _port(process: asyncio.subprocess.Process, log: Path) -> int:
    async with asyncio.timeout(HANG_SECONDS):
        while not (found := re.search(r"listens on port (\d+)", told := log.read_text())):  # noqa: ASYNC240
            assert process.returncode is None, told
            await asyncio.sleep(0.02)
    return int(found[1])


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[Suite]:
    async with store_process(tmp_path / "data") as (_, port), store_stub(port) as store:
        suite = Suite(tmp_path, store, port)
        await create(store, "v")
        suite.version = await changed(store, suite.photos)
        yield suite


@pytest.fixture
async def saved(suite: Suite) -> Suite:
    """The suite after a search has stopped, its snapshot saved."""
    async with suite.search() as search:
        await suite.right(search)
        await search.ends("terminate")
        assert SAVED in search.told
    return suite


def loaded(search: Search) -> bool:
    """Return whether its index came from a snapshot; else it says that it was built from the store."""
    came = bool(re.search(rf"loaded \d+ items of {PHOTOS}", search.told))
    assert came != (BUILT in search.told), search.told
    return came


async def test_a_restart_loads_the_snapshot_and_catches_up(saved: Suite) -> None:
    await saved.grows("written while it was away", "item 300")
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search)
        await saved.grows("written later")
        await saved.right(search)


async def test_without_snapshots_it_is_built_from_the_store_and_answers_the_same(saved: Suite) -> None:
    async with saved.search(SEARCH_SNAPSHOTS="off") as search:
        await saved.right(search)
        assert not loaded(search)


async def test_killed_at_any_moment_it_goes_on_from_the_last_whole_snapshot(saved: Suite) -> None:
    for attempt in range(4):
        async with saved.search(SEARCH_SNAPSHOT_SECONDS="0.001") as search:
            await saved.right(search)
            assert loaded(search)
            for number in range(5 * attempt + 1):
                await saved.grows(f"round {attempt}", f"item {number}")
            await asyncio.sleep(0.03 * attempt)
            await search.ends("kill")
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
async def test_a_damaged_file_is_told_and_the_index_is_built_from_the_store(saved: Suite, damage: str) -> None:
    for file in saved.files():
        whole = file.read_bytes()
        match damage:
            case "flip":
                middle = len(whole) // 2
                file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :])
            case "truncate":
                file.write_bytes(whole[:-1])
            case _ if not file.name.startswith("manifest"):
                file.unlink()
    async with saved.search() as search:
        await saved.right(search)
        assert not loaded(search)
        assert "WARNING" in search.told
        assert "is passed over" in search.told
        await search.ends("terminate")
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search), "the next snapshot was good"


async def test_a_half_written_snapshot_is_not_taken_for_one(saved: Suite) -> None:
    (manifest,) = (file for file in saved.files() if file.name == "manifest.json")
    half = manifest.parent.with_name(manifest.parent.name.replace("0000000001-", "0000000099-"))
    shutil.copytree(manifest.parent, half)
    (half / "manifest.json").rename(half / "manifest.json.0123.draft")
    await saved.grows("later")
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search)


async def test_no_room_is_told_and_the_last_snapshot_stays(saved: Suite) -> None:
    before = saved.files()
    largest = max(file.stat().st_size for file in before)
    await saved.grows(*(f"more {number}" for number in range(200)))
    async with saved.search(file_bytes=largest - 1, SEARCH_SNAPSHOT_SECONDS="0.05") as search:
        await saved.right(search)
        await search.tells("no space left at")
        await saved.right(search)
        await search.ends("terminate")
    assert saved.files() == before
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search)


async def test_a_folder_that_may_not_be_used_is_told_and_searches_go_on(suite: Suite) -> None:
    (suite.folder / "snapshots").write_text("a file where a folder should be")
    async with suite.search(SEARCH_SNAPSHOT_SECONDS="0.05") as search:
        await suite.right(search)
        await search.tells("WARNING:services.search.snapshots.scheduler:no snapshot")
        assert not loaded(search)
        await suite.grows("more")
        await suite.right(search)
        await search.ends("terminate")
    assert search.process.returncode == 0


async def test_a_collection_made_again_is_not_filled_from_the_snapshot_of_the_one_before(saved: Suite) -> None:
    await saved.store.DropTable(store_pb.DropTableRequest(name=PHOTOS))
    await create(saved.store, "v")
    saved.photos.forget(list(saved.photos.vectors))
    await saved.grows("new")
    async with saved.search() as search:
        await saved.right(search)
        assert not loaded(search)
        assert "made anew" in search.told
        await search.ends("terminate")
    assert len([file for file in saved.files() if file.name == "manifest.json"]) == 1


async def test_a_rebuild_is_from_the_store_and_its_snapshot_replaces_the_one_before(saved: Suite) -> None:
    before = set(saved.files())
    async with saved.search(SEARCH_SNAPSHOT_SECONDS="0.05") as search:
        await saved.right(search)
        assert loaded(search)
        await search.stub.RebuildIndex(pb.RebuildIndexRequest(collection=PHOTOS), timeout=20)
        assert BUILT in search.told
        await search.tells(SAVED)
        await saved.right(search)
        await search.ends("terminate")
    assert {file for file in saved.files() if file.name == "manifest.json"} - before


async def test_replicas_share_snapshots_while_both_save(saved: Suite) -> None:
    saved.environment["SEARCH_SNAPSHOT_SECONDS"] = "0.02"
    for attempt in range(2):
        async with saved.search() as one, saved.search() as other:
            for number in range(10):
                await saved.grows(f"round {attempt}", f"item {number}")
                await saved.right(one)
                await saved.right(other)
            assert loaded(one)
            assert loaded(other)
            await asyncio.gather(one.ends("terminate"), other.ends("kill"))
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search)


async def test_nothing_of_what_was_deleted_is_left_once_its_snapshots_are_dropped(saved: Suite) -> None:
    deletion = store_pb.DeleteRowsRequest(collection=PHOTOS, ids=store_pb.ItemIds(ids=["item 77"]))
    saved.photos.forget(["item 77"])
    async with saved.search() as search:
        saved.version = (await saved.store.DeleteRows(deletion)).version
        await saved.right(search)
        drop = pb.DropSnapshotsRequest(collection=PHOTOS, version=saved.version)
        assert (await search.stub.DropSnapshots(drop)).removed == 1
        assert saved.files() == []
        assert (await search.stub.DropSnapshots(drop)).removed == 0
        await saved.right(search)
        for wrong in (
            pb.DropSnapshotsRequest(collection=PHOTOS),
            pb.DropSnapshotsRequest(collection="x", version="a.1"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await search.stub.DropSnapshots(wrong)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await search.ends("terminate")
    async with saved.search() as search:
        await saved.right(search)
        assert loaded(search)


def s3_settings(options: Any, **others: str) -> dict[str, str]:
    return {
        "SEARCH_SNAPSHOTS": "s3",
        "SEARCH_S3_ENDPOINT": options.endpoint,
        "SEARCH_S3_BUCKET": options.bucket,
        "SEARCH_S3_PREFIX": options.prefix,
        "SEARCH_S3_ACCESS_KEY": options.access_key,
        "SEARCH_S3_SECRET_KEY": options.secret_key,
        "SEARCH_S3_REGION": options.region,
        "SEARCH_S3_SECURE": str(options.secure),
        **others,
    }


@pytest.fixture
async def in_bucket(suite: Suite) -> AsyncIterator[tuple[Suite, FaultProxy]]:
    """A suite with its snapshot in a bucket, behind a proxy."""
    options = fresh_options()
    if options.secure:
        pytest.skip("the proxy does not speak TLS")
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(options.endpoint))
        suite.environment = s3_settings(options, SEARCH_S3_TIMEOUT_SECONDS="1")
        async with suite.search() as search:
            await suite.right(search)
            await search.ends("terminate")
            assert SAVED in search.told
        suite.environment["SEARCH_S3_ENDPOINT"] = proxy.address
        yield suite, proxy
        bucket = S3Bucket(options)
        bucket.remove_all([entry.path for entry in bucket.entries("")])
        bucket.close()


@pytest.mark.s3
async def test_from_a_bucket_a_restart_loads_and_catches_up(in_bucket: tuple[Suite, FaultProxy]) -> None:
    suite, _ = in_bucket
    await suite.grows("written while it was away")
    async with suite.search() as search:
        await suite.right(search)
        assert loaded(search)


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["away", "changed"])
async def test_a_bucket_that_fails_is_told_and_the_index_is_built_from_the_store(
    in_bucket: tuple[Suite, FaultProxy], fault: str
) -> None:
    suite, proxy = in_bucket
    if fault == "away":
        proxy.rule = lambda request: Answer(503)
    else:
        damage = Change(lambda answer: answer[:-1] + b"!")
        proxy.rule = lambda request: damage if re.fullmatch(r"[^?]*\.f32", request.target) else None
    async with suite.search(SEARCH_SNAPSHOT_SECONDS="0.05") as search:
        await suite.right(search)
        assert not loaded(search)
        assert "WARNING" in search.told
        if fault == "away":
            await suite.grows("more")
            await search.tells(f"no snapshot of {PHOTOS} is saved: object store")
        await suite.right(search)
        proxy.rule = lambda _: None
        await search.ends("terminate")
    async with suite.search() as search:
        await suite.right(search)
        assert loaded(search)
