"""What every `CollectionIndex` does. Subclass it, give the `make_collection` fixture, inherit the tests.

The oracle is `Mirror`: dictionaries, `filters.matches` and `scoring`. An engine that cannot do something overrides the
test by name and skips it with the reason.
"""

import json
import math
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from uuid import uuid4

import numpy as np
import pytest

from services.common.errors import SpaceNotFoundError
from services.common.filters import (
    ORDERINGS,
    AllOf,
    AnyOf,
    Comparison,
    Exists,
    Filter,
    Not,
    Operator,
    Path,
    Scalar,
    matches,
)
from services.common.index_config import IndexConfig
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table
from services.search.core.collection_index import CollectionIndex, Mode, Search, SearchResult
from services.search.core.scoring import prepared, scores_of


@dataclass(frozen=True, slots=True)
class MakeCollection:
    """Makes indexes of collections whose spaces are indexed as `config` says; `settle` is called after each version."""

    make: Callable[[Table], CollectionIndex]
    config: IndexConfig = field(default_factory=IndexConfig)
    settle: Callable[[], object] = lambda: None


LINE = Space("line", 2, Metric.EUCLIDEAN)
ORIGIN = np.zeros((1, 2), np.float32)
NAMES = ("kind", "note.a", "größe", "a b", "0", "nested", "list")


@dataclass(frozen=True, slots=True)
class Item:
    """An item as the store tells it: metadata as JSON, and a vector for each space that has one."""

    vectors: Mapping[str, Matrix] = field(default_factory=dict)
    metadata: str = "{}"


def at(x: float, metadata: object = None) -> Item:
    """An item at (x, 0) in the space "line"."""
    return Item({"line": np.array([x, 0], np.float32)}, json.dumps(metadata or {}, ensure_ascii=False))


@cache
def parsed(metadata: str) -> dict[str, object]:
    """Return an item's metadata, which nobody may change."""
    return dict(json.loads(metadata or "{}"))


def part_of(items: Mapping[str, Item], deleted: Sequence[str] = ()) -> ChangeBatch:
    """A part of a change that writes `items` and deletes others."""
    names = sorted({name for item in items.values() for name in item.vectors})
    vectors = {}
    for name in names:
        rows = [row for row, item in enumerate(items.values()) if name in item.vectors]
        held = [item.vectors[name] for item in items.values() if name in item.vectors]
        vectors[name] = SpaceVectors(np.array(rows, np.int64), np.stack(held))
    return ChangeBatch(list(items), [item.metadata for item in items.values()], vectors, list(deleted))


