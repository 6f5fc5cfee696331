"""What a part of a change comes to as rows of Milvus."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.common.vectors import Matrix
from services.search.core.change_feed import ChangeBatch, Space
from services.search.core.scoring import prepared
from services.search.engines.milvus.client import Row
from services.search.engines.milvus.metadata_encoding import EncodedMetadata, encode_metadata, item_token
from services.search.engines.milvus.schema import FOREVER
from services.search.engines.milvus.space import key_of


@dataclass(frozen=True, slots=True)
class RowChanges:
    """A part of a change: `items` are all that it changes, by hash; `rows` what it writes, by space.

    `absent` are for each space the items changed that have no vector there now.
    """

    items: Sequence[str]
    rows: Mapping[str, Sequence[Row]]
    absent: Mapping[str, Sequence[str]]


def encode_changes(batch: ChangeBatch, spaces: Sequence[Space], round_number: int) -> RowChanges:
    """Return what `batch` comes to in `round_number`; of an id that comes twice the last one counts."""
    items = [item_token(item_id) for item_id in batch.ids]
    last = {item: row for row, item in enumerate(items)}
    changed = list(dict.fromkeys([*(item_token(item_id) for item_id in batch.deleted_ids), *items]))
    vectors = {space.name: dict(_vectors(batch, space)) for space in spaces}
    names = {row: ",".join(sorted(name for name, known in vectors.items() if row in known)) for row in last.values()}
    meant = {row: encode_metadata(batch.metadata[row]) for row in last.values() if names[row]}
    rows = {
        name: [
            {
                **_row(item, batch.ids[row], names[row], meant[row], round_number),
                "vector": known[row],
            }
            for item, row in last.items()
            if row in known
        ]
        for name, known in vectors.items()
    }
    written = {name: {row["item"] for row in some} for name, some in rows.items()}
    return RowChanges(changed, rows, {name: [each for each in changed if each not in written[name]] for name in rows})


def _vectors(batch: ChangeBatch, space: Space) -> Iterator[tuple[int, Matrix]]:
    found = batch.vectors.get(space.name)
    if found is not None and len(found.rows):
        yield from zip(found.rows.tolist(), prepared(found.vectors, space.metric), strict=True)


def _row(item: str, item_id: str, spaces: str, meant: EncodedMetadata, round_number: int) -> Row:
    return {
        "row": key_of(item, round_number),
        "item": item,
        "id": item_id,
        "spaces": spaces,
        "born": round_number,
        "died": FOREVER,
        "tokens": list(meant.tokens),
        "bounds": dict(meant.bounds),
    }
