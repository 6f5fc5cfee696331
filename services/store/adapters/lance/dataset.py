"""Lance datasets: creating and opening them, and reading what every commit carries besides rows."""

from typing import Any, TypeAlias

import lance
import pyarrow as pa

from services.store.adapters.lance.errors import is_missing_file
from services.store.adapters.lance.schema_json import index_from_json
from services.store.adapters.lance.table_directory import TableLocation
from services.store.core.rows import CollectionSchema

Dataset: TypeAlias = Any  # lance.LanceDataset, which has no types

ID_INDEX = "id_idx"
INDEX_KEY_PREFIX = "medley.index."
MAX_TAG_READS = 20


def create_dataset(location: TableLocation, columns: pa.Schema, session: Any) -> Dataset:
    """Create an empty table with its index."""
    dataset = lance.write_dataset(
        columns.empty_table(),
        location.uri,
        schema=columns,
        mode="create",
        enable_stable_row_ids=True,
        session=session,
        storage_options=location.storage_options or None,
    )
    dataset.create_scalar_index("id", "BTREE", name=ID_INDEX)
    return dataset


def open_dataset(location: TableLocation, session: Any) -> Dataset:
    """Open the newest commit of a table."""
    return lance.dataset(location.uri, session=session, storage_options=location.storage_options or None)


def open_newest(dataset: Dataset) -> Dataset:
    """Return a new handle on the newest commit."""
    return dataset.checkout_version(dataset.latest_version)


def read_schema(dataset: Dataset, created: CollectionSchema) -> CollectionSchema:
    """Return the collection's schema as of the commit that `dataset` is open at, `created` with later index changes."""
    config = dataset.config()
    keys = {space.name: INDEX_KEY_PREFIX + space.name for space in created.spaces}
    return created.with_indexes({name: index_from_json(config[key]) for name, key in keys.items() if key in config})


def read_tags(dataset: Dataset) -> dict[str, int]:
    """Return the version each tag names.

    Lance reads tags one by one and fails if one is deleted before its turn: then they are read again.
    """
    for _ in range(MAX_TAG_READS):
        try:
            return {name: tag["version"] for name, tag in dataset.tags.list().items()}
        except (OSError, ValueError) as error:
            if "/_refs/tags/" not in str(error) or not is_missing_file(error):
                raise
            failure = error
    raise failure
