"""The gateway's maintenance ports over the services behind their APIs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import NotFoundError
from services.common.rpc.client import InProcessStub
from services.common.versions import Version
from services.embedder.settings import EmbedderSettings
from services.embedder.wiring import embedder_servicer
from services.gateway.adapters.embedder import GrpcEmbedder
from services.gateway.adapters.search import GrpcIndex
from services.gateway.adapters.store_maintenance import GrpcMaintenanceStore
from services.gateway.core.findings import CheckedRows, CheckedTable, CheckedVectors, RowCheckOptions, RowCheckPart
from services.gateway.core.index import Scope
from services.gateway.core.store import RowChanges, WrittenRow
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer
from tests.contract.gateway_peers import MODEL, NAME, axis, collection, media, row

OWN = collection().spaces[2]


@dataclass(frozen=True)
class Peers:
    embedder: GrpcEmbedder
    store: GrpcMaintenanceStore
    index: GrpcIndex

    async def write(self, *ids: str) -> str:
        """Write equal rows; return the version that holds them."""
        written = (await self.store.upsert(NAME, [row(each) for each in ids], {}))[-1]
        assert isinstance(written, WrittenRow)
        return written.version

    async def check(self, options: RowCheckOptions) -> list[RowCheckPart]:
        return [part async for part in self.store.check_rows(NAME, options)]


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(embedder_servicer(EmbedderSettings(runtime="memory")))
        settings = StoreSettings(directory=tmp_path, rows="memory", media="memory", media_grace_seconds=0)
        store = InProcessStub(await stack.enter_async_context(store_servicer(settings)))
        search = await stack.enter_async_context(search_servicer(SearchSettings(engine="memory"), store=store))
        peers = Peers(
            GrpcEmbedder(InProcessStub(embedder)), GrpcMaintenanceStore(store), GrpcIndex(InProcessStub(search))
        )
        await peers.store.create_collection(collection(), {})
        yield peers


async def test_a_check_of_rows_tells_each_once_with_its_spaces(peers: Peers) -> None:
    version = await peers.write("a", "b")
    table, *parts = await peers.check(RowCheckOptions())
    assert table == CheckedTable(version, 2)
    rows = [part for part in parts if isinstance(part, CheckedRows)]
    assert sorted(zip(rows[0].ids, rows[0].spaces, strict=True)) == [("a", 0b111), ("b", 0b111)]


async def test_sampled_rows_come_with_their_vectors(peers: Peers) -> None:
    await peers.write("a")
    parts = await peers.check(RowCheckOptions(vector_sample=10))
    (sampled,) = [part for part in parts if isinstance(part, CheckedVectors)]
    assert sampled.id == "a"
    assert np.frombuffer(sampled.vectors["text"], "<f4").tolist() == axis(1).tolist()


async def test_changes_name_what_is_written_and_removed_after_a_version(peers: Peers) -> None:
    before = await peers.write("a", "b")
    await peers.write("c")
    after = await peers.store.delete(NAME, ["a"])
    seen: list[RowChanges] = []
    async with aclosing(peers.store.watch_changes(NAME, before)) as changes:
        async for change in changes:
            seen.append(change)
            if change.version and Version.parse(change.version).number >= Version.parse(after).number:
                break
    assert frozenset[str]().union(*(change.ids for change in seen)) == {"a", "c"}
    assert not any(change.reset for change in seen)


async def test_an_index_tells_its_ids_and_an_items_score(peers: Peers) -> None:
    version = await peers.write("a", "b")
    parts = [part async for part in peers.index.list_ids(NAME, "own", version)]
    assert {each for part in parts for each in part.ids} == {"a", "b"}
    assert {part.version for part in parts} == {version}
    scope = Scope(NAME, version=version)
    assert await peers.index.score(scope, OWN, "a", np.array([1, 2], np.float32)) == 0
    assert await peers.index.score(scope, OWN, "none", np.array([1, 2], np.float32)) is None


async def test_a_rebuilt_index_answers(peers: Peers) -> None:
    version = await peers.write("a")
    await peers.index.rebuild(NAME)
    assert [list(part.ids) async for part in peers.index.list_ids(NAME, "own", version)] == [["a"]]


async def test_dropping_snapshots_where_there_are_none_is_no_error(peers: Peers) -> None:
    await peers.index.drop_snapshots(NAME, await peers.write("a"))


async def test_a_purge_takes_media_that_nobody_refers_to(peers: Peers) -> None:
    await peers.write("a", "b")
    sha256 = media(1).facts.sha256
    assert await peers.store.get_media_hashes(NAME, ["a", "none"]) == {"a": sha256}
    await peers.store.delete(NAME, ["a"])
    kept = await peers.store.purge(NAME, ["a"], [sha256])
    assert [(each.sha256, each.gone) for each in kept.media] == [(sha256, False)]
    assert "b" in kept.media[0].kept_by
    await peers.store.delete(NAME, ["b"])
    assert [each.gone for each in (await peers.store.purge(NAME, ["b"], [sha256])).media] == [True]


async def test_lists_are_whole(peers: Peers) -> None:
    await peers.write("a", "b")
    assert [(each.name, each.view.name) for each in await peers.store.list_collections()] == [(NAME, NAME)]
    assert await peers.store.count_rows(NAME) == 2
    assert MODEL in [each.name for each in await peers.embedder.list_models()]
    await peers.index.rebuild(NAME)
    assert sorted(each.view.space for each in await peers.index.list_indexes()) == ["clip", "own", "text"]


async def test_counting_what_is_not_there_is_an_error(peers: Peers) -> None:
    with pytest.raises(NotFoundError) as refused:
        await peers.store.count_rows("collections/none")
    assert refused.value.reason == "COLLECTION_NOT_FOUND"
