"""One ranking read in pages: whole, in order, in one version, whatever is written meanwhile."""

import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest

from medley.v1 import search_service_pb2 as pb
from medley.v1 import vector_pb2
from services.common.errors import (
    ArgumentError,
    CollectionNotFoundError,
    OverloadedError,
    ServiceError,
    TokenError,
    VersionExpiredError,
    VersionUnknownError,
)
from services.common.filter_codec import from_json, to_message
from services.common.rpc.client import InProcessStub, call
from services.common.vectors import to_bytes
from services.common.versions import Version
from services.search.collection import versions
from services.search.core.change_feed import Table
from services.search.core.collection_index import Search
from services.search.core.errors import LeaseExpiredError
from services.search.query.cursors import PageToken
from services.search.servicer import SearchServicer
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer_over
from tests.support.change_feed import MemoryChangeFeed
from tests.unit.search.feeds import DEEP, FLAT, ORIGIN, PHOTOS, batch, found_by, make_index
from tests.waiting import LoopClock, until_raises

ITEMS = {f"i{offset:03}": float(offset // 3) for offset in range(100)}
"""Three at a time tie."""


@pytest.fixture
def store() -> MemoryChangeFeed:
    feed = MemoryChangeFeed()
    feed.create(PHOTOS, [FLAT, DEEP])
    feed.commit(PHOTOS, batch(ITEMS, metadata='{"old": true}'))
    return feed


def serving(store: MemoryChangeFeed, **settings: Any) -> AbstractAsyncContextManager[SearchServicer]:
    return search_servicer_over(SearchSettings(**{"wait_seconds": 0.2, **settings}), store)


@pytest.fixture
async def stub(store: MemoryChangeFeed) -> AsyncIterator[InProcessStub]:
    async with serving(store, max_cursors=2) as servicer:
        yield InProcessStub(servicer)


def request(**fields: Any) -> pb.SearchIndexRequest:
    vector = vector_pb2.Vector(float32_le=to_bytes(ORIGIN))
    return pb.SearchIndexRequest(
        **{"collection": PHOTOS, "space": "flat", "vector": vector, "top_k": 7, "paged": True, **fields}
    )


async def page(stub: InProcessStub, **fields: Any) -> pb.SearchIndexResponse:
    response: pb.SearchIndexResponse = await call("search", stub.SearchIndex, request(**fields))
    return response


async def pages(stub: InProcessStub, **fields: Any) -> list[pb.SearchIndexResponse]:
    read = [await page(stub, **fields)]
    while read[-1].next_page_token:
        read.append(await page(stub, **{**fields, "page_token": read[-1].next_page_token}))
    return read


def told(*read: pb.SearchIndexResponse) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for response in read for hit in response.hits]


RANKED = sorted(ITEMS.items(), key=lambda item: (item[1], item[0]))


@pytest.mark.parametrize("top_k", [1, 7, 50, 99, 100, 1000])
async def test_the_pages_together_are_the_ranking(stub: InProcessStub, top_k: int) -> None:
    read = await pages(stub, top_k=top_k)
    assert told(*read) == RANKED
    assert [len(each.hits) for each in read] == [top_k] * (100 // top_k) + [100 % top_k] * (100 % top_k > 0)
    assert {(each.version, each.candidates, each.mode) for each in read} == {("uid1.1", 100, pb.SEARCH_MODE_EXACT)}


async def test_pages_go_on_in_their_version_while_everything_is_written_anew(
    stub: InProcessStub, store: MemoryChangeFeed
) -> None:
    read = [await page(stub)]
    while token := read[-1].next_page_token:
        gone = f"i{len(read):03}"
        version = store.commit(
            PHOTOS,
            batch({item: 50 - offset for item, offset in ITEMS.items()}, deleted=[gone], metadata='{"old": false}'),
        )
        fresh = await page(stub, paged=False, version=str(version), top_k=1)
        assert fresh.version == str(version)
        read.append(await page(stub, page_token=token, version=str(version)))
    assert told(*read) == RANKED
    assert {each.version for each in read} == {"uid1.1"}


async def test_filters_ids_and_limits_hold_on_every_page(stub: InProcessStub, store: MemoryChangeFeed) -> None:
    version = str(
        store.commit(PHOTOS, batch({f"new{offset}": offset for offset in range(20)}, metadata='{"old": false}'))
    )
    old = to_message(from_json('{"old": true}'))
    assert told(*await pages(stub, version=version, filter=old)) == RANKED
    ids = [item for item, _ in RANKED[::5]]
    assert told(*await pages(stub, version=version, ids=ids, top_k=3)) == RANKED[::5]
    near = [item for item in RANKED if item[1] <= 9.5]
    read = await pages(stub, version=version, filter=old, score_limit=9.5, top_k=10)
    assert (told(*read), len(read)) == (near, 3)
    assert {each.candidates for each in read} == {100}


async def test_a_page_can_be_read_again_and_be_of_another_size(stub: InProcessStub) -> None:
    first = await page(stub)
    second = await page(stub, page_token=first.next_page_token)
    third = await page(stub, page_token=second.next_page_token, top_k=60)
    again = await page(stub, page_token=first.next_page_token)
    assert (told(again), again.next_page_token) == (told(second), second.next_page_token)
    assert told(first, second, third) == RANKED[:74]
    last = await page(stub, page_token=third.next_page_token, top_k=60)
    assert last.next_page_token == ""
    assert told(await page(stub, page_token=third.next_page_token, top_k=60)) == told(last)


async def test_what_fits_on_one_page_keeps_nothing(stub: InProcessStub) -> None:
    for _ in range(5):
        assert (await page(stub, top_k=100)).next_page_token == ""


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"page_token": "nonsense"}, TokenError, {"token": "nonsense"}),
        ({"page_token": "a-b-c-d.1"}, TokenError, {"token": "a-b-c-d.1"}),
        ({"page_token": "ab-cd-3-uid1"}, TokenError, {"token": "ab-cd-3-uid1"}),
        ({"page_token": "ab-cd-3-uid1.7"}, VersionExpiredError, {"collection": PHOTOS, "version": "uid1.7"}),
        ({"space": "deep"}, TokenError, {"field": "space"}),
        ({"vector": vector_pb2.Vector(float32_le=bytes(4) + b"\0\0\x80\x3f")}, TokenError, {"field": "vector"}),
        ({"fingerprint": "made by hand"}, TokenError, {"field": "fingerprint"}),
        ({"filter": to_message(from_json('{"n": 1}'))}, TokenError, {"field": "filter"}),
        ({"ids": ["i001"]}, TokenError, {"field": "ids"}),
        ({"score_limit": 3.0}, TokenError, {"field": "score_limit"}),
        ({"exact": True}, TokenError, {"field": "exact"}),
        ({"top_k": -1}, ArgumentError, {"field": "top_k"}),
    ],
)
async def test_a_token_goes_on_in_its_own_search_alone(
    stub: InProcessStub, fields: dict[str, Any], error: type[ServiceError], named: dict[str, str]
) -> None:
    token = (await page(stub)).next_page_token
    with pytest.raises(error) as caught:
        await page(stub, **{"page_token": token, **fields})
    assert named.items() <= caught.value.metadata.items()
    assert told(await page(stub, page_token=token)) == RANKED[7:14]


