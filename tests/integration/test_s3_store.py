"""The store with rows and media in a bucket: two processes, a server that dies, endpoints that will not do."""

import asyncio
import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3
from grpc_status import rpc_status

from medley.v1 import item_pb2
from medley.v1 import store_service_pb2 as pb
from medley.v1 import store_service_pb2_grpc as pb_grpc
from services.common.s3.bucket import S3Bucket
from services.common.s3.options import S3Options
from services.store.adapters.s3_preflight import make_ready
from services.store.core.startup import CannotStartError
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.integration.fault_proxy import SLOW_DOWN, Answer, Change, Delay, FaultProxy
from tests.integration.s3_endpoint import MinioServer, fresh_options, minio_server, store_settings
from tests.integration.suite import command, free_address
from tests.integration.test_store_server import (
    PHOTOS,
    PNG,
    Stub,
    create,
    info,
    item,
    refusal,
    row,
    serving,
    upsert,
    written,
)
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.s3

TIMEOUT_SECONDS = 3.0


@pytest.fixture
def options() -> S3Options:
    return fresh_options()


def config(options: S3Options, **changes: Any) -> StoreSettings:
    fields = {name.removeprefix("STORE_").lower(): value for name, value in store_settings(options).items()}
    quick = {"s3_timeout_seconds": TIMEOUT_SECONDS, "s3_read_timeout_seconds": 1, "poll_seconds": 0.05}
    return StoreSettings(**{"listen": "127.0.0.1:0", "drain_seconds": 0, **fields, **quick, **changes})


@contextlib.asynccontextmanager
async def store(settings: StoreSettings) -> AsyncIterator[Stub]:
    async with store_servicer(settings) as servicer, serving(servicer, settings) as stub:
        yield stub


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # takes what an aio error has as well
    assert status, error
    return info(status)[0]


