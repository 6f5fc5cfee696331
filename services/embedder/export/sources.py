"""Sources of models: folders, and repositories of the hub, which are downloaded."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.embedder.export.console import Console, megabytes
from services.embedder.export.errors import ExportError, first_line

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DESCRIPTIONS = ("*.json", "*.txt", "*.model", "README.md", "LICENSE*", "1_Pooling/config.json")
"""Files that a model needs besides its weights, and those that state its licence."""

WEIGHTS = (
    ("model.safetensors", "model-*-of-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin"),
)
"""Weight files by format; the first format that a repository has is used."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model's folder, and its provenance."""

    given: str
    folder: Path
    revision: str = ""
    licence: str = ""
    known_sha256: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files according to the hub, by name."""

    def json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in the file `name`; an empty one if there is no such file.

        Raises:
            ExportError: it is not a JSON object.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExportError(f"{path} is not JSON: {first_line(error)}") from error
        if not isinstance(found, dict):
            raise ExportError(f"{path} is not a JSON object")
        return found


def resolve_source(given: str, revision: str | None, console: Console) -> Source:
    """Return the source `given`: a folder, or else a repository of the hub, which is downloaded.

    Raises:
        ExportError: it is neither, or cannot be read or downloaded.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        if revision:
            raise ExportError(f"{given} is a folder: --revision is for repositories of the hub")
        return Source(str(folder.resolve()), folder, licence=_licence(folder))
    if HUB_ID.fullmatch(given):
        return _download(given, revision, console)
    raise ExportError(f"{given} is neither a built-in model, nor a folder, nor a hub id such as owner/name")


def sha256_of(path: Path) -> str:
    """Return the hash of the file at `path`, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(source: Source) -> dict[str, str]:
    """Return the SHA-256 of every file of the source, by name.

    Raises:
        ExportError: one differs from that of the hub.
    """
    hashes = {str(path.relative_to(source.folder)): sha256_of(path) for path in _files(source.folder)}
    for name, expected in source.known_sha256.items():
        if hashes.get(name, expected) != expected:
            raise ExportError(
                f"{name} of {source.given} was damaged in the download; its sha256 is {hashes[name]}, the hub's is "
                f"{expected}: delete {source.folder / name} and try again"
            )
    return hashes


def _files(folder: Path) -> list[Path]:
    patterns = (*DESCRIPTIONS, *(name for names in WEIGHTS for name in names))
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _licence(folder: Path) -> str:
    """Return the licence in the front matter of the folder's README; empty if there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license:[ \t]*['\"]?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return stated[1] if stated else ""


def _download(repository: str, revision: str | None, console: Console) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise ExportError(
            f"{repository} requires accepting its terms on its page, and a token: `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ExportError(f"the hub has no {repository}{f' at {revision}' if revision else ''}") from error
    except Exception as error:  # the hub's client and its transport have no common error class
        return _find_cached(repository, revision, error, console)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings}
    wanted = _select_files(repository, list(sizes))
    console.print_line(f"{repository}: {len(wanted)} files, {megabytes(sum(sizes[name] for name in wanted))}")
    try:
        with console.progress() as bar:
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, tqdm_class=bar))
    except Exception as error:  # as above
        raise ExportError(_download_advice(repository, wanted, error)) from error
    known = {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs}
    return Source(repository, folder, folder.name, _licence(folder), known if folder.name == info.sha else {})


def _select_files(repository: str, names: Sequence[str]) -> list[str]:
    described = [name for name in names if any(_matches(name, pattern) for pattern in DESCRIPTIONS)]
    for patterns in WEIGHTS:
        weights = [name for name in names if any(_matches(name, pattern) for pattern in patterns)]
        if weights:
            return [*described, *weights]
    raise ExportError(
        f"{repository} has no weights in the format of transformers (model.safetensors or pytorch_model.bin)"
    )


def _matches(name: str, pattern: str) -> bool:
    return Path(name).match(pattern) and name.count("/") == pattern.count("/")


def _find_cached(repository: str, revision: str | None, error: Exception, console: Console) -> Source:
    """Return an earlier download from the hub's cache, when the hub is unreachable."""
    from huggingface_hub import snapshot_download

    for weights in WEIGHTS:
        with suppress(Exception):  # no common error class: the cache lacks some of these files
            patterns = [*DESCRIPTIONS, *weights]
            kept = snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True)
            if _complete(Path(kept)):
                console.print_line(f"{repository}: the hub is unreachable, using the earlier download")
                return Source(repository, Path(kept), Path(kept).name, _licence(Path(kept)))
    raise ExportError(_download_advice(repository, [], error)) from error


def _complete(folder: Path) -> bool:
    weights = any(list(folder.glob(pattern)) for patterns in WEIGHTS for pattern in patterns)
    return weights and (folder / "config.json").is_file()


def _download_advice(repository: str, wanted: Sequence[str], error: Exception) -> str:
    files = ", ".join(wanted) or (
        "config.json, model.safetensors, and, if present, tokenizer.json, tokenizer_config.json, "
        "special_tokens_map.json, vocab.txt, vocab.json, merges.txt, preprocessor_config.json, modules.json, "
        "sentence_bert_config.json, config_sentence_transformers.json, 1_Pooling/config.json, README.md"
    )
    return (
        f"cannot download {repository} from the hub: {first_line(error)}. Download by hand, on a machine that can, "
        f"from https://huggingface.co/{repository}/tree/main: {files}; put them into one folder, and give that folder "
        "instead of the name. Files that are complete are kept, so a new attempt continues from there."
    )
