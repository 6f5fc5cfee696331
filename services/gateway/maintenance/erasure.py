"""Erases items and proves that nothing of them is left."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from services.common.errors import ArgumentError, ServiceError
from services.common.names import validate_item_id
from services.gateway.core.index import IndexMaintenance
from services.gateway.core.store import CollectionStore, PurgeResult, RowEraser

MAX_IDS = 1000


class ErasureStore(CollectionStore[object], RowEraser, Protocol):
    """The store as an erasure uses it."""


@dataclass(frozen=True, slots=True)
class ReceiptCheck:
    """One check of a receipt: whether nothing of the item is left there; `detail` is for people to read."""

    what: str
    gone: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The removal of an item and the checks made after it; `sha256` is empty when it had no media."""

    collection: str
    id: str
    sha256: str
    existed: bool
    checks: Sequence[ReceiptCheck]
    deleted_version: str
    purged_version: str
    time: datetime

    @property
    def complete(self) -> bool:
        """Whether nothing is left: every check passed."""
        return all(check.gone for check in self.checks)


@dataclass(frozen=True, slots=True)
class _IndexState:
    """Which of the erased `ids` an index still contains as of `version`; `problem` says why that is not known."""

    space: str
    version: str = ""
    ids: frozenset[str] = frozenset()
    problem: str = ""


class Erasure:
    """Erases items: first from the newest version, then from the indexes, then from older versions."""

    def __init__(self, store: ErasureStore, index: IndexMaintenance) -> None:
        self._store = store
        self._index = index

    async def erase(self, name: str, ids: Sequence[str], sha256s: Sequence[str]) -> list[Receipt]:
        """Erase items and return a receipt for each of `ids`, in order; `sha256s` name media of items deleted earlier.

        Raises:
            ArgumentError: no ids, too many, or one twice.
            IdError: an id is not valid.
            CollectionNotFoundError: no such collection.
            ServiceUnavailableError: the store does not answer; repeat the call, as items may be deleted but not purged.
        """
        _validate_ids(ids)
        collection = await self._store.get_collection(name)
        before = await self._store.get_media_hashes(name, ids)
        deleted_version = await self._store.delete(name, ids)
        indexes = [await self._read_index(name, space.name, deleted_version, ids) for space in collection.spaces]
        snapshots = await self._drop_snapshots(name, deleted_version)
        purge = await self._store.purge(name, ids, sorted({*filter(None, before.values()), *sha256s}))
        return [
            Receipt(
                collection=name,
                id=item_id,
                sha256=before.get(item_id, ""),
                existed=item_id in before,
                checks=[
                    ReceiptCheck("row", True, f"no item of the id as of {purge.version}"),
                    _check_older_versions(purge),
                    _check_media([before[item_id]] if item_id in before else sha256s, purge),
                    ReceiptCheck("thumbnails", True, "none are made"),
                    *(_check_index(item_id, index) for index in indexes),
                    snapshots,
                ],
                deleted_version=deleted_version,
                purged_version=purge.version,
                time=datetime.now(UTC),
            )
            for item_id in ids
        ]

    async def _read_index(self, collection: str, space: str, version: str, ids: Sequence[str]) -> _IndexState:
        erased, found, indexed_version = frozenset(ids), frozenset[str](), ""
        try:
            async with aclosing(self._index.list_ids(collection, space, version)) as parts:
                async for part in parts:
                    found |= erased.intersection(part.ids)
                    indexed_version = part.version
        except ServiceError as error:
            return _IndexState(space, problem=str(error))
        return _IndexState(space, indexed_version, found)

    async def _drop_snapshots(self, collection: str, version: str) -> ReceiptCheck:
        try:
            await self._index.drop_snapshots(collection, version)
        except ServiceError as error:
            return ReceiptCheck("snapshots", False, f"not known: {error}")
        return ReceiptCheck("snapshots", True, f"no index is saved as of a version before {version}")


def _check_older_versions(purge: PurgeResult) -> ReceiptCheck:
    tagged = f"tags hold versions of it: {', '.join(purge.tags)}; delete them and erase again"
    clean = "all files with removed rows are rewritten, all older versions removed"
    return ReceiptCheck("older versions", not purge.tags, tagged if purge.tags else clean)


def _check_media(sha256s: Sequence[str], purge: PurgeResult) -> ReceiptCheck:
    if not sha256s:
        detail = "not known: no such item, and no hash was given (--media SHA256); unreferenced media are removed later"
        return ReceiptCheck("media", False, detail)
    kept = [each.kept_by for each in purge.media if each.sha256 in sha256s and not each.gone]
    if kept:
        return ReceiptCheck("media", False, f"others refer to the same bytes: {', '.join(kept)}")
    return ReceiptCheck("media", True, "no object of the hash is stored" if any(sha256s) else "there were none")


def _check_index(item_id: str, index: _IndexState) -> ReceiptCheck:
    what = f"index {index.space}"
    if index.problem:
        return ReceiptCheck(what, False, f"not known: {index.problem}")
    if item_id in index.ids:
        return ReceiptCheck(what, False, f"has it as of {index.version}")
    return ReceiptCheck(what, True, f"has no such item as of {index.version}")


def _validate_ids(ids: Sequence[str]) -> None:
    if not 1 <= len(ids) <= MAX_IDS:
        raise ArgumentError("ids", len(ids), f"must be 1 to {MAX_IDS}")
    if len(set(ids)) < len(ids):
        raise ArgumentError("ids", len(ids), "must differ")
    for item_id in ids:
        validate_item_id(item_id)
