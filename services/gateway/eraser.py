"""Deleting items with a proof that nothing of them is left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from medley.v1 import collection_pb2, item_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import search_service_pb2 as search_pb
from medley.v1 import store_service_pb2 as store_pb
from services.common.errors import ArgumentError, ServiceError
from services.common.names import checked_id
from services.common.neighbours import call, stream
from services.gateway.stubs import Neighbours

MAX_IDS = 1000
PURGE_SECONDS = 3600.0
INDEX_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Indexed:
    """What one index holds: of which version, the ids of those asked for that it has, or why that is not known."""

    space: str
    version: str = ""
    ids: frozenset[str] = frozenset()
    problem: str = ""


class Eraser:
    """Erases items: out of the newest version first, then out of the index, then out of all that is past."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._store = neighbours.store
        self._search = neighbours.search

    async def erase(self, request: pb.EraseItemsRequest) -> pb.EraseItemsResponse:
        """Answer EraseItems.

        Raises:
            ArgumentError: no ids, too many, or one twice.
            IdError: an id that cannot be.
            CollectionNotFoundError: no such collection.
            ServiceUnavailableError: the store does not answer; ask again, the items may be deleted and not purged yet.
        """
        ids = _checked_ids(request.ids)
        asked = store_pb.GetTableRequest(name=request.collection)
        table: store_pb.GetTableResponse = await call("store", self._store.GetTable, asked)
        before = await self._media(request.collection, ids)
        deletion = store_pb.DeleteRowsRequest(collection=request.collection, ids=store_pb.ItemIds(ids=ids))
        deleted: store_pb.DeleteRowsResponse = await call("store", self._store.DeleteRows, deletion)
        indexed = [
            await self._indexed(table.collection, space.name, deleted.version, ids) for space in table.collection.spaces
        ]
        snapshots = await self._dropped_snapshots(request.collection, deleted.version)
        sha256s = sorted({*filter(None, before.values()), *request.sha256s})
        purge = store_pb.PurgeRowsRequest(collection=request.collection, ids=ids, sha256s=sha256s)
        purged: store_pb.PurgeRowsResponse = await call("store", self._store.PurgeRows, purge, seconds=PURGE_SECONDS)
        return pb.EraseItemsResponse(
            receipts=[
                _receipt(
                    request.collection,
                    item_id,
                    before=before,
                    told=request.sha256s,
                    deleted=deleted,
                    indexed=[*(_index_check(item_id, index) for index in indexed), snapshots],
                    purged=purged,
                )
                for item_id in ids
            ]
        )

    async def _media(self, collection: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the hash of the media of each of `ids` that has an item, "" where it has none."""
        asked = store_pb.GetRowsRequest(collection=collection, ids=ids, fields=[item_pb2.ITEM_FIELD_MEDIA])
        answer: store_pb.GetRowsResponse = await call("store", self._store.GetRows, asked)
        return {each.item.id: each.item.media.sha256 for each in answer.lookups if each.HasField("item")}

    async def _indexed(
        self, collection: collection_pb2.Collection, space: str, version: str, ids: Sequence[str]
    ) -> _Indexed:
        asked = search_pb.ListIndexItemsRequest(collection=collection.name, space=space, version=version)
        wanted, found, applied = frozenset(ids), frozenset[str](), ""
        try:
            async for message in stream("search", self._search.ListIndexItems, asked, seconds=INDEX_SECONDS):
                found |= wanted.intersection(message.ids)
                applied = message.version
        except ServiceError as error:
            return _Indexed(space, problem=str(error))
        return _Indexed(space, applied, found)

    async def _dropped_snapshots(self, collection: str, version: str) -> pb.ReceiptCheck:
        drop = search_pb.DropSnapshotsRequest(collection=collection, version=version)
        try:
            await call("search", self._search.DropSnapshots, drop)
        except ServiceError as error:
            return pb.ReceiptCheck(what="snapshots", gone=False, detail=f"not known: {error}")
        return pb.ReceiptCheck(
            what="snapshots", gone=True, detail=f"no index is saved as of a version before {version}"
        )


def _receipt(
    collection: str,
    item_id: str,
    *,
    before: Mapping[str, str],
    told: Sequence[str],
    deleted: store_pb.DeleteRowsResponse,
    indexed: Sequence[pb.ReceiptCheck],
    purged: store_pb.PurgeRowsResponse,
) -> pb.Receipt:
    checks = [
        pb.ReceiptCheck(what="row", gone=True, detail=f"no item of the id as of {purged.version}"),
        _past(purged),
        _media_check([before[item_id]] if item_id in before else told, purged),
        pb.ReceiptCheck(what="thumbnails", gone=True, detail="none are made"),
        *indexed,
    ]
    time = Timestamp()
    time.GetCurrentTime()
    return pb.Receipt(
        collection=collection,
        id=item_id,
        sha256=before.get(item_id, ""),
        existed=item_id in before,
        complete=all(check.gone for check in checks),
        checks=checks,
        deleted_version=deleted.version,
        purged_version=purged.version,
        time=time,
    )


def _past(purged: store_pb.PurgeRowsResponse) -> pb.ReceiptCheck:
    held = f"tags hold versions of it: {', '.join(purged.tags)}; delete them and erase again"
    clean = "all files with removed rows are rewritten, all older versions removed"
    return pb.ReceiptCheck(what="older versions", gone=not purged.tags, detail=held if purged.tags else clean)


def _media_check(sha256s: Sequence[str], purged: store_pb.PurgeRowsResponse) -> pb.ReceiptCheck:
    if not sha256s:
        detail = (
            "not known: there was no such item, and no hash was told (--media SHA256); what nobody refers to goes later"
        )
        return pb.ReceiptCheck(what="media", gone=False, detail=detail)
    kept = [each.kept_by for each in purged.media if each.sha256 in sha256s and not each.gone]
    if kept:
        return pb.ReceiptCheck(what="media", gone=False, detail=f"others refer to the same bytes: {', '.join(kept)}")
    detail = "no object of the hash is stored" if any(sha256s) else "there were none"
    return pb.ReceiptCheck(what="media", gone=True, detail=detail)


def _index_check(item_id: str, index: _Indexed) -> pb.ReceiptCheck:
    what = f"index {index.space}"
    if index.problem:
        return pb.ReceiptCheck(what=what, gone=False, detail=f"not known: {index.problem}")
    if item_id in index.ids:
        return pb.ReceiptCheck(what=what, gone=False, detail=f"has it as of {index.version}")
    return pb.ReceiptCheck(what=what, gone=True, detail=f"has no such item as of {index.version}")


def _checked_ids(ids: Sequence[str]) -> list[str]:
    if not 1 <= len(ids) <= MAX_IDS:
        raise ArgumentError("ids", len(ids), f"there must be 1 to {MAX_IDS}")
    if len(set(ids)) < len(ids):
        raise ArgumentError("ids", len(ids), "must differ")
    return [checked_id(item_id) for item_id in ids]