async def test_a_token_of_another_process_says_that_the_version_is_gone(
    stub: InProcessStub, store: MemoryChangeFeed
) -> None:
    async with serving(store) as another:
        token = (await page(InProcessStub(another))).next_page_token
    with pytest.raises(VersionExpiredError):
        await page(stub, page_token=token)


async def test_a_version_is_kept_for_a_while_after_its_last_page(store: MemoryChangeFeed) -> None:
    async with serving(store, cursor_seconds=600) as servicer:
        stub, clock = InProcessStub(servicer), LoopClock()
        token = (await page(stub)).next_page_token
        for _ in range(4):
            await clock.advance(400)
            await page(stub, page_token=token)
        await clock.advance(601)
        with pytest.raises(VersionExpiredError) as caught:
            await page(stub, page_token=token)
        assert caught.value.metadata == {"collection": PHOTOS, "version": "uid1.1"}


async def test_one_ranking_too_many_is_refused_unless_one_has_been_read(stub: InProcessStub) -> None:
    first, second = await page(stub), await page(stub)
    with pytest.raises(OverloadedError) as caught:
        await page(stub)
    assert caught.value.metadata == {"queue": "cursors", "limit": "2"}
    assert (await page(stub, paged=False)).hits
    await page(stub, page_token=first.next_page_token, top_k=100)
    third = await page(stub)
    with pytest.raises(VersionExpiredError):
        await page(stub, page_token=first.next_page_token)
    for each in (second, third):
        assert told(await page(stub, page_token=each.next_page_token)) == RANKED[7:14]


