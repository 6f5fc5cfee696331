"""An approximate index comes, grows, goes and fails behind the searches, which never notice but by their mode."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import cast

import numpy as np
import pytest

from services.common.filters import Comparison, Filter, Operator
from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf, ProductQuantization
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.search.ann.build_scheduler import BuildScheduler
from services.search.ann.manager import BuildContext, Generation, RefreshPolicy
from services.search.ann.recall_monitor import MIN_QUERIES, RecallMonitor
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.candidate_index import AnnKind
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table
from services.search.core.collection_index import Mode, Search, SearchResult, SpaceState, State
from services.search.engines.faiss.factory import FaissAnnFactory
from services.search.engines.faiss.vector_index import FaissIndex
from services.search.engines.memory.vector_index import MemoryIndex
from services.search.replication.replica import Replica
from tests.support.change_feed import MemoryChangeFeed
from tests.waiting import HANG_SECONDS

DIMENSIONS = 16
COUNT = 3000
GRAPH = Hnsw(m=16, ef_construction=40)
HNSW = IndexConfig(GRAPH)
IVF = IndexConfig(Ivf(nlist=32))
IMPOSSIBLE = IndexConfig(Ivf(nlist=32, coding=ProductQuantization(7)))  # which does not divide the dimensions
EXACT = IndexConfig(Exact())
A_THIRD = Comparison(("third",), Operator.EQUAL, (0,))
A_FEW = Comparison(("few",), Operator.EQUAL, (True,))


def vectors(seed: int, count: int) -> Matrix:
    centres = np.random.default_rng(0).standard_normal((20, DIMENSIONS))
    random = np.random.default_rng(seed)
    noise = 0.5 * random.standard_normal((count, DIMENSIONS))
    return (centres[random.integers(20, size=count)] + noise).astype(np.float32)


def batch(items: Mapping[str, Matrix] | None = None, *, deleted: Sequence[str] = ()) -> ChangeBatch:
    items = items or {}
    rows = np.stack(list(items.values())) if items else np.empty((0, DIMENSIONS), np.float32)
    metadata = [f'{{"third": {int(key) % 3}, "few": {"true" if int(key) % 50 == 0 else "false"}}}' for key in items]
    return ChangeBatch(list(items), metadata, {"a": SpaceVectors(np.arange(len(items)), rows)}, deleted)


class Collection:
    """A collection whose builds go on step by step, and beside it the exact answer."""

    def __init__(
        self, config: IndexConfig, *, policy: RefreshPolicy | None = None, recall_sample_rate: float = 1.0
    ) -> None:
        self.scheduler = BuildScheduler()
        self.monitor = RecallMonitor(recall_sample_rate)
        self.space = Space("a", DIMENSIONS, Metric.COSINE, config=config)
        context = BuildContext(
            FaissAnnFactory(), self.scheduler, self.monitor, policy or RefreshPolicy(min_modified=100, rest_factor=0)
        )
        self.index = LocalCollectionIndex([self.space], lambda space: FaissIndex(DIMENSIONS, space.metric), context)
        self.items: dict[str, Matrix] = {}
        self.commits = 0

    def commit(self, *parts: ChangeBatch, config: IndexConfig | None = None) -> None:
        if config is not None:
            self.space = replace(self.space, config=config)
            parts = (*parts, ChangeBatch(spaces=[self.space]))
        for written in parts:
            self.index.write(written)
            for item_id in written.deleted_ids:
                self.items.pop(item_id, None)
            if written.ids:
                self.items.update(zip(written.ids, written.vectors["a"].vectors, strict=True))
        self.commits += 1
        self.index.publish(Version("u", self.commits))

    def add(self, begin: int, end: int, seed: int = 1) -> None:
        self.commit(batch(dict(zip(map(str, range(begin, end)), vectors(seed, end - begin), strict=True))))

    def build(self, steps: int | None = None) -> int:
        """Take the builds forward, to their end if no number of steps is given; return the steps."""
        taken = 0
        while taken != steps and self.scheduler.step() is not None:
            taken += 1
        return taken

    def state(self) -> SpaceState:
        (state,) = self.index.states()
        return state

    def search(
        self, query: Matrix, top_k: int = 10, condition: Filter | None = None, *, exact: bool = False
    ) -> SearchResult:
        (found,) = self.index.search(Search("a", top_k, condition, exact=exact), query[None])
        return found

    def recall(self, mode: Mode, condition: Filter | None = None) -> float:
        """Compare the answers to some queries, all found by `mode`, with those of an index made just now."""
        oracle = LocalCollectionIndex([self.space], lambda space: MemoryIndex(DIMENSIONS, space.metric))
        items = list(self.items.items())
        for begin in range(0, len(items), 1000):
            oracle.write(batch(dict(items[begin : begin + 1000])))
        oracle.publish(Version("oracle", 1))
        recalls = []
        for query in vectors(99, 40):
            found = self.search(query, condition=condition)
            assert found.mode is mode
            (expected,) = oracle.search(Search("a", 10, condition), query[None])
            assert found.candidates == expected.candidates
            scores = {hit.item_id: hit.score for hit in expected.hits}
            right = [hit for hit in found.hits if scores.get(hit.item_id) == hit.score]
            recalls.append(len(right) / len(expected.hits))
        return float(np.mean(recalls))


@pytest.fixture
def hnsw() -> Collection:
    collection = Collection(HNSW)
    collection.add(0, COUNT)
    collection.build()
    return collection


@pytest.mark.parametrize("config", [HNSW, IVF])
def test_the_exact_index_answers_until_the_approximate_one_is_built(config: IndexConfig) -> None:
    collection = Collection(config)
    collection.add(0, COUNT)
    assert (collection.state().state, collection.state().engine) == (State.BUILDING, "faiss-exact")
    assert collection.recall(Mode.EXACT) == 1
    collection.build(3)
    assert collection.state().state is State.BUILDING
    assert "the exact one answers" in collection.state().note
    assert collection.recall(Mode.EXACT) == 1
    bytes_before = collection.state().memory_bytes
    collection.build()
    assert (collection.state().state, collection.state().note) == (State.READY, "")
    assert collection.state().engine in {"faiss-hnsw", "faiss-ivf"}
    assert collection.state().memory_bytes > bytes_before
    assert collection.recall(Mode.APPROXIMATE) >= 0.97


def test_scores_and_numbers_are_those_of_an_exact_answer(hnsw: Collection) -> None:
    query = vectors(7, 1)[0]
    found, exact = hnsw.search(query), hnsw.search(query, exact=True)
    assert [(hit.item_id, hit.score) for hit in found.hits] == [(hit.item_id, hit.score) for hit in exact.hits]
    assert (found.mode, exact.mode) == (Mode.APPROXIMATE, Mode.EXACT)
    assert (found.candidates, exact.candidates) == (COUNT, COUNT)
    assert 10 <= found.compared < 100


def test_what_was_written_since_is_found_at_once(hnsw: Collection) -> None:
    new = vectors(50, 1)[0]
    hnsw.commit(batch({"9000": new, "17": new}, deleted=["5"]))
    assert [hit.item_id for hit in hnsw.search(new, 2).hits] == ["17", "9000"]
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97
    old = vectors(1, 6)[5]
    assert "5" not in [hit.item_id for hit in hnsw.search(old).hits]


def test_writes_are_taken_in_once_there_are_enough(hnsw: Collection) -> None:
    hnsw.add(COUNT, COUNT + 90)
    assert hnsw.build() == 0
    hnsw.add(COUNT + 90, COUNT + 700)
    assert hnsw.state().state is State.READY
    compared, memory_bytes = hnsw.search(vectors(2, 1)[0]).compared, hnsw.state().memory_bytes
    assert hnsw.build() > 0
    assert hnsw.search(vectors(2, 1)[0]).compared < compared
    assert hnsw.state().memory_bytes > memory_bytes
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97


@pytest.mark.parametrize("config", [HNSW, IVF])
def test_items_written_and_removed_over_and_over_stay_found(config: IndexConfig) -> None:
    random = np.random.default_rng(3)
    collection = Collection(config)
    collection.add(0, COUNT)
    for round_number in range(12):
        collection.build(2)
        chosen = random.choice(COUNT + 600, 300, replace=False)
        rows = vectors(100 + round_number, 300)
        written = {str(number): row for number, row in zip(chosen[:200], rows, strict=False)}
        collection.commit(batch(written, deleted=[str(number) for number in chosen[200:]]))
        if collection.state().engine != "faiss-exact":
            assert collection.recall(Mode.APPROXIMATE) >= 0.95
    collection.build()
    assert collection.recall(Mode.APPROXIMATE) >= 0.97


def test_what_is_mostly_removed_is_built_anew(hnsw: Collection) -> None:
    memory = hnsw.state().memory_bytes
    for begin in range(0, 2000, 500):
        hnsw.commit(batch(deleted=[str(number) for number in range(begin, begin + 500)]))
    hnsw.commit(batch())
    hnsw.build()
    assert hnsw.state().memory_bytes < memory
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97


def test_a_change_of_config_waits_for_its_version(hnsw: Collection) -> None:
    hnsw.index.write(ChangeBatch(spaces=[replace(hnsw.space, config=EXACT)]))
    assert hnsw.state().config == HNSW
    hnsw.index.rollback()
    hnsw.commit(batch())
    assert hnsw.state().config == HNSW
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97


def test_the_old_index_answers_while_another_kind_is_built(hnsw: Collection) -> None:
    hnsw.commit(config=IVF)
    hnsw.build(4)
    assert (hnsw.state().state, hnsw.state().engine) == (State.BUILDING, "faiss-hnsw")
    assert "faiss-hnsw" in hnsw.state().note
    hnsw.add(COUNT, COUNT + 50)
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97
    hnsw.build()
    assert (hnsw.state().state, hnsw.state().engine) == (State.READY, "faiss-ivf")
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97
    hnsw.commit(config=EXACT)
    assert (hnsw.state().state, hnsw.state().engine) == (State.READY, "faiss-exact")
    assert hnsw.recall(Mode.EXACT) == 1


def test_a_config_that_changes_again_meanwhile_is_the_one_that_counts(hnsw: Collection) -> None:
    other = IndexConfig(replace(GRAPH, m=8))
    hnsw.commit(config=IVF)
    hnsw.build(3)
    hnsw.commit(config=other)
    hnsw.build(2)
    hnsw.commit(config=IVF)
    hnsw.build(2)
    hnsw.commit(config=other)
    hnsw.build()
    assert (hnsw.state().state, hnsw.state().engine, hnsw.state().config) == (State.READY, "faiss-hnsw", other)
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97


def test_back_to_what_there_is_takes_no_build(hnsw: Collection) -> None:
    hnsw.commit(config=IVF)
    hnsw.build(3)
    hnsw.commit(config=HNSW)
    assert hnsw.state().state is State.READY
    hnsw.build()
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97


def test_parameters_of_searches_take_no_build(hnsw: Collection) -> None:
    hnsw.commit(config=IndexConfig(replace(GRAPH, ef_search=300)))
    assert hnsw.build() == 1
    assert hnsw.state().state is State.READY


def test_an_index_done_just_when_none_is_wanted_any_more_does_not_answer(hnsw: Collection) -> None:
    ann = hnsw.index._spaces["a"]._ann
    assert ann is not None
    built = cast(Generation, ann.generation)
    configuring = threading.Thread(target=ann.configure, args=[EXACT])

    class Late:
        """A generation that is looked at just when the config changes."""

        index, sequence_number, recall = built.index, built.sequence_number, built.recall

        @property
        def kind(self) -> AnnKind:
            configuring.start()
            configuring.join(0.2)
            return built.kind

    ann._install(cast(Generation, Late()))
    configuring.join()
    assert ann.generation is None


def test_a_build_that_fails_leaves_the_last_good_index(hnsw: Collection) -> None:
    hnsw.add(COUNT, 4200)
    hnsw.commit(config=IMPOSSIBLE)
    for _ in range(10_000):
        if hnsw.state().state is State.FAILED:
            break
        hnsw.build(1)
    assert (hnsw.state().state, hnsw.state().engine) == (State.FAILED, "faiss-hnsw")
    assert "cannot be built" in hnsw.state().note
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97
    hnsw.commit(config=IVF)
    assert hnsw.state().state is State.BUILDING
    hnsw.build()
    assert (hnsw.state().state, hnsw.state().engine) == (State.READY, "faiss-ivf")


def test_a_failed_build_is_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    collection = Collection(IMPOSSIBLE, policy=RefreshPolicy(retry_seconds=0.01))
    collection.add(0, 4200)
    for _ in range(100_000):
        collection.build(1)
        if len(caplog.records) == 3:
            break
    assert [record.message for record in caplog.records] == ["the index of a cannot be built"] * 3
    assert (collection.state().state, collection.state().engine) == (State.FAILED, "faiss-exact")
    assert collection.recall(Mode.EXACT) == 1
    collection.index.close()
    assert collection.build() == 0


def test_too_few_vectors_are_told_and_wait_for_more() -> None:
    collection = Collection(IVF)
    assert collection.index.states() == []
    collection.commit(batch())
    assert collection.state().state is State.READY
    collection.add(0, 200)
    assert collection.build() == 0
    assert collection.state().state is State.WAITING
    assert collection.state().note == "it takes 256 vectors, and there are 200: answers are exact until then"
    assert collection.recall(Mode.EXACT) == 1
    collection.add(200, 300)
    collection.build()
    assert collection.state().state is State.READY


def test_a_closed_collection_builds_no_more_and_still_answers() -> None:
    collection = Collection(HNSW)
    collection.add(0, COUNT)
    collection.build(3)
    collection.index.close()
    assert collection.build() == 0
    assert collection.recall(Mode.EXACT) == 1


def test_filters_that_leave_little_are_answered_exactly(hnsw: Collection) -> None:
    assert hnsw.recall(Mode.APPROXIMATE, A_THIRD) >= 0.97
    assert hnsw.recall(Mode.EXACT, A_FEW) == 1
    hnsw.commit(config=replace(HNSW, exact_below_selectivity=0.5))
    assert hnsw.recall(Mode.EXACT, A_THIRD) == 1
    assert hnsw.recall(Mode.APPROXIMATE) >= 0.97
    hnsw.commit(config=replace(HNSW, exact_below_selectivity=1.0))
    assert hnsw.recall(Mode.EXACT) == 1


@pytest.mark.parametrize("top_k", [1, 10, 500, 2000, COUNT, 10_000])
def test_there_are_as_many_hits_as_asked_for_or_all(hnsw: Collection, top_k: int) -> None:
    assert len(hnsw.search(vectors(4, 1)[0], top_k).hits) == min(top_k, COUNT)
    assert len(hnsw.search(vectors(4, 1)[0], top_k, A_THIRD).hits) == min(top_k, COUNT // 3)


def test_given_ids_are_all_compared(hnsw: Collection) -> None:
    (found,) = hnsw.index.search(Search("a", 10, ids=frozenset(["1", "2"])), vectors(4, 1))
    assert (found.mode, found.compared) == (Mode.EXACT, 2)


def test_a_kept_version_is_searched_as_it_was(hnsw: Collection) -> None:
    query = vectors(1, 1)[0]
    view = hnsw.index.open_view()
    before = [hit.item_id for hit in hnsw.search(query).hits]
    for round_number in range(6):
        rows = vectors(200 + round_number, 500)
        hnsw.commit(batch({str(number): row for number, row in zip(range(500), rows, strict=True)}))
        hnsw.build()
    (found,) = view.search(Search("a", 10), query[None])
    assert [hit.item_id for hit in found.hits] == before
    view.release()


def test_without_a_workshop_an_approximate_config_is_told_to_be_beyond_this_process() -> None:
    space = Space("a", DIMENSIONS, Metric.COSINE, config=HNSW)
    index = LocalCollectionIndex([space], lambda space: MemoryIndex(DIMENSIONS, space.metric))
    index.publish(Version("u", 1))
    (state,) = index.states()
    assert state.state is State.FAILED


async def test_searches_go_on_through_builds_and_swaps() -> None:
    collection = Collection(HNSW)
    collection.add(0, COUNT)
    done, wrong, modes = threading.Event(), list[str](), set[Mode]()
    fixed = vectors(1, COUNT)[:40]

    def search() -> None:
        while not done.is_set():
            for number, query in islice(enumerate(fixed), 40):
                found = collection.search(query)
                modes.add(found.mode)
                ids = [hit.item_id for hit in found.hits]
                if len(ids) != 10 or ids[0] != str(number) or len(set(ids)) != 10:
                    wrong.append(f"{number}: {ids}")

    searches = [threading.Thread(target=search) for _ in range(2)]
    async with collection.scheduler.running():
        for thread in searches:
            thread.start()
        for round_number in range(8):
            rows = vectors(300 + round_number, 300)
            numbers = range(COUNT + 100 * round_number, COUNT + 100 * round_number + 300)
            collection.commit(batch({str(number): row for number, row in zip(numbers, rows, strict=True)}))
            collection.commit(config=[HNSW, IVF, EXACT][round_number % 3])
            wait(lambda: collection.state().state is State.READY)
        done.set()
        for thread in searches:
            thread.join()
    assert wrong == []
    assert modes == {Mode.EXACT, Mode.APPROXIMATE}


def wait(reached: Callable[[], bool]) -> None:
    for _ in range(3000):
        if reached():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it takes too long")


async def test_a_process_that_ends_stops_its_builds() -> None:
    collection = Collection(IndexConfig(Hnsw(m=64, ef_construction=1000)))
    collection.add(0, COUNT)
    async with collection.scheduler.running():
        wait(lambda: "vectors are in it" in collection.state().note)
    assert collection.state().state is State.BUILDING
    assert collection.recall(Mode.EXACT) == 1


async def test_nothing_is_built_for_a_collection_that_was_replaced_or_dropped() -> None:
    feed, scheduler, made = MemoryChangeFeed(), BuildScheduler(), list[LocalCollectionIndex]()
    context = BuildContext(FaissAnnFactory(), scheduler, RecallMonitor(0))

    def make_index(table: Table) -> LocalCollectionIndex:
        made.append(LocalCollectionIndex(table.spaces, lambda space: MemoryIndex(DIMENSIONS, space.metric), context))
        return made[-1]

    feed.create("collections/a", [Space("a", DIMENSIONS, Metric.COSINE, config=HNSW)])
    feed.commit("collections/a", batch(dict(zip(map(str, range(COUNT)), vectors(1, COUNT), strict=True))))
    replica = Replica("collections/a", feed, make_index)
    following = asyncio.create_task(replica.run())
    async with asyncio.timeout(HANG_SECONDS):
        await replica.wait_for_version(None)
        scheduler.step()
        await replica.rebuild()
        while scheduler.step() is not None:
            pass
        assert [index.states()[0].state for index in made] == [State.READY, State.READY]
        assert [index.states()[0].engine for index in made] == ["memory-exact", "faiss-hnsw"]
        changes = batch(dict(zip(map(str, range(2000)), vectors(2, 2000), strict=True)))
        await replica.wait_for_version(feed.commit("collections/a", changes))
        scheduler.step()
        feed.drop("collections/a")
        await following
    assert scheduler.step() is None


HARD = IndexConfig(Ivf(nlist=64, nprobe=1), recall_floor=0.9)


@pytest.fixture
def degraded() -> Collection:
    collection = Collection(HARD)
    collection.commit(batch(dict(zip(map(str, range(COUNT)), spread(1, COUNT), strict=True))))
    collection.build()
    return collection


def spread(seed: int, count: int) -> Matrix:
    """Vectors without clusters, whose neighbours lie in many lists."""
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


async def test_a_space_whose_recall_falls_answers_exactly_until_it_recovers(degraded: Collection) -> None:
    assert degraded.search(spread(5, 1)[0]).mode is Mode.APPROXIMATE
    async with degraded.monitor.running():
        for query in spread(6, 2 * MIN_QUERIES):
            degraded.search(query)
            threading.Event().wait(0.002)
        wait(lambda: degraded.state().state is State.DEGRADED)
        assert degraded.state().engine == "faiss-exact"
        assert "below 0.9" in degraded.state().note
        assert degraded.search(spread(5, 1)[0]).mode is Mode.EXACT
        for query in spread(7, 30):
            degraded.search(query)
        wait(lambda: any(recall.queries >= 5 for recall in degraded.state().recall))
        assert degraded.state().state is State.DEGRADED
        degraded.commit(config=replace(HARD, kind=Ivf(nlist=64, nprobe=64)))
        degraded.build()
        for query in spread(8, 2 * MIN_QUERIES):
            assert degraded.search(query).mode is Mode.APPROXIMATE
            threading.Event().wait(0.002)
        wait(lambda: any(recall.queries >= MIN_QUERIES for recall in degraded.state().recall))
    assert degraded.state().state is State.READY
    assert all(recall.recall >= 0.97 for recall in degraded.state().recall)


async def test_recall_is_measured_under_filters_too(degraded: Collection) -> None:
    degraded.commit(config=replace(HARD, recall_floor=0.0))
    async with degraded.monitor.running():
        for query in spread(6, 20):
            degraded.search(query, condition=A_THIRD)
            threading.Event().wait(0.002)
        wait(lambda: any(recall.queries >= 5 for recall in degraded.state().recall))
    (recall,) = degraded.state().recall
    assert (recall.share_above, recall.share_up_to) == (0.2, 0.5)
    assert 0.1 < recall.recall < 0.95


async def test_exact_answers_are_not_repeated(degraded: Collection) -> None:
    async with degraded.monitor.running():
        for query in spread(6, 30):
            degraded.search(query, exact=True)
            degraded.search(query, condition=A_FEW)
    assert degraded.state().recall == []
