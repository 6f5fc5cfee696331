"""Proof that rows, media, vectors and indexes agree, joined from what the services say; and repairs on request."""

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
    """What to check: one collection, or with an empty name all, and the objects that belong to none.

    `repair` repairs what can be without loss; `drop_lost_media` also drops references to media missing or damaged.
    """

    collection: str = ""
    media_objects: int = 0
    all_media: bool = False
    vector_sample: int = 0
    repair: bool = False
    drop_lost_media: bool = False


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """How far the check of a collection has come; without a collection, that of the objects that belong to none."""

    collection: str = ""
    version: str = ""
    rows_total: int = 0
    rows: int = 0
    media: CheckedMedia | None = None
    vectors_compared: int = 0
    done: bool = False


Parts: TypeAlias = AsyncGenerator[Finding | CheckProgress]


class CheckStore(CollectionStore[object], CollectionLister[Any], IntegrityStore, Protocol):
    """The sides of the store that a check needs."""


@dataclass(slots=True)
class _State:
    """What a check has read of a collection so far."""

    stored: StoredVectors
    progress: CheckProgress


class IntegrityCheck:
    """Checks collections, one after the other. A service that does not answer is reported as not checked."""

    def __init__(self, store: CheckStore, embedder: Embedder, index: IndexCheck, repairer: Repairer[Any]) -> None:
        self._store = store
        self._embedder = embedder
        self._index = index
        self._repairer = repairer

    async def check(self, request: CheckRequest) -> Parts:
        """Yield what is wrong, repaired where `request` asks for it, and how far the check has come.

        Raises:
            ArgumentError: references are to be dropped and nothing repaired.
            CollectionNotFoundError: the collection named is not there.
            ServiceUnavailableError: the store does not answer.
        """
        if request.drop_lost_media and not request.repair:
            raise ArgumentError("drop_lost_media", True, "not without repair")
        checking = self._check_collection(request.collection, request) if request.collection else self._all(request)
        async with aclosing(checking) as parts:
            async for part in parts:
                yield part

    async def _all(self, request: CheckRequest) -> Parts:
        for listed in await self._store.collections():
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
        collection = await self._store.collection(name)
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
        """Compare each space's fingerprint with that of its model as it is now."""
        findings = []
        for space in collection.spaces:
            if not space.model:
                continue
            try:
                fingerprint = (await self._embedder.model(space.model)).fingerprint
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
        """Return a finding about a row with the outcome of its repair."""
        if not request.repair:
            return finding
        repair = self._choose_repair(finding, drop=request.drop_lost_media)
        if repair is None:
            return _record(finding, because="what refers to lost media is dropped only on request")
        try:
            await repair()
        except Exception as error:
            return _record(finding, because=describe_failure(error))
        return _record(finding)

    def _choose_repair(self, finding: Finding, *, drop: bool) -> Callable[[], Awaitable[None]] | None:
        match finding.kind:
            case FindingKind.VECTOR_INVALID | FindingKind.VECTOR_MISSING:
                return partial(self._repairer.make_vector, finding.collection, finding.id, finding.space)
            case FindingKind.SPACES_DIFFER:
                return partial(self._repairer.rewrite, finding.collection, finding.id)
            case _:
                dropping = partial(self._repairer.drop_media, finding.collection, finding.id, finding.sha256)
                return dropping if drop else None

    async def _compare_index(self, stored: StoredVectors, *, repair: bool) -> IndexComparison:
        """Compare the index with what is stored; with `repair` rebuild it where it differs, and compare again."""
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
                [_record(finding, because=str(error)) for finding in before.findings], before.vectors
            )
        return IndexComparison(_record_rebuild(before.findings, after.findings), after.vectors)


def _record_rebuild(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """Return the findings `before` as repaired, but for those that are there `after` the index was rebuilt."""
    left = {(finding.kind, finding.id, finding.space) for finding in after}
    repaired = [_record(finding) for finding in before if (finding.kind, finding.id, finding.space) not in left]
    return repaired + [_record(finding, because="it is the same in an index built anew") for finding in after]


def _fingerprint_foreign(collection: str, space: Space, fingerprint: str) -> Finding:
    made = f"makes vectors of fingerprint {fingerprint!r}" if fingerprint else "is not in the catalogue"
    return Finding(
        FindingKind.FINGERPRINT_FOREIGN,
        collection,
        space=space.name,
        detail=f"{space.model} {made}, the space has vectors of {space.fingerprint!r}",
        not_repaired_because="back the collection up, and restore it embedding anew",
    )


def _rows_lost(collection: str, error: CorruptError) -> Finding:
    because = "the rows are nowhere else: restore a backup"
    return Finding(FindingKind.ROWS_LOST, collection, detail=str(error), not_repaired_because=because)


def _not_checked(collection: str, what: str, error: ServiceError) -> Finding:
    return Finding(FindingKind.NOT_CHECKED, collection, detail=f"{what} was not checked: {error}")


def _record(finding: Finding, because: str = "") -> Finding:
    """Return `finding` as repaired, or with the reason `because` of which it was not."""
    return replace(finding, repaired=not because, not_repaired_because=because)
