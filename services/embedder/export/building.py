"""Sources to folders of models: each appears whole and checked, or not at all."""

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
    """How models are to be built; None leaves it to the model or to the precision."""

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
        ExportError: one cannot be built; of it nothing is left in `options.out`. Those before it stay.
    """
    if options.name is not None and len(sources) > 1:
        raise ExportError("--name is for one model, and there are several")
    return [folder for source in sources for folder in _build(source, options, console)]


def default_name(given: str, precision: Precision) -> str:
    """Return the name of a model made of what `given` names, in `precision`."""
    last = Path(given).expanduser().resolve().name if Path(given).expanduser().is_dir() else given.rsplit("/", 1)[-1]
    plain = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")
    return f"{plain[:57]}{'' if precision == 'fp32' else f'-{precision}'}"


def _build(given: str, options: BuildOptions, console: Console) -> list[Path]:
    built_in = {model.name: model for model in read_models(BUILT_IN_MODELS)}
    if given in built_in:
        return _copy_built_in(built_in[given], options, console)
    return [_export(given, options, console)]


def _copy_built_in(model: Model, options: BuildOptions, console: Console) -> list[Path]:
    """Copy a model that comes with Medley, and the one that it continues: they are finished, and were checked."""
    said = (
        options.name,
        options.precision,
        options.query_prefix,
        options.document_prefix,
        options.pooling,
        options.revision,
    )
    if any(each is not None for each in said):
        raise ExportError(f"{model.name} comes with Medley and is taken as it is: without name, precision or prefixes")
    names = [*([model.text.base] if isinstance(model.text, TextProjection) else []), model.name]
    folders = []
    for name in names:
        place = options.out / name
        if place.exists() and not options.replace:
            if _same(BUILT_IN_MODELS / name, place):
                folders.append(place)
                continue
            raise _exists_error(place)
        with _stage_folder(options.out, name) as folder:
            shutil.copytree(BUILT_IN_MODELS / name, folder, dirs_exist_ok=True)
        console.print_line(f"{name}: copied to {place}, {megabytes(folder_size(place))}")
        folders.append(place)
    return folders


def _same(one: Path, other: Path) -> bool:
    manifest = other / MANIFEST
    return manifest.is_file() and manifest.read_bytes() == (one / MANIFEST).read_bytes()


def _export(given: str, options: BuildOptions, console: Console) -> Path:
    _require_exporters()
    # torch and transformers, that these import, take seconds; nothing else here needs them
    from services.embedder.export.sources import hash_files, resolve_source
    from services.embedder.export.writing import BuildRecord

    precision = options.precision or "fp32"
    name = options.name or default_name(given, precision)
    if not NAME.fullmatch(name):
        raise ExportError(
            f"{name!r} cannot be a model's name: 1 to 63 of a-z, 0-9, '.', '_', '-'; say another by --name"
        )
    place = options.out / name
    if place.exists() and not options.replace:
        raise _exists_error(place)
    source = resolve_source(given, options.revision, console)
    record = BuildRecord(source, hash_files(source), name, precision)
    with _stage_folder(options.out, name) as folder:
        _write(folder, record, options, console)
    console.print_line(f"{name}: built in {place}, {megabytes(folder_size(place))}")
    return place


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
        sound = folder / manifest["audio"]["file"] if "audio" in manifest else None
        least = MIN_COSINE[record.precision] if options.min_cosine is None else options.min_cosine
        parity = check_parity(model, parts, sound, least)
    except ModelFileError as error:
        raise ExportError(f"{record.name}: what was written cannot be used: {error}") from error
    for tower, each in parity.items():
        console.print_line(
            f"{record.name}: {tower}: cosine to the original {each.least:.6f} at least (on {each.worst!r}), "
            f"{each.mean:.6f} in the mean, over {each.inputs} golden inputs"
        )
    fingerprint = ModelCatalog([model], OnnxRuntime.identity).fingerprint(model.name)
    write_provenance(folder, parts, record, parity, fingerprint)


@contextmanager
def _stage_folder(out: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder that becomes `out`/`name` once the block ends well; otherwise nothing is left of it."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    place = out / name
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as scratch:
            folder = Path(scratch) / "new" / name
            folder.mkdir(parents=True)
            yield folder
            _move_into_place(folder, place, Path(scratch) / "replaced")
    except BaseException:
        for folder in made:
            with suppress(OSError):  # something else came into it meanwhile
                folder.rmdir()
        raise


def _move_into_place(folder: Path, place: Path, aside: Path) -> None:
    if not place.exists():
        folder.rename(place)
        return
    place.rename(aside)
    try:
        folder.rename(place)
    except OSError:
        aside.rename(place)
        raise


def _require_exporters() -> None:
    """Refuse before anything is downloaded."""
    missing = [name for name in EXPORTERS if find_spec(name) is None]
    if missing:
        raise ExportError(f"building models needs {', '.join(missing)}: pip install 'medley-server[export]'")


def _exists_error(place: Path) -> ExportError:
    return ExportError(f"{place} is there already; --replace builds it anew, --name under another name")
