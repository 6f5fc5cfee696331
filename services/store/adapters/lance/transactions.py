"""Commits to a Lance table. Each goes through a new handle, so that handles in use for reading never change."""

from collections.abc import Mapping

import pyarrow as pa

from services.store.adapters.lance.dataset import Dataset, open_newest, read_tags
from services.store.adapters.lance.table_directory import DatasetFiles
from services.store.core.table import WriteConflictError


def merge_rows(dataset: Dataset, rows: pa.Table, base_version: int, files: DatasetFiles) -> Dataset:
    """Commit `rows` by id on top of `base_version`; return a handle on the commit.

    The merge does not use the index: so Lance compares the keys themselves, and detects that another writer added the
    same one.

    Raises:
        WriteConflictError: `base_version` is no longer kept.
    """
    base = _open_base(dataset, base_version)
    merge = base.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    merge.use_index(False).conflict_retries(0).execute(rows)
    files.sync(base)
    return base


def update_config(dataset: Dataset, entries: Mapping[str, str], files: DatasetFiles) -> Dataset:
    """Commit `entries` of the configuration, which conflict with no row; return a handle on the commit."""
    newest = open_newest(dataset)
    newest.update_config(entries)
    files.sync(newest)
    return newest


def create_tag(dataset: Dataset, name: str, version: int, files: DatasetFiles) -> None:
    """Tag `version`, unless the name is in use.

    Raises:
        OSError, ValueError: the version is no longer kept.
    """
    if name not in read_tags(dataset):
        dataset.checkout_version(version)
        newest = open_newest(dataset)
        newest.tags.create(name, version)
        files.sync(newest)


def delete_tag(dataset: Dataset, name: str, files: DatasetFiles) -> bool:
    """Delete a tag; return whether there was one."""
    if name not in read_tags(dataset):
        return False
    newest = open_newest(dataset)
    newest.tags.delete(name)
    files.sync(newest)
    return True


def _open_base(dataset: Dataset, version: int) -> Dataset:
    try:
        return dataset.checkout_version(version)
    except (OSError, ValueError) as error:
        if version == dataset.latest_version:
            raise
        raise WriteConflictError from error  # removed since it was read, so there are newer commits
