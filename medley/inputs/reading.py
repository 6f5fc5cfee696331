"""Which reader suits a path."""

from pathlib import Path

from medley.inputs.folder import folder_inputs
from medley.inputs.inputs import Columns, InputError, Inputs
from medley.inputs.manifests import READERS, manifest_inputs


def open_inputs(path: Path, columns: Columns) -> Inputs:
    """Return the inputs of the folder or manifest at `path`.

    Raises:
        InputError: there is nothing at `path`, or nothing of a kind that can be read, or a column is not there.
    """
    if path.is_dir():
        return folder_inputs(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() not in READERS:
        kinds = ", ".join(READERS)
        raise InputError(f"{path}: not a folder, and no manifest of a kind that can be read ({kinds})")
    return manifest_inputs(path, columns)
