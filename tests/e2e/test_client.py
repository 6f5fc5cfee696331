"""Both clients against a suite that runs."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from uuid import uuid4

import numpy as np
import pytest

import medley
from medley import Arm, Client, NewItem, Space, aio
from medley.demo.catalogue import Product
from tests.e2e.commands import environment
from tests.integration.suite import ROOT


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as connected:
        yield connected


@pytest.fixture
def name(client: Client) -> Iterator[str]:
    """Name of a collection for one test."""
    name = f"t-{uuid4().hex[:12]}"
    client.create_collection(name)
    yield name
    client.drop_collection(name)


def new_items(products: list[Product]) -> Iterator[NewItem]:
    return (NewItem(each.id, each.description, each.picture, each.metadata) for each in products)


def test_a_search_sees_what_was_written_just_before(client: Client, name: str) -> None:
    for number in range(20):
        (result,) = client.ingest(name, [NewItem(f"item {number}", text=f"Number {number}.")])
        assert result.ok
        assert f"item {number}" in [hit.id for hit in client.search(name, text="number", top_k=100)]
    client.delete(name, ["item 3"])
    assert "item 3" not in [hit.id for hit in client.search(name, text="number", top_k=100)]


def test_a_collection_made_anew_is_searched_without_the_old_token(server: str, client: Client, name: str) -> None:
    list(client.ingest(name, [NewItem("a", text="old")]))
    with Client(server) as other:
        other.drop_collection(name)
        other.create_collection(name)
        list(other.ingest(name, [NewItem("b", text="new")]))
        assert [hit.id for hit in other.search(name, text="new")] == ["b"]
    assert [hit.id for hit in client.search(name, text="new")] == ["b"]


def test_every_kind_of_query_finds_and_explains(client: Client, name: str, products: list[Product]) -> None:
    assert all(result.ok for result in client.ingest(name, new_items(products)))
    mug = next(product for product in products if product.name == "Blue mug")
    by_image = client.search(name, image=mug.picture, top_k=1)
    assert by_image.hits[0].id == mug.id
    (report,) = by_image.arms
    assert (report.space, report.metric, report.mode, report.candidates) == ("clip", "cosine", "exact", len(products))
    assert mug.id not in [hit.id for hit in client.search(name, item=mug.id, top_k=100)]
    vector = client.get(name, mug.id, fields=["vectors"]).vectors["clip"]
    assert client.search(name, vector=vector, space="clip").hits[0].id == mug.id
    both = client.search(name, text=mug.description, image=mug.picture, weights={"image": 3}, where={"colour": "blue"})
    assert both.hits[0].id == mug.id
    assert [(arm.request_arm, arm.weight) for arm in both.arms] == [(0, 1), (0, 1), (1, 3)]
    arms = client.search(name, arms=[Arm(text="mug", space="text"), Arm(item=mug.id, space="clip", weight=2)])
    assert [(arm.space, arm.weight) for arm in arms.arms] == [("text", 1), ("clip", 2)]


def test_vectors_of_ones_own_are_searched(client: Client) -> None:
    own = f"t-{uuid4().hex[:12]}"
    client.create_collection(own, [Space("own", dimensions=3, metric="euclidean")])
    items = [NewItem("x", vectors={"own": [1, 0, 0]}), NewItem("y", vectors={"own": np.array([0, 1, 0])})]
    results = list(client.ingest(own, [*items, NewItem("z", vectors={"own": [1, 2]})]))
    assert [result.error and result.error.reason for result in results] == [None, None, "DIMENSION_MISMATCH"]
    hits = client.search(own, vector=[0.9, 0, 0], space="own")
    assert [(hit.id, round(hit.arms[0].score, 3)) for hit in hits] == [("x", 0.1), ("y", 1.345)]
    client.drop_collection(own)


def test_media_come_back_as_they_went(client: Client, name: str, products: list[Product]) -> None:
    picture = products[0].picture
    media = client.upload_media(iter([picture[:1000], picture[1000:]]))
    (result,) = client.ingest(name, [NewItem("a", media=media)])
    assert result.ok
    stored = client.get(name, "a", fields=["media_data"]).media
    assert stored is not None
    assert (stored.data, stored.sha256, stored.mime_type) == (picture, media.sha256, "image/jpeg")
    assert b"".join(client.download_media(media.sha256)) == picture
    assert b"".join(client.download_media(media.sha256, offset=10, length=20)) == picture[10:30]
    with pytest.raises(medley.NotFoundError) as caught:
        list(client.download_media("0" * 64))
    assert caught.value.reason == "MEDIA_NOT_FOUND"


def test_items_are_looked_up_listed_counted_and_changed(client: Client, name: str) -> None:
    items = [
        NewItem(f"{number:03}", text=f"Text {number}", metadata={"even": number % 2 == 0}) for number in range(250)
    ]
    assert all(result.ok for result in client.ingest(name, items))
    found = client.get_many(name, ["003", "nobody", "001"])
    assert [lookup.item and lookup.item.id for lookup in found] == ["003", None, "001"]
    assert isinstance(found[1].error, medley.NotFoundError)
    assert [item.id for item in client.list(name, where={"even": True}, page_size=60)] == [
        f"{number:03}" for number in range(0, 250, 2)
    ]
    page = client.list_page(name, page_size=100)
    assert client.list_page(name, page_size=100, page_token=page.next_page_token).values[0].id == "100"
    assert client.count(name, where='{"even": false}') == 125
    changed = client.update(name, "003", merge={"even": None, "new": [1, "ä"]}, expected_revision=1)
    assert (changed.metadata, changed.text, changed.revision) == ({"new": [1, "ä"]}, "Text 3", 2)
    with pytest.raises(medley.ConflictError) as caught:
        client.update(name, "003", text="x", expected_revision=1)
    assert caught.value.reason == "REVISION_MISMATCH"
    assert client.delete(name, where={"even": True}) == 125
    assert client.delete(name, ["001", "001", "nobody"]) == 1
    assert client.count(name) == 124


async def test_the_asynchronous_client_does_the_same(server: str, products: list[Product]) -> None:
    name = f"t-{uuid4().hex[:12]}"

    async def items() -> AsyncIterator[NewItem]:
        for item in new_items(products):
            yield item

    async with aio.Client(server) as client:
        await client.create_collection(name)
        results = [result async for result in client.ingest(name, items())]
        assert [result.id for result in results if result.ok] == [product.id for product in products]
        hits = await client.search(name, image=products[0].picture, top_k=1)
        assert hits.hits[0].id == products[0].id
        item = await client.get(name, products[0].id)
        assert item.media is not None
        blocks = [block async for block in client.download_media(item.media.sha256)]
        assert b"".join(blocks) == products[0].picture
        assert len([each async for each in client.list(name, page_size=7)]) == len(products)
        async with aclosing(client.ingest(name, items())) as some:
            async for result in some:
                assert result.revision == 2
                break
        assert await client.delete(name, where={}) == len(products)
        await client.drop_collection(name)
        with pytest.raises(medley.NotFoundError):
            await client.collection(name)


def test_the_quickstart_runs(server: str) -> None:
    command = [sys.executable, str(ROOT / "examples/quickstart.py"), server]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("60 items, 0 refused\n")
    assert len(done.stdout.splitlines()) == 5
