"""The asynchronous client proves, reads back, restores and erases as the other one does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from medley import CheckProgress, NewItem, PreconditionError
from medley.aio import Client
from tests.integration.conversation import picture
from tests.integration.suite import Suite, one_process


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    folder: Path = tmp_path_factory.mktemp("data")
    with one_process(folder) as running:
        yield running


async def filled(client: Client, name: str) -> None:
    await client.create_collection(name)
    items = [NewItem("a", "one", picture(1)), NewItem("b", "two")]
    assert all([each.ok async for each in client.ingest(name, items)])


async def test_a_check_tells_how_far_it_is(suite: Suite) -> None:
    async with Client(suite.addresses["gateway"]) as client:
        await filled(client, "checked")
        *_, last = [part async for part in client.check("checked", media_sample=None)]
        assert isinstance(last, CheckProgress)
        assert (last.done, last.rows, last.media_read, last.vectors_compared) == (True, 2, 1, 3)


async def test_tags_and_reads_as_of_them(suite: Suite) -> None:
    async with Client(suite.addresses["gateway"]) as client:
        await filled(client, "tagged")
        tag = await client.tag("tagged", "before")
        assert await client.tags("tagged") == (tag,)
        await client.delete("tagged", ["a"])
        assert (await client.get("tagged", "a", as_of="before")).text == "one"
        assert [item.id async for item in client.list("tagged", as_of=tag.version)] == ["a", "b"]
        assert (await client.count("tagged", as_of="before"), await client.count("tagged")) == (2, 1)
        await client.delete_tag("tagged", "before")
        assert await client.tags("tagged") == ()


async def test_items_are_restored_under_their_fingerprint_alone(suite: Suite) -> None:
    async with Client(suite.addresses["gateway"]) as client:
        await filled(client, "source")
        source = await client.collection("source")
        fingerprints = {space.name: space.fingerprint for space in source.spaces}
        items = [item async for item in client.list("source", fields=["text", "metadata", "media", "vectors"])]
        await client.create_collection("target")
        assert all(each.ok for each in await client.restore("target", items, fingerprints))
        again = [item async for item in client.list("target", fields=["text", "metadata", "media", "vectors"])]
        assert again == items
        assert (await client.search("target", text="two", space="text")).hits[0].id == "b"
        with pytest.raises(PreconditionError) as foreign:
            await client.restore("target", items, dict.fromkeys(fingerprints, "another"))
        assert foreign.value.reason == "FINGERPRINT_MISMATCH"


async def test_erased_items_have_receipts(suite: Suite) -> None:
    async with Client(suite.addresses["gateway"]) as client:
        await filled(client, "erased")
        (receipt,) = await client.erase("erased", ["b"])
        assert (receipt.collection, receipt.id, receipt.existed, receipt.complete) == ("erased", "b", True, True)
        assert await client.count("erased") == 1
        (never,) = await client.erase("erased", ["never"])
        assert (never.existed, never.complete) == (False, False)
