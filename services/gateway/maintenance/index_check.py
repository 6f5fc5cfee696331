"""Compares the indexes of a collection with the store."""

import asyncio
import math
from collections.abc import Collection as Ids
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.common.concurrency.tasks import gather
from services.common.errors import NotFoundError, ServiceError
from services.common.vectors import Matrix, Metric, from_bytes
from services.common.versions import Version
from services.gateway.core.findings import CheckedVectors, Finding, FindingKind
from services.gateway.core.index import IndexMaintenance, Scope
from services.gateway.core.items import Collection, Space
from services.gateway.core.store import IntegrityStore

MAX_CONCURRENT_SCORES = 8
TOLERANCE = 1e-4


@dataclass(slots=True)
class StoredVectors:
    """A collection's rows at a version: for each id a bit set of its spaces, and the vectors of sampled rows."""

    collection: Collection
    version: str = ""
    spaces: dict[str, int] = field(default_factory=dict)
    sample: list[CheckedVectors] = field(default_factory=list)

    def ids_in(self, position: int) -> set[str]:
        """Return the ids with a vector in the collection's space number `position`."""
        return {item_id for item_id, bits in self.spaces.items() if bits >> position & 1}


@dataclass(frozen=True, slots=True)
class IndexComparison:
    """The findings of a comparison, and the number of vectors that the index scored as expected."""

    findings: Sequence[Finding]
    vectors: int = 0


class IndexCheck:
    """Compares indexes with the store. Items written after the compared version are ignored, since they may differ."""

    def __init__(self, store: IntegrityStore, index: IndexMaintenance) -> None:
        self._store = store
        self._index = index

    async def compare(self, stored: StoredVectors) -> IndexComparison:
        """Return the differences between the collection's indexes and `stored`.

        Raises:
            ServiceError: a service does not answer, or the index does not reach the version of `stored`.
        """
        found: list[Finding] = []
        newest = Version.parse(stored.version)
        for position, space in enumerate(stored.collection.spaces):
            ids, version = await self._indexed_ids(stored, space.name)
            newest = max(newest, version, key=lambda each: each.number)
            expected = stored.ids_in(position)
            found += [_finding(stored, FindingKind.INDEX_MISSING, each, space.name) for each in sorted(expected - ids)]
            found += [_finding(stored, FindingKind.INDEX_EXTRA, each, space.name) for each in sorted(ids - expected)]
        missing = {(finding.id, finding.space) for finding in found}
        differing, vectors = await self._compare_sample(stored, missing)
        found += differing
        unchanged = await self._unchanged_since(
            stored, {finding.id for finding in found}, newest if not differing else None
        )
        return IndexComparison([finding for finding in found if finding.id in unchanged], vectors)

    async def rebuild(self, collection: str) -> None:
        """Rebuild a collection's indexes, and return when the new ones are in use."""
        await self._index.rebuild(collection)

    async def _indexed_ids(self, stored: StoredVectors, space: str) -> tuple[set[str], Version]:
        ids: set[str] = set()
        version = stored.version
        async with aclosing(self._index.list_ids(stored.collection.name, space, stored.version)) as parts:
            async for part in parts:
                ids.update(part.ids)
                version = part.version
        return ids, Version.parse(version)

    async def _compare_sample(self, stored: StoredVectors, missing: Ids[tuple[str, str]]) -> tuple[list[Finding], int]:
        limit = asyncio.Semaphore(MAX_CONCURRENT_SCORES)
        spaces = {space.name: space for space in stored.collection.spaces}
        outcomes = await gather(
            [
                self._compare_score(limit, stored, row.id, spaces[name], from_bytes(vector))
                for row in stored.sample
                for name, vector in row.vectors.items()
                if (row.id, name) not in missing and _is_comparable(vector)
            ]
        )
        differing = [outcome for outcome in outcomes if outcome is not None]
        return differing, len(outcomes) - len(differing)

    async def _compare_score(
        self, limit: asyncio.Semaphore, stored: StoredVectors, item_id: str, space: Space, vector: Matrix
    ) -> Finding | None:
        scope = Scope(stored.collection.name, version=stored.version)
        async with limit:
            answer = await self._index.score(scope, space, item_id, vector)
        expected = self_score(space.metric, vector)
        score = math.nan if answer is None else answer
        if math.isclose(score, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return None
        detail = f"the index scores the item's own vector {score:g} instead of {expected:g}"
        return _finding(stored, FindingKind.INDEX_DIFFERS, item_id, space.name, detail)

    async def _unchanged_since(self, stored: StoredVectors, ids: set[str], until: Version | None) -> set[str]:
        """Return those of `ids` not written between the version of `stored` and `until`; None means the newest."""
        if not ids:
            return ids
        async with aclosing(self._store.watch_changes(stored.collection.name, stored.version)) as changes:
            async for change in changes:
                if change.reset:
                    raise _ChangesUnknownError
                ids = ids - change.ids
                if change.version and (until is None or Version.parse(change.version).number >= until.number):
                    break
        return ids


class _ChangesUnknownError(NotFoundError):
    """The changes made during the check are no longer known."""

    reason = "VERSION_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("the changes made during the check are no longer known: check again")


def self_score(metric: Metric, vector: Matrix) -> float:
    """Return the score of a vector against itself."""
    match metric:
        case Metric.EUCLIDEAN:
            return 0.0
        case Metric.DOT_PRODUCT:
            doubles = vector.astype("f8")
            return float(doubles @ doubles)
        case Metric.COSINE:
            return 1.0


def _is_comparable(vector: bytes) -> bool:
    """Return whether the index can score it; other vectors are reported as invalid."""
    try:
        return bool(from_bytes(vector).any())
    except ServiceError:
        return False


_DETAILS: Mapping[FindingKind, str] = {
    FindingKind.INDEX_MISSING: "the item has a vector that the index lacks",
    FindingKind.INDEX_EXTRA: "the index has a vector that the item lacks",
}


def _finding(stored: StoredVectors, kind: FindingKind, item_id: str, space: str, detail: str = "") -> Finding:
    return Finding(kind, stored.collection.name, item_id, space, detail=detail or _DETAILS[kind])
