"""Whether the index holds what the store holds."""

import asyncio
import math
from collections.abc import Collection as Ids
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow

from medley.v1 import check_pb2, collection_pb2, vector_pb2
from medley.v1 import search_service_pb2 as search_pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.errors import NotFoundError, ServiceError
from services.common.neighbours import call, stream
from services.common.tasks import together
from services.common.vectors import Matrix, from_bytes
from services.common.versions import Version
from services.gateway.stubs import SearchStub, StoreStub

SCORES_AT_A_TIME = 8
TOLERANCE = 1e-4
REBUILD_SECONDS = 3600.0
WAIT_SECONDS = 60.0


@dataclass(slots=True)
class Held:
    """What the store holds of a collection at a version: for each id the spaces as bits, and some rows' vectors."""

    collection: collection_pb2.Collection
    version: str
    spaces: dict[str, int] = field(default_factory=dict)
    sample: list[store_pb.CheckedVectors] = field(default_factory=list)

    def ids(self, place: int) -> set[str]:
        """Return the ids with a vector in the collection's space `place`."""
        return {item_id for item_id, bits in self.spaces.items() if bits >> place & 1}


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison found, and how many vectors the index scored as their own."""

    findings: Sequence[check_pb2.Finding]
    vectors: int = 0


class IndexCheck:
    """Compares indexes with the store. Items written after the version compared are left out: they differ rightly."""

    def __init__(self, store: StoreStub, search: SearchStub) -> None:
        self._store = store
        self._search = search

    async def compare(self, held: Held) -> Compared:
        """Return where the collection's indexes differ from `held`.

        Raises:
            ServiceError: the search service or the store does not answer, or the index does not get as far as `held`.
        """
        found: list[check_pb2.Finding] = []
        newest = Version.parse(held.version)
        for place, space in enumerate(held.collection.spaces):
            ids, version = await self._indexed_ids(held, space.name)
            newest = max(newest, version, key=lambda each: each.number)
            wanted = held.ids(place)
            found += [_finding(held, "MISSING", item_id, space.name) for item_id in sorted(wanted - ids)]
            found += [_finding(held, "SURPLUS", item_id, space.name) for item_id in sorted(ids - wanted)]
        missing = {(finding.id, finding.space) for finding in found}
        differing, vectors = await self._compare_sample(held, missing)
        found += differing
        settled = await self._settled(held, {finding.id for finding in found}, newest if not differing else None)
        return Compared([finding for finding in found if finding.id in settled], vectors)

    async def rebuild(self, collection: str) -> None:
        """Have a collection's indexes built anew, and wait until they are."""
        request = search_pb.RebuildIndexRequest(collection=collection)
        await call("search", self._search.RebuildIndex, request, seconds=REBUILD_SECONDS)

    async def _indexed_ids(self, held: Held, space: str) -> tuple[set[str], Version]:
        request = search_pb.ListIndexItemsRequest(collection=held.collection.name, space=space, version=held.version)
        ids: set[str] = set()
        version = held.version
        async for message in stream("search", self._search.ListIndexItems, request, seconds=WAIT_SECONDS):
            ids.update(message.ids)
            version = message.version
        return ids, Version.parse(version)

    async def _compare_sample(self, held: Held, missing: Ids[tuple[str, str]]) -> tuple[list[check_pb2.Finding], int]:
        turns = asyncio.Semaphore(SCORES_AT_A_TIME)
        spaces = {space.name: space for space in held.collection.spaces}
        outcomes = await together(
            [
                self._score(turns, held, row.id, spaces[name], from_bytes(vector.float32_le))
                for row in held.sample
                for name, vector in row.vectors.items()
                if (row.id, name) not in missing and _is_comparable(vector)
            ]
        )
        differing = [outcome for outcome in outcomes if outcome is not None]
        return differing, len(outcomes) - len(differing)

    async def _score(
        self, turns: asyncio.Semaphore, held: Held, item_id: str, space: collection_pb2.Space, vector: Matrix
    ) -> check_pb2.Finding | None:
        request = search_pb.SearchIndexRequest(
            collection=held.collection.name,
            space=space.name,
            vector=vector_pb2.Vector(float32_le=vector.tobytes()),
            top_k=1,
            version=held.version,
            ids=[item_id],
        )
        async with turns:
            answer: search_pb.SearchIndexResponse = await call("search", self._search.SearchIndex, request)
        expected = own_score(space.metric, vector)
        score = answer.hits[0].score if answer.hits else math.nan
        if math.isclose(score, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return None
        detail = f"the index scores the item's own vector {score:g}, an equal one scores {expected:g}"
        return _finding(held, "DIFFERS", item_id, space.name, detail)

    async def _settled(self, held: Held, ids: set[str], until: Version | None) -> set[str]:
        """Return those of `ids` that were not written after the version held, up to `until`, or None for the newest."""
        if not ids:
            return ids
        request = store_pb.WatchChangesRequest(collection=held.collection.name, after=held.version)
        async with aclosing(cast(Any, stream("store", self._store.WatchChanges, request))) as changes:
            async for change in changes:
                if change.reset:
                    raise _ChangedTooMuchError
                ids = ids - set(_changed_ids(change))
                if change.version and (until is None or Version.parse(change.version).number >= until.number):
                    break
        return ids


class _ChangedTooMuchError(NotFoundError):
    """What changed during the check is not known any more."""

    reason = "VERSION_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("what changed during the check is not known any more: check again")


def own_score(metric: int, vector: Matrix) -> float:
    """Return what a vector scores against itself."""
    match metric:
        case vector_pb2.METRIC_EUCLIDEAN:
            return 0.0
        case vector_pb2.METRIC_DOT_PRODUCT:
            doubles = vector.astype("f8")
            return float(doubles @ doubles)
        case _:
            return 1.0


def _is_comparable(vector: vector_pb2.Vector) -> bool:
    """Return whether the index can be asked for it; one that it cannot is told of as invalid."""
    try:
        return bool(from_bytes(vector.float32_le).any())
    except ServiceError:
        return False


def _changed_ids(change: store_pb.WatchChangesResponse) -> Iterable[str]:
    yield from change.deleted_ids
    if change.rows_arrow_ipc:
        yield from pyarrow.ipc.open_stream(change.rows_arrow_ipc).read_all()["id"].to_pylist()


_DETAILS: Mapping[str, str] = {
    "MISSING": "the item has a vector, the index lacks it",
    "SURPLUS": "the index has a vector, the item has none",
}


def _finding(held: Held, kind: str, item_id: str, space: str, detail: str = "") -> check_pb2.Finding:
    return check_pb2.Finding(
        kind=check_pb2.FindingKind.Value(f"FINDING_KIND_INDEX_{kind}"),
        collection=held.collection.name,
        id=item_id,
        space=space,
        detail=detail or _DETAILS[kind],
    )
