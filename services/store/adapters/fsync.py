"""Making files outlive a power failure; Lance leaves that to the system."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LAST_MANIFEST = 2**64 - 1


class DurableFiles:
    """The files of a Lance dataset, each written once and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._synced: set[Path] = set()
        self._turn = threading.Lock()

    def sync(self, dataset: Any) -> None:
        """Return once the commit that `dataset` is open at is on the disk."""
        with self._turn:
            files = set(commit_files(self._folder, dataset))
            new = files - self._synced
            for path in sorted(new) + sorted({path.parent for path in new}):
                sync_path(path)
            self._synced = files


def commit_files(folder: Path, dataset: Any) -> Iterator[Path]:
    """Yield the files of a dataset's commit: its rows, what is deleted of them, indexes, all tags, and its manifest.

    Manifests are named so that the newest comes first.
    """
    for fragment in dataset.get_fragments():
        yield from (folder / "data" / file.path for file in fragment.metadata.files)
        if fragment.metadata.deletion_file:
            yield folder / fragment.metadata.deletion_file.path(fragment.fragment_id)
    for index in (folder / "_indices").iterdir():
        yield from (index, *_listed(index))
    if (tags := folder / "_refs" / "tags").is_dir():
        yield from (tags, *_listed(tags))
    yield folder / "_versions" / f"{_LAST_MANIFEST - dataset.version:020d}.manifest"


def _listed(folder: Path) -> list[Path]:
    """Return what is in `folder`: nothing in one that a clean-up has removed since, as no commit needs it any more."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def sync_tree(folder: Path) -> None:
    """Return once everything under `folder` is on the disk."""
    for path in (*folder.rglob("*"), folder):
        sync_path(path)


def sync_path(path: Path) -> None:
    """Return once the file or folder at `path` is on the disk; one that is gone needs nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