class Mirror:
    """A collection in an index and in dictionaries: what the one answers, the other must."""

    def __init__(self, make: MakeCollection, *spaces: Space) -> None:
        self.spaces = {space.name: replace(space, config=make.config) for space in spaces}
        self.uid, self.number = uuid4().hex, 0
        self.items: dict[str, Item] = {}
        self.index = make.make(self.table)
        self.settle = make.settle

    @property
    def table(self) -> Table:
        """The collection as the store tells it."""
        return Table("collections/contract", tuple(self.spaces.values()), Version(self.uid, self.number))

    def commit(self, *parts: Mapping[str, Item] | tuple[Mapping[str, Item], Sequence[str]]) -> Version:
        """Publish a change of `parts`: written items, or those and deleted ids."""
        for part in parts:
            written, deleted = part if isinstance(part, tuple) else (part, ())
            self.index.write(part_of(written, deleted))
            for item_id in deleted:
                self.items.pop(item_id, None)
            self.items |= written
        self.number += 1
        version = Version(self.uid, self.number)
        self.index.publish(version)
        self.settle()
        return version

    def search(self, search: Search, queries: Matrix) -> Sequence[SearchResult]:
        """Search the index, and hold the answer to the mirror's."""
        found = self.index.search(search, queries)
        assert len(found) == len(queries)
        for query, each in zip(queries, found, strict=True):
            expected, candidates = self.expected(search, query)
            assert [hit.item_id for hit in each.hits] == [item_id for item_id, _ in expected]
            assert [hit.score for hit in each.hits] == [score for _, score in expected]
            assert each.candidates == candidates
            assert each.version == Version(self.uid, self.number)
            for hit in each.hits:
                assert sorted(hit.spaces) == sorted(self.items[hit.item_id].vectors)
        return found

    def expected(self, search: Search, query: Matrix) -> tuple[list[tuple[str, float]], int]:
        """Return ids and scores that `query` finds, and the number of candidates."""
        space = self.spaces[search.space]
        chosen = [
            item_id
            for item_id, item in self.items.items()
            if search.space in item.vectors
            and (not search.ids or item_id in search.ids)
            and (search.condition is None or matches(search.condition, parsed(item.metadata)))
        ]
        if not chosen:
            return [], 0
        vectors = np.stack([self.items[item_id].vectors[search.space] for item_id in chosen])
        scores = scores_of(query, prepared(vectors, space.metric), space.metric).tolist()
        farness = 1 if space.metric is Metric.EUCLIDEAN else -1
        ranked = sorted(zip(chosen, scores, strict=True), key=lambda hit: (farness * hit[1], hit[0].encode()))
        if search.score_limit is not None:
            limit = farness * search.score_limit
            ranked = [(item_id, score) for item_id, score in ranked if farness * score <= limit]
        return ranked[: search.top_k], len(chosen)

    def ids(self, condition: Filter | None = None) -> set[str]:
        """Return the ids that a search by `condition` finds in "line", held to the mirror's."""
        (found,) = self.search(Search("line", max(1, len(self.items)), condition), ORIGIN)
        return {hit.item_id for hit in found.hits}


