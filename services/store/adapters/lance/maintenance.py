"""Upkeep of a Lance table: expiring deletions and old commits, compaction, and the index on ids.

Each function commits to the handle it is given, except where there is nothing to do.
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from services.store.adapters.lance.arrow import TIMESTAMP
from services.store.adapters.lance.compaction import FRAGMENT_ROWS, Fragment, select_fragments
from services.store.adapters.lance.dataset import ID_INDEX, Dataset

EXPIRED_DELETIONS_KEY = "medley.deletions_forgotten_up_to"
UNINDEXED_ROWS = 1000
UNINDEXED_FRAGMENTS = 4


def read_expired_deletions(dataset: Dataset) -> int:
    """Return the newest commit with deletions that are no longer known, 0 if all are."""
    return int(dataset.config().get(EXPIRED_DELETIONS_KEY, 0))


def expire_deletions(dataset: Dataset, before: datetime) -> None:
    """Remove the rows that mark deletions older than `before`; first record up to which commit they are incomplete."""
    old = dataset.to_table(
        columns=["_row_last_updated_at_version"],
        filter=(pc.field("deleted")) & (pc.field("updated") < pa.scalar(before, TIMESTAMP)),
    ).column(0)
    if len(old):
        newest = pc.max(old).as_py()
        dataset.update_config({EXPIRED_DELETIONS_KEY: str(max(newest, read_expired_deletions(dataset)))})
        dataset.delete(f"deleted AND _row_last_updated_at_version <= {newest}")


def compact(dataset: Dataset) -> None:
    """Merge small fragments, and rewrite those with many deleted rows; see `select_fragments`."""
    fragments = [
        Fragment(fragment.fragment_id, fragment.physical_rows, fragment.num_deletions)
        for fragment in dataset.get_fragments()
    ]
    selected = select_fragments(fragments)
    if selected:
        others = [fragment.number for fragment in fragments if fragment.number not in selected]
        dataset.optimize.compact_files(target_rows_per_fragment=FRAGMENT_ROWS, excluded_fragment_ids=others)


def rewrite_fragments_with_deletions(dataset: Dataset) -> None:
    """Rewrite every fragment that has a deleted row."""
    clean = [each.fragment_id for each in dataset.get_fragments() if not each.num_deletions]
    dataset.optimize.compact_files(
        target_rows_per_fragment=FRAGMENT_ROWS,
        materialize_deletions=True,
        materialize_deletions_threshold=0.0,
        excluded_fragment_ids=clean,
    )


def rebuild_index(dataset: Dataset) -> None:
    """Build the index from the rows alone: one that was merged may hold ids that are deleted."""
    dataset.create_scalar_index("id", "BTREE", name=ID_INDEX, replace=True)


def extend_index(dataset: Dataset) -> None:
    """Add the rows written since the last time to the index, once there are enough to make lookups slow."""
    index = dataset.stats.index_stats(ID_INDEX)
    few_rows = index["num_unindexed_rows"] <= UNINDEXED_ROWS + index["num_indexed_rows"] // 50
    if not few_rows or index["num_unindexed_fragments"] > UNINDEXED_FRAGMENTS:
        dataset.optimize.optimize_indices()


def expire_versions(dataset: Dataset, before: datetime) -> None:
    """Remove the commits older than `before`, except the newest and those with a tag."""
    older_than = max(timedelta(0), datetime.now(UTC) - before)
    dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)
