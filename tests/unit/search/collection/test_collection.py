"""Versions of a collection: whole, or not seen at all."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from services.common.errors import SpaceNotFoundError
from services.common.filters import Comparison, Operator
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors
from services.search.core.vector_index import VectorIndex
from services.search.engines.faiss.vector_index import FaissIndex
from services.search.engines.memory.vector_index import MemoryIndex
from tests.unit.search.feeds import found_by

SPACES = (Space("a", 2, Metric.EUCLIDEAN), Space("b", 3, Metric.COSINE))
ORIGIN = np.zeros(2, np.float32)


def memory(space: Space) -> VectorIndex:
    return MemoryIndex(space.dimensions, space.metric)


def batch(items: Mapping[str, float], *, deleted: Sequence[str] = (), metadata: str = "{}") -> ChangeBatch:
    """Items at (x, 0) in space "a"."""
    vectors = np.array([[x, 0] for x in items.values()], np.float32).reshape(-1, 2)
    found = {"a": SpaceVectors(np.arange(len(items)), vectors)}
    return ChangeBatch(list(items), [metadata] * len(items), found, deleted)


def commit(index: LocalCollectionIndex, number: int, *parts: ChangeBatch) -> None:
    for written in parts:
        index.write(written)
    index.publish(Version("u", number))


def found(index: LocalCollectionIndex, top_k: int = 10) -> list[tuple[str, float]]:
    return [(hit.item_id, hit.score) for hit in found_by(index, "a", ORIGIN, top_k, None).hits]


@pytest.fixture
def index() -> LocalCollectionIndex:
    return LocalCollectionIndex(SPACES, memory)


def test_nothing_is_seen_before_it_is_published(index: LocalCollectionIndex) -> None:
    commit(index, 1, batch({"x": 1}))
    index.write(batch({"x": 5, "y": 2}, deleted=["x"]))
    assert found(index) == [("x", 1)]
    index.publish(Version("u", 2))
    assert found(index) == [("y", 2), ("x", 5)]
    assert index.version == Version("u", 2)


def test_an_abandoned_change_leaves_no_trace(index: LocalCollectionIndex) -> None:
    commit(index, 1, batch({"x": 1}))
    index.write(batch({"x": 5, "y": 2}, deleted=["z"]))
    index.rollback()
    commit(index, 2, batch({"w": 3}))
    assert found(index) == [("x", 1), ("w", 3)]


def test_upserts_replace_and_deletes_remove(index: LocalCollectionIndex) -> None:
    commit(index, 1, batch({"x": 1, "y": 2, "z": 3}))
    commit(index, 2, batch({"y": 9}, deleted=["x", "never"]))
    assert found(index) == [("z", 3), ("y", 9)]
    commit(index, 3, batch({}, deleted=["y", "z"]))
    assert found(index) == []
    assert found_by(index, "a", ORIGIN, 1, None).candidates == 0


def test_an_id_that_comes_twice_in_a_change_counts_once(index: LocalCollectionIndex) -> None:
    commit(index, 1, batch({"x": 1}), batch({"x": 2}), batch({}, deleted=["x"]), batch({"x": 3}))
    assert found(index) == [("x", 3)]


def test_rows_and_slots_are_used_again(index: LocalCollectionIndex) -> None:
    for number in range(200):
        commit(index, number, batch({f"i{item}": number + item for item in range(50)}))
    assert found(index, 1) == [("i0", 199)]
    assert sum(state.memory_bytes for state in index.states()) < 60_000 + 4 * 50 * (2 * 4 + 8 + 8)


def test_equal_scores_come_by_id_also_at_the_cut(index: LocalCollectionIndex) -> None:
    ids = [f"{item:03}" for item in range(50)]
    shuffled = list(np.random.default_rng(0).permutation(ids))
    commit(index, 1, batch({**dict.fromkeys(shuffled, 7.0), "near": 1.0, "far": 9.0}))
    assert [item for item, _ in found(index, 10)] == ["near", *ids[:9]]
    assert [item for item, _ in found(index, 51)] == ["near", *ids]


def test_ids_order_as_utf8(index: LocalCollectionIndex) -> None:
    ids = ["\U0001f600", "\uffff", "z", "é", "Z", "a"]
    commit(index, 1, batch(dict.fromkeys(ids, 1.0)))
    assert [item for item, _ in found(index)] == sorted(ids, key=str.encode)


def test_a_hit_tells_every_space_that_has_its_vector(index: LocalCollectionIndex) -> None:
    both = ChangeBatch(
        ["x", "y"],
        ["", ""],
        {
            "a": SpaceVectors(np.array([0, 1]), np.ones((2, 2), np.float32)),
            "b": SpaceVectors(np.array([1]), np.ones((1, 3), np.float32)),
        },
    )
    commit(index, 1, both)
    assert [hit.spaces for hit in found_by(index, "a", ORIGIN, 5, None).hits] == [["a"], ["a", "b"]]
    result = found_by(index, "b", np.ones(3, np.float32), 5, None)
    assert ([hit.item_id for hit in result.hits], result.candidates) == (["y"], 1)


def test_a_filter_leaves_out_before_ranking(index: LocalCollectionIndex) -> None:
    near = batch({f"n{item}": 1 for item in range(500)}, metadata='{"kind": "near"}')
    far = batch({f"f{item}": 50 + item for item in range(3)}, metadata='{"kind": "far"}')
    commit(index, 1, near, far)
    result = found_by(index, "a", ORIGIN, 2, Comparison(("kind",), Operator.EQUAL, ("far",)))
    assert ([hit.item_id for hit in result.hits], result.candidates) == (["f0", "f1"], 3)


def test_a_filter_holds_for_the_version_searched(index: LocalCollectionIndex) -> None:
    sale = Comparison(("sale",), Operator.EQUAL, (True,))
    for number, flag in enumerate(["true", "false", "true"] * 3):
        commit(index, number, batch({"x": 1}, metadata=f'{{"sale": {flag}}}'))
        assert found_by(index, "a", ORIGIN, 1, sale).candidates == (flag == "true")
        assert found_by(index, "a", ORIGIN, 1, sale).candidates == (flag == "true")


def test_an_unknown_space_names_the_known(index: LocalCollectionIndex) -> None:
    with pytest.raises(SpaceNotFoundError) as caught:
        index.space("c")
    assert caught.value.metadata == {"space": "c", "known": "a,b"}


@pytest.mark.parametrize("engine", [MemoryIndex, FaissIndex])
def test_searches_next_to_a_writer_see_one_version(engine: type[MemoryIndex] | type[FaissIndex]) -> None:
    """Every version puts all items at its own place and says so in metadata: a mix of two would show."""
    spaces = (Space("a", 2, Metric.EUCLIDEAN),)
    index = LocalCollectionIndex(spaces, lambda space: engine(space.dimensions, space.metric))
    ids = [f"i{item}" for item in range(300)]
    versions = 120

    def put(number: int) -> None:
        items = dict.fromkeys(ids[: 200 + number % 100], float(number))
        commit(index, number, batch(items, deleted=ids[200 + number % 100 :], metadata=f'{{"v": {number}}}'))

    put(0)
    failures: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            result = found_by(index, "a", ORIGIN, 300, Comparison(("v",), Operator.GREATER_OR_EQUAL, (0,)))
            number = result.version.number
            right = {hit.item_id for hit in result.hits} == set(ids[: 200 + number % 100])
            if not right or {hit.score for hit in result.hits} != {float(number)}:
                failures.append(result)
            one = found_by(index, "a", ORIGIN, 1, Comparison(("v",), Operator.EQUAL, (number,)))
            if one.version.number == number and one.candidates != 200 + number % 100:
                failures.append(one)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, versions):
        put(number)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    (taken,) = [state.memory_bytes for state in index.states()]
    for number in range(versions, 2 * versions):
        put(number)
    assert index.states()[0].memory_bytes <= taken


def test_ids_are_those_with_a_vector_in_the_space(index: LocalCollectionIndex) -> None:
    index.write(batch({"a": 1, "b": 2}))
    index.write(ChangeBatch(["bare"], ["{}"]))
    index.publish(Version("u", 1))
    ids, version = index.item_ids("a")
    assert (sorted(ids), version) == (["a", "b"], Version("u", 1))
    with pytest.raises(SpaceNotFoundError):
        index.item_ids("none")


def test_only_the_items_asked_for_are_ranked(index: LocalCollectionIndex) -> None:
    index.write(batch({"a": 1, "b": 2, "c": 3}))
    index.publish(Version("u", 1))
    found = found_by(index, "a", ORIGIN, 10, ids=["c", "a", "none"])
    assert [hit.item_id for hit in found.hits] == ["a", "c"]
    assert found.candidates == 2
    assert found_by(index, "a", ORIGIN, 10, ids=["none"]).hits == []