class CollectionIndexContract:
    @pytest.fixture
    def make_collection(self) -> MakeCollection:
        raise NotImplementedError

    @pytest.fixture
    def line(self, make_collection: MakeCollection) -> Mirror:
        """A collection of one space."""
        return Mirror(make_collection, LINE)

    def test_before_the_first_version_there_is_none(self, line: Mirror) -> None:
        assert line.index.version is None
        assert list(line.index.states()) == []
        assert line.index.space("line") == line.spaces["line"]

    def test_an_empty_version_is_one(self, line: Mirror) -> None:
        version = line.commit({})
        assert line.index.version == version
        assert line.ids() == set()
        assert line.index.item_ids("line") == ([], version)

    def test_nothing_is_seen_before_it_is_published(self, line: Mirror) -> None:
        line.commit({"x": at(1), "y": at(2)})
        line.index.write(part_of({"x": at(5), "z": at(3)}, ["y"]))
        assert line.ids() == {"x", "y"}
        assert line.index.version == Version(line.uid, 1)
        assert sorted(line.index.item_ids("line")[0]) == ["x", "y"]
        line.items = {"x": at(5), "z": at(3)}
        line.commit()
        assert line.ids() == {"x", "z"}

    def test_a_change_of_several_parts_is_seen_at_once(self, line: Mirror) -> None:
        line.commit({"a": at(1)}, {"b": at(2)}, ({"c": at(3)}, ["a"]), {"d": at(4)})
        assert line.ids() == {"b", "c", "d"}

    def test_upserts_replace_and_deletes_remove(self, line: Mirror) -> None:
        line.commit({"x": at(1, {"n": 1}), "y": at(2), "z": at(3)})
        line.commit(({"y": at(9, {"n": 2})}, ["x", "never"]))
        assert line.ids() == {"y", "z"}
        assert line.ids(Comparison(("n",), Operator.EQUAL, (2,))) == {"y"}
        assert line.ids(Comparison(("n",), Operator.EQUAL, (1,))) == set()
        line.commit(({}, ["y", "z"]))
        assert line.ids() == set()

    def test_an_id_that_comes_twice_in_a_change_counts_once(self, line: Mirror) -> None:
        line.commit({"x": at(1)}, {"x": at(2)}, ({}, ["x"]), {"x": at(3)}, {"y": at(1)}, ({}, ["y"]))
        assert line.ids() == {"x"}
        line.commit({"x": at(4)}, ({}, ["x"]), {"x": at(5)}, {"y": at(2)})
        line.commit(({}, ["x"]), ({}, ["x"]))
        assert line.ids() == {"y"}

    def test_an_id_that_is_deleted_and_written_by_one_part_is_there(self, line: Mirror) -> None:
        line.commit({"x": at(1)})
        line.commit(({"x": at(2)}, ["x"]))
        assert line.ids() == {"x"}

    def test_a_deleted_item_can_come_back(self, line: Mirror) -> None:
        for number in range(4):
            line.commit({"x": at(number), "y": at(9)})
            line.commit(({}, ["x"]))
            assert line.ids() == {"y"}

    def test_an_abandoned_change_leaves_no_trace(self, line: Mirror) -> None:
        line.commit({"x": at(1), "y": at(2)})
        line.index.write(part_of({"x": at(5), "z": at(2)}, ["y"]))
        line.index.write(part_of({"z": at(7)}))
        line.index.rollback()
        assert line.ids() == {"x", "y"}
        line.commit({"w": at(3)})
        assert line.ids() == {"w", "x", "y"}
        line.commit({"z": at(1), "x": at(2)})
        assert line.ids() == {"w", "x", "y", "z"}

    def test_a_first_change_can_be_abandoned(self, line: Mirror) -> None:
        line.index.write(part_of({"x": at(5)}))
        line.index.rollback()
        line.commit({"y": at(1)})
        assert line.ids() == {"y"}

    def test_random_changes_are_followed(self, make_collection: MakeCollection) -> None:
        chance = random.Random(1)
        spaces = (LINE, Space("deep", 3, Metric.COSINE))
        mirror = Mirror(make_collection, *spaces)
        for _ in range(12):
            parts = [_random_part(chance, spaces) for _ in range(chance.randint(1, 3))]
            if chance.random() < 0.3:
                for written, deleted in parts:
                    mirror.index.write(part_of(written, deleted))
                mirror.index.rollback()
            else:
                mirror.commit(*parts)
            if mirror.number:
                mirror.ids()
                mirror.search(Search("deep", 5), np.ones((1, 3), np.float32))
                for name in mirror.spaces:
                    held = {item_id for item_id, item in mirror.items.items() if name in item.vectors}
                    assert set(mirror.index.item_ids(name)[0]) == held

    def test_searches_next_to_a_writer_see_whole_versions(self, line: Mirror) -> None:
        """Every version puts all items at its own place and says so in metadata: a mix of two would show."""
        ids = [f"i{item}" for item in range(40)]

        def put(number: int) -> None:
            written = {item_id: at(number, {"v": number}) for item_id in ids[: 20 + number % 20]}
            half = dict(list(written.items())[:10]), dict(list(written.items())[10:])
            line.commit(half[0], (half[1], ids[20 + number % 20 :]))

        put(1)
        failures: list[object] = []
        done = threading.Event()
        looked = threading.Semaphore(0)

        def read() -> None:
            condition = Comparison(("v",), Operator.GREATER_OR_EQUAL, (0,))
            while not done.is_set():
                try:
                    (found,) = line.index.search(Search("line", 40, condition), ORIGIN)
                except Exception as error:
                    failures.append(error)
                    return
                finally:
                    looked.release()
                number = found.version.number
                right = {hit.item_id for hit in found.hits} == set(ids[: 20 + number % 20])
                if not right or {hit.score for hit in found.hits} != {float(number)}:
                    failures.append(found)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for number in range(2, 12):
            looked.acquire()
            put(number)
        done.set()
        for reader in readers:
            reader.join()
        assert failures == []

    @pytest.mark.parametrize("metric", Metric)
    @pytest.mark.parametrize("dimensions", [1, 2, 17, 300])
    def test_the_nearest_are_found_under_every_metric(
        self, make_collection: MakeCollection, metric: Metric, dimensions: int
    ) -> None:
        chance = np.random.default_rng([dimensions])
        mirror = Mirror(make_collection, Space("space", dimensions, metric))
        vectors = chance.standard_normal((300, dimensions)).astype(np.float32)
        mirror.commit({f"i{row}": Item({"space": vector}) for row, vector in enumerate(vectors)})
        queries = chance.standard_normal((3, dimensions)).astype(np.float32)
        for top_k in (1, 10, 1000):
            mirror.search(Search("space", top_k), queries)

    @pytest.mark.parametrize("metric", Metric)
    def test_equal_scores_come_by_id_also_at_the_cut(self, make_collection: MakeCollection, metric: Metric) -> None:
        mirror = Mirror(make_collection, Space("space", 4, metric))
        chance = np.random.default_rng(2)
        twin, ids = np.array([1, 2, 3, 4], np.float32), [f"{item:03}" for item in range(80)]
        items = {str(item_id): Item({"space": twin}) for item_id in chance.permutation(ids)}
        others = chance.standard_normal((60, 4)).astype(np.float32)
        mirror.commit(items | {f"o{row}": Item({"space": vector}) for row, vector in enumerate(others)})
        for top_k in (1, 7, 79, 80, 100):
            mirror.search(Search("space", top_k), np.stack([twin, others[0]]))

    def test_ids_order_as_utf8(self, line: Mirror) -> None:
        ids = ["\U0001f600", "\uffff", "z", "é", "Z", "a", "a b", "'", '"', "\\", "%", "\n", "{x}", "a" * 1024]
        line.commit({item_id: at(1) for item_id in ids})
        assert line.ids() == set(ids)
        line.search(Search("line", 3), ORIGIN)
        line.commit(({}, ['"', "\\", "\n"]))
        assert line.ids() == set(ids) - {'"', "\\", "\n"}

    @pytest.mark.parametrize("metric", [Metric.DOT_PRODUCT, Metric.EUCLIDEAN])
    @pytest.mark.parametrize("size", [1e-30, 1e18, 3e38])
    def test_sizes_at_the_ends_of_float32_rank_right(
        self, make_collection: MakeCollection, metric: Metric, size: float
    ) -> None:
        mirror = Mirror(make_collection, Space("space", 3, metric))
        shares = np.linspace(-1, 1, 50, dtype=np.float32)[:, None] * np.array([[size, 0, size]], np.float32)
        mirror.commit({f"i{row}": Item({"space": vector}) for row, vector in enumerate(shares)})
        mirror.search(Search("space", 5), np.array([[size, 0, size]], np.float32))

    def test_near_equal_scores_around_the_cut_are_told_apart(self, make_collection: MakeCollection) -> None:
        chance = np.random.default_rng(7)
        mirror = Mirror(make_collection, Space("space", 32, Metric.COSINE))
        query = chance.standard_normal(32).astype(np.float32)
        vectors = (query + 1e-6 * chance.standard_normal((400, 32))).astype(np.float32)
        mirror.commit({f"i{row}": Item({"space": vector}) for row, vector in enumerate(vectors)})
        for top_k in (1, 20):
            mirror.search(Search("space", top_k), query[None])

    def test_several_queries_find_what_each_finds_alone(self, make_collection: MakeCollection) -> None:
        chance = np.random.default_rng(5)
        mirror = Mirror(make_collection, Space("space", 8, Metric.COSINE))
        vectors = chance.standard_normal((200, 8)).astype(np.float32)
        mirror.commit({f"i{row}": Item({"space": vector}) for row, vector in enumerate(vectors)})
        mirror.search(Search("space", 7), chance.standard_normal((40, 8)).astype(np.float32))

    def test_only_hits_at_least_as_near_as_the_limit_are_returned(self, make_collection: MakeCollection) -> None:
        flat = Space("flat", 1, Metric.DOT_PRODUCT)
        mirror = Mirror(make_collection, LINE, flat)
        items = {f"i{x}": Item({**at(x).vectors, "flat": np.array([x], np.float32)}) for x in range(30)}
        mirror.commit(items)
        for limit in (-1.0, 0.0, 7.0, math.nextafter(7.0, 0), math.nextafter(7.0, 9), 7.5, 100.0):
            for top_k in (3, 100):
                mirror.search(Search("line", top_k, score_limit=limit), ORIGIN)
                mirror.search(Search("flat", top_k, score_limit=limit), np.ones((1, 1), np.float32))

    def test_a_search_for_exactness_is_exact(self, line: Mirror) -> None:
        line.commit({f"i{x}": at(x) for x in range(30)})
        (found,) = line.search(Search("line", 3, exact=True), ORIGIN)
        assert found.mode is Mode.EXACT
        assert found.compared >= len(found.hits)

    def test_only_the_items_asked_for_are_ranked(self, line: Mirror) -> None:
        line.commit({f"i{x}": at(x, {"even": x % 2 == 0}) for x in range(30)})
        even = Comparison(("even",), Operator.EQUAL, (True,))
        for ids in (["i3", "i4", "none"], ["none"], [f"i{x}" for x in range(50)]):
            for condition in (None, even):
                line.search(Search("line", 5, condition, frozenset(ids)), ORIGIN)
        line.commit(({"i3": at(50)}, ["i4"]))
        line.search(Search("line", 5, None, frozenset(["i3", "i4", "i5"])), ORIGIN)

    def test_thousands_of_items_can_be_asked_for(self, line: Mirror) -> None:
        line.commit({f"i{x}": at(x) for x in range(3000)})
        line.search(Search("line", 10, None, frozenset(f"i{x}" for x in range(500, 4500))), ORIGIN)

    def test_items_without_a_vector_in_a_space_are_none_of_its_candidates(
        self, make_collection: MakeCollection
    ) -> None:
        deep = Space("deep", 3, Metric.COSINE)
        mirror = Mirror(make_collection, LINE, deep)
        both = Item({**at(1).vectors, "deep": np.ones(3, np.float32)}, '{"n": 1}')
        mirror.commit({"both": both, "line": at(2), "deep": Item({"deep": np.ones(3, np.float32)}), "none": Item()})
        for _ in range(2):
            mirror.ids()
            mirror.search(Search("deep", 5), np.ones((1, 3), np.float32))
            mirror.search(Search("deep", 5, Exists(("n",), False)), np.ones((1, 3), np.float32))
            for name in ("line", "deep"):
                held = [item_id for item_id, item in mirror.items.items() if name in item.vectors]
                assert sorted(mirror.index.item_ids(name)[0]) == sorted(held)
            mirror.commit({"both": at(5), "line": both, "none": Item({"deep": np.ones(3, np.float32)}), "deep": Item()})

    def test_an_unknown_space_names_the_known(self, make_collection: MakeCollection) -> None:
        mirror = Mirror(make_collection, LINE, Space("deep", 3, Metric.COSINE))
        mirror.commit({"x": at(1)})
        calls: Sequence[Callable[[], object]] = (
            lambda: mirror.index.space("c"),
            lambda: mirror.index.search(Search("c", 1), ORIGIN),
            lambda: mirror.index.item_ids("c"),
        )
        for call in calls:
            with pytest.raises(SpaceNotFoundError) as caught:
                call()
            assert caught.value.metadata == {"space": "c", "known": "deep,line"}

    def test_states_tell_of_each_space(self, make_collection: MakeCollection) -> None:
        mirror = Mirror(make_collection, LINE, Space("deep", 3, Metric.COSINE, "fingerprint"))
        version = mirror.commit({f"i{x}": at(x) for x in range(7)})
        version = mirror.commit(({"i9": Item({"deep": np.ones(3, np.float32)})}, ["i0"]))
        states = mirror.index.states()
        assert [(state.space.name, state.vectors) for state in states] == [("deep", 1), ("line", 6)]
        for state in states:
            assert state.version == version
            assert state.engine
            assert state.memory_bytes >= 0
            assert state.config == state.space.config

    def test_spaces_of_a_change_are_those_from_then_on(self, line: Mirror) -> None:
        line.commit({"x": at(1)})
        told = replace(LINE, config=replace(line.spaces["line"].config, exact_below_selectivity=0.25))
        line.index.write(replace(part_of({"y": at(2)}), spaces=(told,)))
        line.items["y"] = at(2)
        assert line.index.space("line") == line.spaces["line"]
        line.commit()
        assert line.index.space("line") == told
        assert [state.config for state in line.index.states()] == [told.config]
        assert line.ids() == {"x", "y"}

    def test_spaces_of_an_abandoned_change_are_forgotten(self, line: Mirror) -> None:
        line.commit({"x": at(1)})
        told = replace(LINE, config=replace(line.spaces["line"].config, exact_below_selectivity=0.25))
        line.index.write(replace(part_of({"y": at(2)}), spaces=(told,)))
        line.index.rollback()
        line.commit({"z": at(3)})
        assert line.index.space("line") == line.spaces["line"]
        assert line.ids() == {"x", "z"}

    @pytest.mark.parametrize("seed", range(4))
    def test_filters_mean_what_the_oracle_says(self, line: Mirror, seed: int) -> None:
        chance = random.Random(seed)
        line.commit({f"i{item}": at(item, _random_object(chance, 0)) for item in range(120)})
        told = [json.loads(item.metadata) for item in line.items.values()]
        for _ in range(60):
            line.ids(_random_filter(chance, told, 0))

    @pytest.mark.parametrize("operator", [*ORDERINGS, Operator.EQUAL, Operator.NOT_EQUAL, Operator.IN, Operator.NOT_IN])
    def test_numbers_compare_by_value_exactly(self, line: Mirror, operator: Operator) -> None:
        line.commit({f"i{place}": at(place, {"n": number}) for place, number in enumerate(NUMBERS)})
        for number in NUMBERS:
            line.ids(Comparison(("n",), operator, (number,)))
        line.ids(Comparison(("n",), operator, (math.inf,)))
        line.ids(Comparison(("n",), operator, (-math.inf,)))

    @pytest.mark.parametrize(
        "operator",
        [*ORDERINGS, Operator.EQUAL, Operator.NOT_EQUAL, Operator.IN, Operator.NOT_IN, Operator.STARTS_WITH],
    )
    def test_strings_compare_by_code_point_whatever_they_hold(self, line: Mirror, operator: Operator) -> None:
        line.commit({f"i{place}": at(place, {"s": value}) for place, value in enumerate(STRINGS)})
        for value in STRINGS:
            if len(value.encode()) < 100 or operator not in (*ORDERINGS, Operator.STARTS_WITH):
                line.ids(Comparison(("s",), operator, (value,)))

    @pytest.mark.parametrize("operator", Operator)
    def test_types_never_mix(self, line: Mirror, operator: Operator) -> None:
        values: list[object] = [
            None,
            True,
            False,
            1,
            0,
            1.0,
            0.0,
            "1",
            "true",
            "",
            [],
            {},
            [1],
            ["1"],
            [True],
            [None],
            [[1]],
            [{}],
        ]
        line.commit(
            {f"i{place}": at(place, {"v": value}) for place, value in enumerate(values)} | {"none": at(99, {"w": 1})}
        )
        for operand in (True, False, 1, 0, 1.0, "1", "true", ""):
            if _suits(operator, operand):
                condition = Comparison(("v",), operator, (operand,))
                line.ids(condition)
                line.ids(Not(condition))

    def test_presence_is_of_values_not_null(self, line: Mirror) -> None:
        values: list[object] = [None, False, 0, "", [], {}, [None], {"x": None}, {"x": {"y": 0}}, {"x": [{"y": 1}]}, 5]
        line.commit({f"i{place}": at(place, {"v": value}) for place, value in enumerate(values)} | {"none": at(99)})
        for path in (("v",), ("v", "x"), ("v", "x", "y"), ("w",)):
            for exists in (True, False):
                line.ids(Exists(path, exists))
                line.ids(Not(Exists(path, exists)))

    def test_a_list_satisfies_what_any_element_does(self, line: Mirror) -> None:
        values: list[object] = [
            [1, 5],
            [5],
            [2, "a"],
            ["ab", "b"],
            ["a%b", "_"],
            [],
            [True, 1],
            [[5]],
            [1, 1.0],
            [2**53 + 1, 0.5],
        ]
        line.commit({f"i{place}": at(place, {"v": value}) for place, value in enumerate(values)})
        for operand in (1, 5, 3, True, "a", "ab", "b", "_", "a%", 2**53, 0.5):
            for operator in Operator:
                if _suits(operator, operand):
                    line.ids(Comparison(("v",), operator, (operand,)))
        line.ids(AllOf((_compared("v", Operator.GREATER, 4), _compared("v", Operator.LESS, 2))))

    def test_paths_lead_through_objects_whatever_their_keys(self, line: Mirror) -> None:
        keys = ["a", "a.b", "b", "'", '"', "\\", "größe", "a b", "0", "$x", "%", "\n", "id", "vector", "\U0001f600"]
        line.commit({f"i{place}": at(place, {key: 1, "in": {key: {"x": "y"}}}) for place, key in enumerate(keys)})
        line.commit({"dotted": at(50, {"a.b": 2}), "nested": at(51, {"a": {"b": 2}})})
        for key in keys:
            line.ids(Comparison((key,), Operator.EQUAL, (1,)))
            line.ids(Comparison(("in", key, "x"), Operator.STARTS_WITH, ("y",)))
        assert line.ids(Comparison(("a", "b"), Operator.EQUAL, (2,))) == {"nested"}
        assert line.ids(Comparison(("a.b",), Operator.EQUAL, (2,))) == {"dotted"}

    def test_conditions_of_none_and_of_many(self, line: Mirror) -> None:
        line.commit({f"i{item}": at(item, {"n": item}) for item in range(40)})
        several = tuple(_compared("n", Operator.EQUAL, item) for item in range(0, 80, 2))
        for condition in (AllOf(()), AnyOf(()), Not(AllOf(())), Not(AnyOf(())), AnyOf(several), Not(AnyOf(several))):
            line.ids(condition)
        line.ids(Comparison(("n",), Operator.IN, tuple(range(5, 900))))
        line.ids(Comparison(("n",), Operator.NOT_IN, (*range(5, 900), "a", True)))
        deep: Filter = _compared("n", Operator.LESS, 20)
        for level in range(30):
            deep = Not(deep) if level % 3 else AllOf((deep, _compared("n", Operator.GREATER, -level)))
        line.ids(deep)

    def test_a_filter_holds_for_the_version_searched(self, line: Mirror) -> None:
        sale = Comparison(("sale",), Operator.EQUAL, (True,))
        for flag in (True, False, True, False):
            line.commit({"x": at(1, {"sale": flag})})
            assert line.ids(sale) == ({"x"} if flag else set())
            assert line.ids(Not(sale)) == (set() if flag else {"x"})

    def test_metadata_may_be_missing_or_large(self, line: Mirror) -> None:
        large = {"text": "lorem ipsum " * 2000, "tag": "large"}
        line.commit({"bare": Item(at(1).vectors, ""), "large": at(2, large), "small": at(3, {"tag": "small"})})
        assert line.ids(_compared("tag", Operator.EQUAL, "large")) == {"large"}
        assert line.ids(_compared("text", Operator.STARTS_WITH, "lorem ipsum l")) == {"large"}
        assert line.ids(_compared("text", Operator.EQUAL, large["text"])) == {"large"}
        assert line.ids(Exists(("tag",), False)) == {"bare"}


