"""Opens the inputs at a path with the reader for its kind."""

from pathlib import Path

from medley.inputs.folder import folder_inputs
from medley.inputs.inputs import Columns, InputError, Inputs
from medley.inputs.manifests import READERS, manifest_inputs


def open_inputs(path: Path, columns: Columns) -> Inputs:
    """Return the inputs of the folder or manifest at `path`.

    Raises:
        InputError: there is nothing at `path`, its kind is not supported, or a column is missing.
    """
    if path.is_dir():
        return folder_inputs(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() not in READERS:
        kinds = ", ".join(READERS)
        raise InputError(f"{path}: neither a folder nor a manifest of a supported kind ({kinds})")
    return manifest_inputs(path, columns)
