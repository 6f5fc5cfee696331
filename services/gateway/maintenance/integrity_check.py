"""Checks that rows, media, vectors and indexes agree, and repairs them on request."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

from services.common.concurrency.retry import is_transient, retry
from services.common.errors import ArgumentError, CollectionNotFoundError, CorruptError, NotFoundError, ServiceError
from services.gateway.core.embedder import Embedder
from services.gateway.core.findings import (
    CheckedMedia,
    CheckedRows,
    CheckedTable,
    CheckedVectors,
    Finding,
    FindingKind,
    RowCheckOptions,
)
from services.gateway.core.items import Collection, Space
from services.gateway.core.store import CollectionLister, CollectionStore, IntegrityStore
from services.gateway.maintenance.index_check import IndexCheck, IndexComparison, StoredVectors
from services.gateway.maintenance.repair import Repairer, describe_failure

RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check: one collection; with an empty name all, and the objects that belong to none.

    `repair` repairs what can be repaired without loss; `drop_lost_media` also drops references to missing or damaged
    media.
    """

    collection: str = ""
    media_objects: int = 0
    all_media: bool = False
    vector_sample: int = 0
    repair: bool = False
    drop_lost_media: bool = False


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """Progress of the check of a collection; of the objects that belong to none when `collection` is empty."""

    collection: str = ""
    version: str = ""
    rows_total: int = 0
    rows: int = 0
    media: CheckedMedia | None = None
    vectors_compared: int = 0
    done: bool = False


Parts: TypeAlias = AsyncGenerator[Finding | CheckProgress]


class CheckStore(CollectionStore[object], CollectionLister[Any], IntegrityStore, Protocol):
    """The store as a check uses it."""


@dataclass(slots=True)
class _State:
    """What the check has read of a collection so far."""

    stored: StoredVectors
    progress: CheckProgress