async def written_at_last(stub: Stub, each: pb.Row) -> None:
    """Write a row, again and again while nobody answers."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                await written(stub, each)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


async def listed(stub: Stub) -> dict[str, int]:
    """Return the revisions by id; an id that comes twice fails."""
    revisions: list[tuple[str, int]] = []
    token = ""
    while True:
        page = await stub.ListRows(pb.ListRowsRequest(collection=PHOTOS, page_size=1000, page_token=token))
        revisions += [(each.id, each.revision) for each in page.items]
        token = page.next_page_token
        if not token:
            break
    assert len(dict(revisions)) == len(revisions)
    return dict(revisions)


class TestTwoProcesses:
    @pytest.fixture
    def addresses(self, options: S3Options) -> Iterator[list[str]]:
        addresses = [free_address(), free_address()]
        environment = {**store_settings(options), "STORE_POLL_SECONDS": "0.05", "STORE_TIDY_SECONDS": "0.5"}
        processes = [command("services.store", {**environment, "STORE_LISTEN": address}) for address in addresses]
        try:
            yield addresses
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                assert process.wait(HANG_SECONDS) == 0

    async def test_none_is_lost_and_none_comes_twice(self, addresses: list[str]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stubs = [await stack.enter_async_context(connected(address)) for address in addresses]
            await stubs[0].CreateTable(create())

            async def write(stub: Stub, writer: int) -> None:
                for number in range(8):
                    own = [f"{writer}-{number}-{i}" for i in range(4)]
                    await written(stub, *map(row, own), row(f"both-{number}"))

            await asyncio.gather(*(write(stub, writer) for writer, stub in enumerate((*stubs, *stubs))))
            expected = {f"{writer}-{number}-{i}": 1 for writer in range(4) for number in range(8) for i in range(4)}
            expected |= {f"both-{number}": 4 for number in range(8)}
            for stub in stubs:
                async with asyncio.timeout(HANG_SECONDS):
                    while await listed(stub) != expected:  # noqa: ASYNC110  # nobody sets an event for it
                        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(address) as channel:
        async with asyncio.timeout(HANG_SECONDS):
            await channel.channel_ready()
        yield pb_grpc.StoreServiceStub(channel)


class TestServerThatDies:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[MinioServer]:
        server = minio_server(tmp_path / "minio")
        server.start()
        bucket = S3Bucket(server.options)
        make_ready(bucket, create=True)
        bucket.close()
        yield server
        server.kill()

    async def test_what_was_acknowledged_is_there_and_writing_goes_on(self, server: MinioServer) -> None:
        acknowledged: dict[str, str] = {}
        refusals: set[str] = set()

        async def write(stub: Stub, writer: int) -> None:
            number = 0
            while number < 1000 and not (refusals and len(acknowledged) > enough):
                content = PNG + f"{writer} {number}".encode()
                ids = [f"{writer}-{number}-{i}" for i in range(3)]
                try:
                    media = item_pb2.Media(data=content)
                    results = await upsert(stub, *(row(item_id, media=media) for item_id in ids))
                except grpc.aio.AioRpcError as error:
                    refusals.add(reason(error))
                    continue
                errors = {info(result.error)[0] for result in results if result.HasField("error")}
                if errors:
                    refusals.update(errors)
                    continue
                acknowledged.update(dict.fromkeys(ids, hashlib.sha256(content).hexdigest()))
                number += 1

        enough = 10_000
        async with store(config(server.options)) as stub:
            await stub.CreateTable(create())
            writers = [asyncio.create_task(write(stub, writer)) for writer in range(3)]
            await until(lambda: len(acknowledged) > 30)
            server.kill()
            await until(lambda: bool(refusals))
            server.start()
            enough = len(acknowledged) + 30
            await asyncio.gather(*writers)
            assert len(acknowledged) > enough
            assert refusals == {"SERVICE_UNAVAILABLE"}
        async with store(config(server.options)) as stub:
            assert set(acknowledged) <= set(await listed(stub))
            for item_id in list(acknowledged)[::7]:
                read = await item(stub, item_id, item_pb2.ITEM_FIELD_MEDIA_DATA)
                assert hashlib.sha256(read.media.data).hexdigest() == acknowledged[item_id]


async def until(condition: Any) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110  # nobody sets an event for it
            await asyncio.sleep(0.05)


class TestOutages:
    @pytest.fixture
    async def proxy(self, options: S3Options) -> AsyncIterator[FaultProxy]:
        if options.secure:
            pytest.skip("the proxy does not speak TLS")
        async with FaultProxy(options.endpoint) as proxy:
            yield proxy

    @pytest.mark.parametrize("fault", [Answer(503, SLOW_DOWN), Delay(600)])
    async def test_every_call_is_answered_in_time(
        self, options: S3Options, proxy: FaultProxy, fault: Answer | Delay
    ) -> None:
        async with store(config(replace(options, endpoint=proxy.address), poll_seconds=60)) as stub:
            await stub.CreateTable(create())
            await written(stub, row("x", media=item_pb2.Media(data=PNG)))
            sha256 = hashlib.sha256(PNG).hexdigest()
            proxy.rule = lambda _: fault
            for call in (
                stub.UpsertRows(pb.UpsertRowsRequest(collection=PHOTOS, rows=[row("y")]), timeout=HANG_SECONDS),
                stub.DeleteRows(
                    pb.DeleteRowsRequest(collection=PHOTOS, ids=pb.ItemIds(ids=["x"])), timeout=HANG_SECONDS
                ),
                stub.ListTables(pb.ListTablesRequest(), timeout=HANG_SECONDS),
                stub.ReadMedia(pb.ReadMediaRequest(sha256=sha256), timeout=HANG_SECONDS).read(),
                stub.CreateTable(create("collections/other"), timeout=HANG_SECONDS),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value
                assert reason(caught.value) == "SERVICE_UNAVAILABLE"
            proxy.rule = lambda _: None
            await written_at_last(stub, row("y"))
            # A write that was under way when it was given up may have been done all the same.
            assert set(await listed(stub)) - {"x"} == {"y"}

    async def test_an_endpoint_that_ignores_conditions_is_refused(self, options: S3Options, proxy: FaultProxy) -> None:
        refused = b"HTTP/1.1 412 Precondition Failed"
        taken = Change(lambda answer: answer.replace(refused, b"HTTP/1.1 200 OK"))
        proxy.rule = lambda request: taken if "if-none-match" in request.headers else None
        with pytest.raises(CannotStartError, match="If-None-Match"):
            async with store(config(replace(options, endpoint=proxy.address))):
                pass
        assert proxy.faults["Change"] == 2


async def test_media_that_nothing_refers_to_are_removed_and_others_stay(options: S3Options) -> None:
    orphan, kept = PNG + b"orphan", PNG + b"kept"
    hashes = [hashlib.sha256(content).hexdigest() for content in (orphan, kept)]
    async with store(config(options, collect_seconds=0.5, media_grace_seconds=3)) as stub:
        await stub.CreateTable(create())
        await written(stub, row("x", media=item_pb2.Media(data=kept)), row("y", media=item_pb2.Media(data=orphan)))
        await written(stub, row("y"))

        async def there(sha256: str) -> bool:
            return bool((await stub.ReadMedia(pb.ReadMediaRequest(sha256=sha256)).read()) is not grpc.aio.EOF)

        assert await there(hashes[0])
        async with asyncio.timeout(HANG_SECONDS):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await there(hashes[0]):  # noqa: ASYNC110  # nobody sets an event for it
                    await asyncio.sleep(0.2)
        assert reason(caught.value) == "MEDIA_NOT_FOUND"
        assert await there(hashes[1])


class TestUrls:
    async def test_media_in_a_bucket_have_urls(self, options: S3Options) -> None:
        sha256 = hashlib.sha256(PNG).hexdigest()
        async with store(config(options)) as stub:
            await stub.CreateTable(create())
            await written(stub, row("x", media=item_pb2.Media(data=PNG)))
            request = pb.PresignMediaRequest(sha256=sha256, expires_seconds=60, mime_type="image/png")
            url = (await stub.PresignMedia(request)).url
            answer = await asyncio.to_thread(urllib3.request, "GET", url)
            assert (answer.data, answer.headers["content-type"]) == (PNG, "image/png")
            for wrong, expected in (
                ({"sha256": "00" * 32}, "MEDIA_NOT_FOUND"),
                ({"sha256": "ABC"}, "ARGUMENT_INVALID"),
                ({"expires_seconds": -1}, "ARGUMENT_INVALID"),
                ({"expires_seconds": 604_801}, "ARGUMENT_INVALID"),
            ):
                changed = pb.PresignMediaRequest(**{"sha256": sha256, **wrong})  # type: ignore[arg-type]
                assert await refusal(stub.PresignMedia(changed)) == expected

    async def test_media_in_a_folder_have_none(self, options: S3Options, tmp_path: Path) -> None:
        async with store(config(options, rows="lance", media="folder", directory=tmp_path)) as stub:
            request = pb.PresignMediaRequest(sha256="00" * 32)
            assert await refusal(stub.PresignMedia(request)) == "MEDIA_WITHOUT_URL"


class TestStart:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"s3_secret_key": "wrong"}, "STORE_S3_SECRET_KEY"),
            ({"s3_access_key": "nobody"}, "STORE_S3_ACCESS_KEY"),
            ({"s3_bucket": "medley-no-such-bucket"}, "STORE_S3_CREATE_BUCKET"),
            ({"s3_bucket": "Not A Bucket"}, "Not A Bucket"),
            ({"s3_endpoint": "127.0.0.1:9"}, "nothing answers"),
            ({"s3_secure": True}, "STORE_S3_SECURE"),
        ],
    )
    async def test_what_will_not_do_is_told(self, options: S3Options, changes: dict[str, Any], told: str) -> None:
        if options.secure and "s3_secure" in changes:
            pytest.skip("the endpoint speaks TLS")
        with pytest.raises(CannotStartError, match=told) as caught:
            async with store(config(options, **changes)):
                pass
        assert "\n" not in str(caught.value)

    async def test_keys_may_come_from_the_environment(
        self, options: S3Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", options.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options.secret_key)
        async with store(config(options, s3_access_key="", s3_secret_key="")) as stub:
            await stub.CreateTable(create())
            await written(stub, row("x", media=item_pb2.Media(data=PNG)))
            assert await listed(stub) == {"x": 1}

    def test_the_process_says_so_in_a_line_and_fails(self, options: S3Options) -> None:
        environment = {**store_settings(options), "STORE_S3_SECRET_KEY": "wrong", "STORE_LISTEN": "127.0.0.1:0"}
        process = command("services.store", environment, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode == 1
        assert errors.splitlines()[-1].startswith("store cannot start: bucket ")
        assert "Traceback" not in errors

    def test_certificates_of_ones_own_are_trusted_where_they_are_named(self, tmp_path: Path) -> None:
        server = minio_server(tmp_path / "minio")
        certificate = server.speak_tls()
        try:
            server.start()
            options = replace(server.options, prefix="tls")
            environment = {
                **store_settings(options),
                "STORE_S3_CREATE_BUCKET": "true",
                "STORE_LISTEN": free_address(),
            }
            untrusting = command("services.store", environment, stderr=subprocess.PIPE)
            _, errors = untrusting.communicate(timeout=HANG_SECONDS)
            assert "STORE_S3_CA_FILE" in errors.splitlines()[-1]
            trusting = command("services.store", {**environment, "STORE_S3_CA_FILE": str(certificate)})
            with grpc.insecure_channel(environment["STORE_LISTEN"]) as channel:
                grpc.channel_ready_future(channel).result(60)
                stub = pb_grpc.StoreServiceStub(channel)
                stub.CreateTable(create())
                media = item_pb2.Media(data=PNG)
                answer = stub.UpsertRows(pb.UpsertRowsRequest(collection=PHOTOS, rows=[row("x", media=media)]))
                assert answer.results[0].HasField("written")
            trusting.terminate()
            assert trusting.wait(HANG_SECONDS) == 0
        finally:
            server.kill()

    @pytest.mark.parametrize("rows", ["s3", "lance"])
    async def test_rows_may_be_in_a_folder_and_media_in_a_bucket(
        self, options: S3Options, tmp_path: Path, rows: str
    ) -> None:
        async with store(config(options, rows=rows, directory=tmp_path)) as stub:
            await stub.CreateTable(create())
            await written(stub, row("x", media=item_pb2.Media(data=PNG)))
            assert (await item(stub, "x", item_pb2.ITEM_FIELD_MEDIA_DATA)).media.data == PNG
        assert (tmp_path / "rows").exists() is (rows == "lance")

    async def test_a_bucket_is_made_where_that_is_allowed(self, options: S3Options) -> None:
        changed = replace(options, bucket=f"{options.bucket}-{time.time_ns()}")
        async with store(config(changed, s3_create_bucket=True)) as stub:
            await stub.CreateTable(create())
        bucket = S3Bucket(changed)
        bucket.remove_all([entry.path for entry in bucket.entries("")])
        bucket.client.remove_bucket(changed.bucket)
        bucket.close()


@pytest.fixture
def server_on_a_small_disk(tmp_path: Path) -> Iterator[MinioServer]:
    server = minio_server(tmp_path / "disk")
    server.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(server.folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        server.start()
        yield server
    finally:
        server.kill()
        subprocess.run(["umount", str(server.folder)], check=True)


async def test_a_full_disk_is_told(server_on_a_small_disk: MinioServer) -> None:
    server = server_on_a_small_disk
    async with store(config(server.options, s3_create_bucket=True)) as stub:
        await stub.CreateTable(create())
        reasons: set[str] = set()
        for number in range(60):
            media = item_pb2.Media(data=PNG + os.urandom(4 * 2**20), mime_type="image/png")
            (result,) = await upsert(stub, row(f"{number}", media=media))
            if result.HasField("error"):
                reasons.add(info(result.error)[0])
                break
        assert reasons == {"STORAGE_FULL"}
        assert len(await listed(stub)) == number
