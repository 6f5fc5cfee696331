"""Rows read lately, kept in memory: what many searches find need not be looked up each time."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from services.store.rows import Part, Parts, Row
from services.store.tables import Snapshot

KEPT: Parts = frozenset({Part.TEXT, Part.METADATA, Part.MEDIA})
IDS_AT_MOST = 256  # more at a time is a bulk read, which would only push out what is asked for often
ROW_BYTES = 1000  # of a row's objects, without its text and metadata

_Key = tuple[str, int, str]


class RecentRows:
    """At most about `max_bytes` of rows without vectors, the ones read last.

    A row is kept under its commit, so that a commit makes all from before it useless at once, and nothing is ever told
    of a row but what its table says as of the commit asked.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[_Key, Row] = OrderedDict()

    async def get(self, table: Snapshot, ids: Collection[str], parts: Parts) -> Mapping[str, Row]:
        """Return the rows of `ids`; ids without a row are left out. Raises as `Snapshot.get` does."""
        if Part.VECTORS in parts or len(ids) > IDS_AT_MOST:
            return (await table.get(ids, parts)).rows
        version, here = table.version, self._recalled(table, ids)
        missing = [row_id for row_id in ids if row_id not in here]
        if missing:
            found = await table.get(missing, KEPT)
            if here and found.version != version:  # a commit came between: all is to be as of one
                here, found = {}, await table.get(ids, KEPT)
            self._keep(table.definition.uid, found.version, found.rows.values())
            here.update(found.rows)
        return here if parts == KEPT else {row_id: _cut(row, parts) for row_id, row in here.items()}

    def _recalled(self, table: Snapshot, ids: Collection[str]) -> dict[str, Row]:
        here = {}
        for row_id in ids:
            key = (table.definition.uid, table.version, row_id)
            if key in self._rows:
                self._rows.move_to_end(key)
                here[row_id] = self._rows[key]
        return here

    def _keep(self, uid: str, version: int, rows: Iterable[Row]) -> None:
        for row in rows:
            key = (uid, version, row.id)
            if key not in self._rows:
                self._bytes += _bytes(row)
            self._rows[key] = row
        while self._bytes > self._max_bytes:
            self._bytes -= _bytes(self._rows.popitem(last=False)[1])


def _bytes(row: Row) -> int:
    return ROW_BYTES + len(row.text or "") + len(row.metadata_json)


def _cut(row: Row, parts: Parts) -> Row:
    return replace(
        row,
        text=row.text if Part.TEXT in parts else None,
        metadata_json=row.metadata_json if Part.METADATA in parts else "{}",
        media=row.media if Part.MEDIA in parts else None,
    )
