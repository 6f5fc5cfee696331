"""Building model folders from sources; each is moved into place only when complete and checked."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from services.embedder.adapters.model_folders import MANIFEST, read_models
from services.embedder.adapters.onnx.encoder import OnnxRuntime
from services.embedder.core.catalog import Model, ModelCatalog, TextProjection
from services.embedder.core.errors import ModelFileError
from services.embedder.export.console import Console, folder_size, megabytes
from services.embedder.export.errors import ExportError
from services.embedder.export.precision import Precision
from services.embedder.settings import BUILT_IN_MODELS

if TYPE_CHECKING:
    from services.embedder.export.writing import BuildRecord

EXPORTERS = ("torch", "transformers", "onnx", "onnxruntime", "safetensors", "huggingface_hub")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options for building models; None uses the default of the model or the precision."""

    out: Path
    name: str | None = None
    precision: Precision | None = None
    revision: str | None = None
    min_cosine: float | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    pooling: str | None = None
    replace: bool = False


def build(sources: Sequence[str], options: BuildOptions, console: Console) -> list[Path]:
    """Build a model of each of `sources` in the folder `options.out`; return their folders.

    Raises:
        ExportError: one cannot be built; it leaves nothing in `options.out`. Models built before it stay.
    """
    if options.name is not None and len(sources) > 1:
        raise ExportError("--name needs a single model")
    return [folder for source in sources for folder in _build(source, options, console)]


def default_name(given: str, precision: Precision) -> str:
    """Return the default name of a model built from `given` in `precision`."""
    last = Path(given).expanduser().resolve().name if Path(given).expanduser().is_dir() else given.rsplit("/", 1)[-1]
    plain = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")
    return f"{plain[:57]}{'' if precision == 'fp32' else f'-{precision}'}"


def _build(given: str, options: BuildOptions, console: Console) -> list[Path]:
    built_in = {model.name: model for model in read_models(BUILT_IN_MODELS)}
    if given in built_in:
        return _copy_built_in(built_in[given], options, console)
    return [_export(given, options, console)]


def _copy_built_in(model: Model, options: BuildOptions, console: Console) -> list[Path]:
    """Copy a built-in model and its base; they are complete and checked."""
    given = (
        options.name,
        options.precision,
        options.query_prefix,
        options.document_prefix,
        options.pooling,
        options.revision,
    )
    if any(each is not None for each in given):
        raise ExportError(
            f"{model.name} is built in and is copied unchanged: without name, revision, precision, pooling or prefixes"
        )
    names = [*([model.text.base] if isinstance(model.text, TextProjection) else []), model.name]
    folders = []
    for name in names:
        target = options.out / name
        if target.exists() and not options.replace:
            if _same(BUILT_IN_MODELS / name, target):
                folders.append(target)
                continue
            raise _exists_error(target)
        with _stage_folder(options.out, name) as folder:
            shutil.copytree(BUILT_IN_MODELS / name, folder, dirs_exist_ok=True)
        console.print_line(f"{name}: copied to {target}, {megabytes(folder_size(target))}")
        folders.append(target)
    return folders


def _same(one: Path, other: Path) -> bool:
    manifest = other / MANIFEST
    return manifest.is_file() and manifest.read_bytes() == (one / MANIFEST).read_bytes()


def _export(given: str, options: BuildOptions, console: Console) -> Path:
    _require_exporters()
    # these import torch and transformers, which takes seconds
    from services.embedder.export.sources import hash_files, resolve_source
    from services.embedder.export.writing import BuildRecord

    precision = options.precision or "fp32"
    name = options.name or default_name(given, precision)
    if not NAME.fullmatch(name):
        raise ExportError(
            f"{name!r} cannot be a model's name: 1 to 63 of a-z, 0-9, '.', '_', '-'; set another one with --name"
        )
    target = options.out / name
    if target.exists() and not options.replace:
        raise _exists_error(target)
    source = resolve_source(given, options.revision, console)
    record = BuildRecord(source, hash_files(source), name, precision)
    with _stage_folder(options.out, name) as folder:
        _write(folder, record, options, console)
    console.print_line(f"{name}: built in {target}, {megabytes(folder_size(target))}")
    return target


def _write(folder: Path, record: "BuildRecord", options: BuildOptions, console: Console) -> None:
    from services.embedder.export.families import TextOptions, load_parts
    from services.embedder.export.parity import MIN_COSINE, check_parity
    from services.embedder.export.writing import write_model, write_provenance

    console.print_line(f"{record.name}: loading {record.source.given}")
    parts = load_parts(record.source, TextOptions(options.query_prefix, options.document_prefix, options.pooling))
    console.print_line(f"{record.name}: {parts.family}, writing {record.precision} graphs")
    try:
        manifest = write_model(folder, parts, record)
        for note in parts.notes:
            console.print_line(f"{record.name}: {note}")
        (model,) = read_models(folder.parent)
        audio = folder / manifest["audio"]["file"] if "audio" in manifest else None
        min_cosine = MIN_COSINE[record.precision] if options.min_cosine is None else options.min_cosine
        parity = check_parity(model, parts, audio, min_cosine)
    except ModelFileError as error:
        raise ExportError(f"{record.name}: the written model cannot be loaded: {error}") from error
    for tower, each in parity.items():
        console.print_line(
            f"{record.name}: {tower}: cosine to the original at least {each.least:.6f} (on {each.worst!r}), "
            f"mean {each.mean:.6f}, over {each.inputs} golden inputs"
        )
    fingerprint = ModelCatalog([model], OnnxRuntime.identity).fingerprint(model.name)
    write_provenance(folder, parts, record, parity, fingerprint)


@contextmanager
def _stage_folder(out: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder that is moved to `out`/`name` if the block succeeds, and removed otherwise."""
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    target = out / name
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as scratch:
            folder = Path(scratch) / "new" / name
            folder.mkdir(parents=True)
            yield folder
            _move_into_place(folder, target, Path(scratch) / "replaced")
    except BaseException:
        for folder in created:
            with suppress(OSError):  # something else has been put there
                folder.rmdir()
        raise


def _move_into_place(folder: Path, target: Path, aside: Path) -> None:
    if not target.exists():
        folder.rename(target)
        return
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise


def _require_exporters() -> None:
    """Raise an error for missing packages before anything is downloaded."""
    missing = [name for name in EXPORTERS if find_spec(name) is None]
    if missing:
        raise ExportError(f"building models needs {', '.join(missing)}: pip install 'medley-server[export]'")


def _exists_error(target: Path) -> ExportError:
    return ExportError(f"{target} exists already; --replace replaces it, --name builds under another name")
