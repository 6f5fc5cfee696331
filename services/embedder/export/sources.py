"""Where a model comes from: a folder, or a repository of the hub, which becomes one."""

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
"""What a model needs beside its weights, and what says under which licence it is."""

WEIGHTS = (
    ("model.safetensors", "model-*-of-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin"),
)
"""Weights, the first kind that a repository has."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model's folder, and what is known of where it came from."""

    given: str
    folder: Path
    revision: str = ""
    licence: str = ""
    known_sha256: Mapping[str, str] = field(default_factory=dict)
    """What the hub says of its files, by name."""

    def json(self, name: str) -> dict[str, Any]:
        """Return what the file called `name` holds; nothing where there is none.

        Raises:
            ExportError: it is not JSON, or no object.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExportError(f"{path} is not JSON: {first_line(error)}") from error
        if not isinstance(found, dict):
            raise ExportError(f"{path} is no JSON object")
        return found


def resolve_source(given: str, revision: str | None, console: Console) -> Source:
    """Return the source that `given` names: a folder, or else a repository of the hub, which is downloaded.

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
    """Return the SHA-256 of every file that the source's model is made of, by name.

    Raises:
        ExportError: one is not what the hub says it is.
    """
    hashes = {str(path.relative_to(source.folder)): sha256_of(path) for path in _files(source.folder)}
    for name, wanted in source.known_sha256.items():
        if hashes.get(name, wanted) != wanted:
            raise ExportError(
                f"{name} of {source.given} was damaged on its way; its sha256 is {hashes[name]}, the hub says "
                f"{wanted}: delete {source.folder / name} and try again"
            )
    return hashes


def _files(folder: Path) -> list[Path]:
    patterns = (*DESCRIPTIONS, *(name for names in WEIGHTS for name in names))
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _licence(folder: Path) -> str:
    """Return the licence that the front matter of the folder's README states; empty where it does not."""
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
            f"{repository} asks for its terms to be accepted on its page, and then for a token: `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ExportError(f"the hub has no {repository}{f' at {revision}' if revision else ''}") from error
    except Exception as error:  # of the hub's client and of its transport, without a common class
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
    """Return what an earlier download left, the hub being out of reach."""
    from huggingface_hub import snapshot_download

    for weights in WEIGHTS:
        with suppress(Exception):  # the client's, without a common class: it has not all of these, if anything
            patterns = [*DESCRIPTIONS, *weights]
            kept = snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True)
            if _complete(Path(kept)):
                console.print_line(f"{repository}: the hub is out of reach, using what was downloaded before")
                return Source(repository, Path(kept), Path(kept).name, _licence(Path(kept)))
    raise ExportError(_download_advice(repository, [], error)) from error


def _complete(folder: Path) -> bool:
    weights = any(list(folder.glob(pattern)) for patterns in WEIGHTS for pattern in patterns)
    return weights and (folder / "config.json").is_file()


def _download_advice(repository: str, wanted: Sequence[str], error: Exception) -> str:
    files = ", ".join(wanted) or (
        "config.json, model.safetensors, and those that are there of tokenizer.json, tokenizer_config.json, "
        "special_tokens_map.json, vocab.txt, vocab.json, merges.txt, preprocessor_config.json, modules.json, "
        "sentence_bert_config.json, config_sentence_transformers.json, 1_Pooling/config.json, README.md"
    )
    return (
        f"cannot download {repository} from the hub: {first_line(error)}. Download by hand, on a machine that can, "
        f"from https://huggingface.co/{repository}/tree/main: {files}; put them into one folder, and give that folder "
        "instead of the name. What has been downloaded already is kept: trying again goes on from there."
    )