class IntegrityCheck:
    """Checks collections one after the other, and reports what it cannot check while a service does not answer."""

    def __init__(self, store: CheckStore, embedder: Embedder, index: IndexCheck, repairer: Repairer[Any]) -> None:
        self._store = store
        self._embedder = embedder
        self._index = index
        self._repairer = repairer

    async def check(self, request: CheckRequest) -> Parts:
        """Yield findings, repaired if `request` says so, and the progress of the check.

        Raises:
            ArgumentError: `drop_lost_media` without `repair`.
            CollectionNotFoundError: no such collection.
            ServiceUnavailableError: the store does not answer.
        """
        if request.drop_lost_media and not request.repair:
            raise ArgumentError("drop_lost_media", True, "requires repair")
        checking = (
            self._check_collection(request.collection, request) if request.collection else self._check_all(request)
        )
        async with aclosing(checking) as parts:
            async for part in parts:
                yield part

    async def _check_all(self, request: CheckRequest) -> Parts:
        for listed in await self._store.list_collections():
            try:
                async with aclosing(self._check_collection(listed.name, request)) as parts:
                    async for part in parts:
                        yield part
            except NotFoundError as error:
                if error.reason != CollectionNotFoundError.reason:
                    raise  # else dropped since it was listed
        async with aclosing(self._store.check_media(remove=request.repair)) as findings:
            async for finding in findings:
                yield finding
        yield CheckProgress(done=True)

    async def _check_collection(self, name: str, request: CheckRequest) -> Parts:
        collection = await self._store.get_collection(name)
        state = _State(StoredVectors(collection), CheckProgress(name))
        for finding in await self._check_fingerprints(collection):
            yield finding
        try:
            async with aclosing(self._check_rows(state, request)) as parts:
                async for part in parts:
                    yield part
        except CorruptError as error:
            yield _rows_lost(name, error)
            return
        compared = await self._compare_index(state.stored, repair=request.repair)
        for finding in compared.findings:
            yield finding
        yield replace(state.progress, vectors_compared=compared.vectors, done=True)

    async def _check_fingerprints(self, collection: Collection) -> list[Finding]:
        """Compare each space's fingerprint with the current one of its model."""
        findings = []
        for space in collection.spaces:
            if not space.model:
                continue
            try:
                fingerprint = (await self._embedder.get_model(space.model)).fingerprint
            except NotFoundError:
                fingerprint = ""
            except ServiceError as error:
                findings.append(_not_checked(collection.name, f"the fingerprint of {space.name}", error))
                continue
            if fingerprint != space.fingerprint:
                findings.append(_fingerprint_foreign(collection.name, space, fingerprint))
        return findings

    async def _check_rows(self, state: _State, request: CheckRequest) -> Parts:
        options = RowCheckOptions(
            request.media_objects, request.all_media, request.vector_sample, request.drop_lost_media
        )
        async with aclosing(self._store.check_rows(state.progress.collection, options)) as parts:
            async for part in parts:
                match part:
                    case CheckedTable(version, rows):
                        state.stored.version = version
                        state.progress = replace(state.progress, version=version, rows_total=rows)
                    case CheckedRows(ids, spaces):
                        state.stored.spaces.update(zip(ids, spaces, strict=True))
                        state.progress = replace(state.progress, rows=state.progress.rows + len(ids))
                        yield state.progress
                    case CheckedVectors():
                        state.stored.sample.append(part)
                    case CheckedMedia():
                        state.progress = replace(state.progress, media=part)
                        yield state.progress
                    case Finding():
                        yield await self._repair(part, request)

    async def _repair(self, finding: Finding, request: CheckRequest) -> Finding:
        """Repair a row's finding if requested; return it with the outcome."""
        if not request.repair:
            return finding
        repair = self._choose_repair(finding, drop=request.drop_lost_media)
        if repair is None:
            return _with_outcome(finding, because="references to lost media are dropped only on request")
        try:
            await repair()
        except Exception as error:
            return _with_outcome(finding, because=describe_failure(error))
        return _with_outcome(finding)

    def _choose_repair(self, finding: Finding, *, drop: bool) -> Callable[[], Awaitable[None]] | None:
        match finding.kind:
            case FindingKind.VECTOR_INVALID | FindingKind.VECTOR_MISSING:
                return partial(self._repairer.make_vector, finding.collection, finding.id, finding.space)
            case FindingKind.SPACES_DIFFER:
                return partial(self._repairer.rewrite, finding.collection, finding.id)
            case _:
                drop_media = partial(self._repairer.drop_media, finding.collection, finding.id, finding.sha256)
                return drop_media if drop else None

    async def _compare_index(self, stored: StoredVectors, *, repair: bool) -> IndexComparison:
        """Compare the indexes with the store; with `repair`, rebuild them if they differ and compare again."""
        name = stored.collection.name
        try:
            before = await retry(partial(self._index.compare, stored), is_transient, seconds=RETRY_SECONDS)
        except ServiceError as error:
            return IndexComparison([_not_checked(name, "the index", error)])
        if not repair or not before.findings:
            return before
        try:
            await self._index.rebuild(name)
            after = await retry(partial(self._index.compare, stored), is_transient, seconds=RETRY_SECONDS)
        except ServiceError as error:
            return IndexComparison(
                [_with_outcome(finding, because=str(error)) for finding in before.findings], before.vectors
            )
        return IndexComparison(_with_rebuild_outcome(before.findings, after.findings), after.vectors)


def _with_rebuild_outcome(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """Return the findings `before` the rebuild as repaired, and those still found `after` it as not repaired."""
    remaining = {(finding.kind, finding.id, finding.space) for finding in after}
    repaired = [
        _with_outcome(finding) for finding in before if (finding.kind, finding.id, finding.space) not in remaining
    ]
    return repaired + [_with_outcome(finding, because="rebuilding the index did not help") for finding in after]


def _fingerprint_foreign(collection: str, space: Space, fingerprint: str) -> Finding:
    actual = f"makes vectors of fingerprint {fingerprint!r}" if fingerprint else "is not in the catalogue"
    return Finding(
        FindingKind.FINGERPRINT_FOREIGN,
        collection,
        space=space.name,
        detail=f"{space.model} {actual}, the space has vectors of {space.fingerprint!r}",
        not_repaired_because="back up the collection and restore it with new embeddings",
    )


def _rows_lost(collection: str, error: CorruptError) -> Finding:
    because = "there is no other copy of the rows: restore a backup"
    return Finding(FindingKind.ROWS_LOST, collection, detail=str(error), not_repaired_because=because)


def _not_checked(collection: str, what: str, error: ServiceError) -> Finding:
    return Finding(FindingKind.NOT_CHECKED, collection, detail=f"{what} was not checked: {error}")


def _with_outcome(finding: Finding, because: str = "") -> Finding:
    """Return `finding` as repaired, or as not repaired for the reason `because`."""
    return replace(finding, repaired=not because, not_repaired_because=because)