NUMBERS: Sequence[int | float] = (
    *(0, 1, -1, 2, -2, 10, 16, 255, 256, 0.5, -0.5, 0.1, 1e-300, -1e-300, 5e-324, 1.5, 1e300, -1e300, 3.0),
    *(2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**64, 10**30, float(10**30), 10**300, -(10**300), 10**400),
    *(math.nextafter(1, 2), math.nextafter(1, 0), -math.nextafter(1, 2)),
)
STRINGS: Sequence[str] = (
    *("", "a", "A", "b", "ab", "aB", "abc", "a b", "a%", "a_", "a\\", "%", "_", "\\", "%a", "a%b_c\\d", "\\%", "'"),
    *('"', "a'b", 'a"b', "\n", "\t", "\x00", "\x7f", "é", "e\u0301", "ß", "中文", "\uffff", "\U0001f600", "{x}", "$a"),
    *("null", "true", "1", " ", "a" * 90, "a" * 3000, "a" * 2999 + "b", "é" * 700),
)


def _compared(key: str, operator: Operator, operand: Scalar) -> Filter:
    return Comparison((key,), operator, (operand,))


def _suits(operator: Operator, operand: Scalar) -> bool:
    if operator is Operator.STARTS_WITH:
        return isinstance(operand, str)
    return not (operator in ORDERINGS and isinstance(operand, bool))


