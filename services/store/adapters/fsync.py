"""Fsync of a Lance dataset's files, which Lance itself leaves to the operating system."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAX_VERSION = 2**64 - 1


class FolderFiles:
    """`DatasetFiles` of a dataset in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._synced: set[Path] = set()
        self._lock = threading.Lock()

    def sync(self, dataset: Any) -> None:
        """Fsync the files of the commit that `dataset` is open at, except those synced before."""
        with self._lock:
            files = set(commit_files(self._folder, dataset))
            new = files - self._synced
            for path in sorted(new) + sorted({path.parent for path in new}):
                sync_path(path)
            self._synced = files


def commit_files(folder: Path, dataset: Any) -> Iterator[Path]:
    """Yield the files of a dataset's commit: rows, deletions, indexes, all tags, and the manifest.

    Lance names manifests by the largest version minus theirs, so that the newest sorts first.
    """
    for fragment in dataset.get_fragments():
        yield from (folder / "data" / file.path for file in fragment.metadata.files)
        if fragment.metadata.deletion_file:
            yield folder / fragment.metadata.deletion_file.path(fragment.fragment_id)
    for index in (folder / "_indices").iterdir():
        yield from (index, *_list_folder(index))
    if (tags := folder / "_refs" / "tags").is_dir():
        yield from (tags, *_list_folder(tags))
    yield folder / "_versions" / f"{_MAX_VERSION - dataset.version:020d}.manifest"


def _list_folder(folder: Path) -> list[Path]:
    """Return the files in `folder`; none if a clean-up has removed it, since no commit needs it then."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def sync_tree(folder: Path) -> None:
    """Fsync `folder` and everything in it."""
    for path in (*folder.rglob("*"), folder):
        sync_path(path)


def sync_path(path: Path) -> None:
    """Fsync a file or folder, unless it was deleted."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