async def test_a_dropped_collection_has_no_more_pages_nor_has_its_namesake(
    stub: InProcessStub, store: MemoryChangeFeed
) -> None:
    token = (await page(stub)).next_page_token
    store.drop(PHOTOS)
    await until_raises(CollectionNotFoundError, lambda: page(stub, page_token=token))
    version = store.create(PHOTOS, [FLAT])
    await page(stub, version=str(version))
    with pytest.raises(VersionUnknownError):
        await page(stub, page_token=token)


def test_a_token_spells_itself() -> None:
    token = PageToken("ab12", "cd34", 17, Version("uid1", 3))
    assert PageToken.parse(str(token)) == token


def test_a_version_lapses_when_it_would_hold_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MIN_RETAINED_ROWS", 250)
    index = make_index(Table(PHOTOS, [FLAT], Version("u", 0)))

    def write(number: int) -> None:
        index.write(batch({item: offset + number for item, offset in ITEMS.items()}))
        index.publish(Version("u", number))

    write(0)
    old = index.open_view()
    ranking = old.pages(Search("flat", 10), ORIGIN)
    write(1)
    young = index.open_view()
    write(2)
    assert [hit.score for hit in ranking.page(97, 3).result.hits] == [32, 32, 33]
    write(3)
    assert old.search(Search("flat", 1), ORIGIN[None])[0].version == Version("u", 0)
    write(4)
    with pytest.raises(LeaseExpiredError):
        old.search(Search("flat", 1), ORIGIN[None])
    with pytest.raises(LeaseExpiredError):
        ranking.page(0, 1)
    assert young.search(Search("flat", 1), ORIGIN[None])[0].hits[0].score == 1
    young.release()
    write(5)
    before = index.states()[0].memory_bytes
    for number in range(6, 30):
        write(number)
    assert index.states()[0].memory_bytes == before


def test_a_version_that_holds_no_rows_does_not_lapse_for_a_search_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MIN_RETAINED_ROWS", 1)
    held = versions.VersionSet()
    held.publish(versions.PublishedVersion(Version("u", 1), 0, np.ones(4, np.bool_)), [])
    with held.pin():
        old = held.lease()
        held.publish(
            versions.PublishedVersion(Version("u", 2), 1, np.array([False, False, True, False, True])), [0, 1, 3]
        )
        young = held.lease()
        assert held.vacuum() == []
        with held.pin_lease(young) as published:
            assert published.version == Version("u", 2)
    with pytest.raises(LeaseExpiredError), held.pin_lease(old):
        pass
    assert held.vacuum() == [0, 1, 3]


@pytest.mark.parametrize("size", [1000, 3000])
def test_every_candidate_comes_once_while_another_thread_writes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MIN_RETAINED_ROWS", 10**9)
    random = np.random.default_rng(size)
    items = {f"item {number}": float(offset) for number, offset in enumerate(random.integers(0, 5000, 12_000))}
    index = make_index(Table(PHOTOS, [FLAT], Version("u", 0)))
    index.write(batch(items))
    index.publish(Version("u", 1))
    version = index.open_view()
    whole = [(hit.item_id, hit.score) for hit in found_by(index, "flat", ORIGIN, 12_000).hits]
    done = threading.Event()

    def write() -> None:
        number = 2
        while not done.is_set():
            changed = list(items)[number % 100 :: 100]
            index.write(batch(dict.fromkeys(changed[1:], 1.0), deleted=changed[:1]))
            index.publish(Version("u", number))
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    ranking = version.pages(Search("flat", 1), ORIGIN)
    read: list[tuple[str, float]] = []
    more = True
    while more:
        each = ranking.page(len(read), size)
        read += [(hit.item_id, hit.score) for hit in each.result.hits]
        more = each.more
    done.set()
    writer.join()
    assert read == whole == sorted(items.items(), key=lambda item: (item[1], item[0]))