def _random_part(chance: random.Random, spaces: Iterable[Space]) -> tuple[Mapping[str, Item], Sequence[str]]:
    ids = chance.sample([f"i{number}" for number in range(15)], 6)
    written = {
        item_id: Item(
            {
                space.name: np.array([chance.uniform(-1, 1) for _ in range(space.dimensions)], np.float32)
                for space in spaces
                if chance.random() < 0.7
            }
        )
        for item_id in ids[:4]
    }
    return written, ids[3:]


def _random_scalar(chance: random.Random) -> Scalar | None:
    kinds: Sequence[Callable[[], Scalar | None]] = (
        lambda: chance.choice(NUMBERS),
        lambda: chance.randint(-3, 3),
        lambda: chance.choice([value for value in STRINGS if len(value) < 50]),
        lambda: chance.choice([True, False]),
        lambda: None,
    )
    return chance.choice(kinds)()


def _random_value(chance: random.Random, depth: int) -> object:
    kind = chance.random()
    if kind < 0.2 and depth < 3:
        return _random_object(chance, depth + 1)
    if kind < 0.4:
        return [_random_value(chance, 3) for _ in range(chance.randint(0, 4))]
    return _random_scalar(chance)


def _random_object(chance: random.Random, depth: int) -> dict[str, object]:
    return {key: _random_value(chance, depth) for key in chance.sample(NAMES, chance.randint(0, 4))}


