from collections.abc import Sequence
from dataclasses import dataclass

from services.common.errors import CollectionNotFoundError, ServiceUnavailableError
from services.gateway.core.index import ListedIndex
from services.gateway.core.store import ListedCollection
from services.gateway.maintenance.status import CollectionStatus, StatusService


class Models:
    async def list_models(self) -> Sequence[str]:
        return ["mini"]


@dataclass
class Tables:
    counts: dict[str, int | None]

    async def list_collections(self) -> Sequence[ListedCollection[str]]:
        return [ListedCollection(name, f"view of {name}") for name in self.counts]

    async def count_rows(self, collection: str) -> int:
        count = self.counts[collection]
        if count is None:
            raise CollectionNotFoundError(collection)
        return count


class Indexes:
    async def list_indexes(self) -> Sequence[ListedIndex[str]]:
        return [ListedIndex("a", "a's first"), ListedIndex("b", "b's"), ListedIndex("a", "a's second")]


class Away:
    async def list_indexes(self) -> Sequence[ListedIndex[str]]:
        raise ServiceUnavailableError("search")


async def test_collections_come_with_their_counts_and_indexes() -> None:
    status = await StatusService(Models(), Tables({"a": 3, "b": 0}), Indexes()).get_status()
    assert [(each.name, each.error) for each in status.services] == [
        ("embedder", None),
        ("store", None),
        ("search", None),
    ]
    assert status.models == ["mini"]
    assert status.collections == [
        CollectionStatus("view of a", 3, ["a's first", "a's second"]),
        CollectionStatus("view of b", 0, ["b's"]),
    ]


async def test_a_service_that_is_away_is_reported_and_the_others_are_listed() -> None:
    status = await StatusService(Models(), Tables({"a": 3}), Away()).get_status()
    assert [type(each.error) for each in status.services] == [type(None), type(None), ServiceUnavailableError]
    assert status.collections == [CollectionStatus("view of a", 3, [])]


async def test_a_collection_dropped_since_it_was_listed_is_left_out() -> None:
    status = await StatusService(Models(), Tables({"a": None, "b": 1}), Indexes()).get_status()
    assert [each.collection for each in status.collections] == ["view of b"]
