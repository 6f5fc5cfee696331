"""A folder of pictures and texts, with its subfolders.

A picture's caption is in a file beside it: `cat.txt` for `cat.jpg`, or `cat.json` with "text" and metadata. Other texts
are items of their own. An item's id is its path within the folder.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from medley.inputs.inputs import BadInputError, Input, InputError, Inputs
from medley.inputs.metadata import to_metadata
from medley.values import NewItem

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
TEXTS = frozenset({".txt", ".md"})


def folder_inputs(root: Path) -> Inputs:
    """Return the pictures and texts under `root`, folder by folder, by name; hidden files are skipped.

    Raises:
        InputError: there are none.
    """
    total = sum(1 for _ in _items(root))
    if not total:
        raise InputError(f"{root}: no pictures ({' '.join(sorted(PICTURES))}) and no texts ({' '.join(sorted(TEXTS))})")
    return Inputs((_input(root, path) for path in _items(root)), total)


def _items(root: Path) -> Iterator[Path]:
    """Yield the files that are items of their own."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        captioned = {path.stem for path in paths if path.suffix.lower() in PICTURES}
        for path in paths:
            suffix = path.suffix.lower()
            if suffix in PICTURES or (suffix in TEXTS and path.stem not in captioned):
                yield path


def _input(root: Path, path: Path) -> Input:
    name = path.relative_to(root).as_posix()
    try:
        return Input(name, _picture(name, path) if path.suffix.lower() in PICTURES else NewItem(name, _text(path)))
    except (OSError, BadInputError) as error:
        return Input(name, problem=str(error))


def _picture(name: str, path: Path) -> NewItem:
    text, metadata = _sidecar(path.with_suffix(".json"))
    for suffix in sorted(TEXTS, reverse=True):
        caption = path.with_suffix(suffix)
        if text is None and caption.is_file():
            text = _text(caption).strip() or None
    return NewItem(name, text, path, metadata)


def _sidecar(path: Path) -> tuple[str | None, Mapping[str, object]]:
    """Return the text and metadata of a picture's JSON file; keys other than "text" and "metadata" are metadata too."""
    if not path.is_file():
        return None, {}
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path}: must be a JSON object")
    text, nested = content.pop("text", None), content.pop("metadata", {})
    if not isinstance(text, str | None) or not isinstance(nested, dict):
        raise BadInputError(f'{path}: "text" must be a string, "metadata" an object')
    return text or None, to_metadata({**content, **nested})


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: not UTF-8 at byte {error.start}") from error