def _random_filter(chance: random.Random, told: Sequence[Mapping[str, object]], depth: int) -> Filter:
    kind = chance.random()
    if depth < 3 and kind < 0.4:
        children = tuple(_random_filter(chance, told, depth + 1) for _ in range(chance.randint(0, 3)))
        nodes: list[Filter] = [AllOf(children), AnyOf(children), Not(AllOf(children))]
        return chance.choice(nodes)
    path = tuple(chance.choice(NAMES) for _ in range(1 if chance.random() < 0.7 else 2))
    if kind < 0.5:
        return Exists(path, chance.choice([True, False]))
    return _random_comparison(chance, told, path)


def _random_comparison(chance: random.Random, told: Sequence[Mapping[str, object]], path: Path) -> Filter:
    """A comparison at `path`, more often than not with what an item has there."""
    operator = chance.choice(list(Operator))
    there = [value for metadata in told for value in _scalars(metadata.get(path[0])) if _suits(operator, value)]
    candidates = [*there, *(value for value in (1, "a", "", 0.5, True) if _suits(operator, value))]
    wanted = chance.randint(1, 4) if operator in (Operator.IN, Operator.NOT_IN) else 1
    return Comparison(path, operator, tuple(chance.choice(candidates) for _ in range(wanted)))


def _scalars(value: object) -> list[Scalar]:
    if isinstance(value, dict):
        return [scalar for child in value.values() for scalar in _scalars(child)]
    elements = value if isinstance(value, list) else [value]
    return [element for element in elements if isinstance(element, str | int | float | bool)]
