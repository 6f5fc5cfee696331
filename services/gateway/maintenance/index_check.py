"""Whether the index holds what the store holds."""

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

SCORES_AT_A_TIME = 8
TOLERANCE = 1e-4


@dataclass(slots=True)
class StoredVectors:
    """What the store holds of a collection at a version: for each id the spaces as bits, and some rows' vectors."""

    collection: Collection
    version: str = ""
    spaces: dict[str, int] = field(default_factory=dict)
    sample: list[CheckedVectors] = field(default_factory=list)

    def ids(self, place: int) -> set[str]:
        """Return the ids with a vector in the collection's space `place`."""
        return {item_id for item_id, bits in self.spaces.items() if bits >> place & 1}


@dataclass(frozen=True, slots=True)
class IndexComparison:
    """What a comparison found, and how many vectors the index scored as their own."""

    findings: Sequence[Finding]
    vectors: int = 0


class IndexCheck:
    """Compares indexes with the store. Items written after the version compared are left out: they differ rightly."""

    def __init__(self, store: IntegrityStore, index: IndexMaintenance) -> None:
        self._store = store
        self._index = index

    async def compare(self, stored: StoredVectors) -> IndexComparison:
        """Return where the collection's indexes differ from `stored`.

        Raises:
            ServiceError: the search service or the store does not answer, or the index does not get as far as `stored`.
        """
        found: list[Finding] = []
        newest = Version.parse(stored.version)
        for place, space in enumerate(stored.collection.spaces):
            ids, version = await self._indexed_ids(stored, space.name)
            newest = max(newest, version, key=lambda each: each.number)
            wanted = stored.ids(place)
            found += [_finding(stored, FindingKind.INDEX_MISSING, each, space.name) for each in sorted(wanted - ids)]
            found += [_finding(stored, FindingKind.INDEX_EXTRA, each, space.name) for each in sorted(ids - wanted)]
        missing = {(finding.id, finding.space) for finding in found}
        differing, vectors = await self._compare_sample(stored, missing)
        found += differing
        settled = await self._unwritten(stored, {finding.id for finding in found}, newest if not differing else None)
        return IndexComparison([finding for finding in found if finding.id in settled], vectors)

    async def rebuild(self, collection: str) -> None:
        """Build a collection's indexes anew, and return once they answer."""
        await self._index.rebuild(collection)

    async def _indexed_ids(self, stored: StoredVectors, space: str) -> tuple[set[str], Version]:
        ids: set[str] = set()
        version = stored.version
        async with aclosing(self._index.ids(stored.collection.name, space, stored.version)) as parts:
            async for part in parts:
                ids.update(part.ids)
                version = part.version
        return ids, Version.parse(version)

    async def _compare_sample(self, stored: StoredVectors, missing: Ids[tuple[str, str]]) -> tuple[list[Finding], int]:
        turns = asyncio.Semaphore(SCORES_AT_A_TIME)
        spaces = {space.name: space for space in stored.collection.spaces}
        outcomes = await gather(
            [
                self._compare_score(turns, stored, row.id, spaces[name], from_bytes(vector))
                for row in stored.sample
                for name, vector in row.vectors.items()
                if (row.id, name) not in missing and _is_comparable(vector)
            ]
        )
        differing = [outcome for outcome in outcomes if outcome is not None]
        return differing, len(outcomes) - len(differing)

    async def _compare_score(
        self, turns: asyncio.Semaphore, stored: StoredVectors, item_id: str, space: Space, vector: Matrix
    ) -> Finding | None:
        scope = Scope(stored.collection.name, version=stored.version)
        async with turns:
            answer = await self._index.score(scope, space, item_id, vector)
        expected = self_score(space.metric, vector)
        score = math.nan if answer is None else answer
        if math.isclose(score, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return None
        detail = f"the index scores the item's own vector {score:g}, an equal one scores {expected:g}"
        return _finding(stored, FindingKind.INDEX_DIFFERS, item_id, space.name, detail)

    async def _unwritten(self, stored: StoredVectors, ids: set[str], until: Version | None) -> set[str]:
        """Return those of `ids` not written after the version stored, up to `until`, or None for the newest."""
        if not ids:
            return ids
        async with aclosing(self._store.changes(stored.collection.name, stored.version)) as changes:
            async for change in changes:
                if change.reset:
                    raise _ChangedTooMuchError
                ids = ids - change.ids
                if change.version and (until is None or Version.parse(change.version).number >= until.number):
                    break
        return ids


class _ChangedTooMuchError(NotFoundError):
    """What changed during the check is not known any more."""

    reason = "VERSION_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("what changed during the check is not known any more: check again")


def self_score(metric: Metric, vector: Matrix) -> float:
    """Return what a vector scores against itself."""
    match metric:
        case Metric.EUCLIDEAN:
            return 0.0
        case Metric.DOT_PRODUCT:
            doubles = vector.astype("f8")
            return float(doubles @ doubles)
        case Metric.COSINE:
            return 1.0


def _is_comparable(vector: bytes) -> bool:
    """Return whether the index can be asked for it; one that it cannot is reported as invalid."""
    try:
        return bool(from_bytes(vector).any())
    except ServiceError:
        return False


_DETAILS: Mapping[FindingKind, str] = {
    FindingKind.INDEX_MISSING: "the item has a vector, the index lacks it",
    FindingKind.INDEX_EXTRA: "the index has a vector, the item has none",
}


def _finding(stored: StoredVectors, kind: FindingKind, item_id: str, space: str, detail: str = "") -> Finding:
    return Finding(kind, stored.collection.name, item_id, space, detail=detail or _DETAILS[kind])
