"""Writing a model's folder: graphs, tokenizer, `model.json`, `provenance.json` and a model card."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from services.embedder.adapters.model_folders import MANIFEST
from services.embedder.export import golden, graphs
from services.embedder.export.console import megabytes
from services.embedder.export.errors import ExportError
from services.embedder.export.parity import Parity, extract_features
from services.embedder.export.parts import AudioPart, ImagePart, Parts, TextPart
from services.embedder.export.precision import Precision
from services.embedder.export.sources import Source, sha256_of

PROVENANCE = "provenance.json"
EXPORTERS = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "safetensors", "numpy", "pillow")
UNSTATED = "not stated by its source"


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The source, name and precision of a build."""

    source: Source
    source_sha256: Mapping[str, str]
    name: str
    precision: Precision


def write_model(folder: Path, parts: Parts, record: BuildRecord) -> dict[str, Any]:
    """Write the files of the model into `folder`, which is empty; return the content of its model.json."""
    towers: dict[str, Any] = {}
    lengths: set[int] = set()
    if parts.image is not None:
        towers["image"] = _write_image(folder, parts.image, record.precision, lengths)
    if parts.text is not None:
        towers["text"] = _write_text(folder, parts.text, record.precision, lengths)
    if parts.audio is not None:
        towers["audio"] = _write_audio(folder, parts.audio, record.precision, lengths)
    if len(lengths) != 1:
        raise ExportError(f"its towers have different dimensions: {sorted(lengths)}")
    (dimensions,) = lengths
    manifest = {
        "name": record.name,
        "version": "1",
        "dimensions": dimensions,
        "metric": "cosine",
        "licence": record.source.licence or UNSTATED,
        "summary": _summary(parts, record),
        **towers,
    }
    _write_json(folder / MANIFEST, manifest)
    return manifest


def write_provenance(
    folder: Path, parts: Parts, record: BuildRecord, parity: Mapping[str, Parity], fingerprint: str
) -> None:
    """Write the provenance and parity of the model as provenance.json and as README.md."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    provenance = {
        "source": record.source.given,
        "revision": record.source.revision or None,
        "licence": record.source.licence or None,
        "family": parts.family,
        "notes": list(parts.notes),
        "precision": record.precision,
        "fingerprint": fingerprint,
        "source_sha256": dict(record.source_sha256),
        "sha256": files,
        "golden": {name: asdict(each) for name, each in parity.items()},
        "exporters": {"python": platform.python_version(), **{name: version(name) for name in EXPORTERS}},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write_json(folder / PROVENANCE, provenance)
    (folder / "README.md").write_text(_card(folder, parts, record, parity, fingerprint), encoding="utf-8")


def _write_image(folder: Path, part: ImagePart, precision: Precision, lengths: set[int]) -> dict[str, Any]:
    path, preprocessing = folder / "image.onnx", part.preprocessing
    example = torch.zeros(2, 3, preprocessing.size, preprocessing.size)
    graphs.write(part.tower, [example], ["pixels"], path, precision)
    lengths.add(part.tower.vectors(example).shape[1])
    manifest: dict[str, Any] = {
        "file": path.name,
        "sha256": sha256_of(path),
        "size": preprocessing.size,
        "resize": preprocessing.resize,
        "background": list(preprocessing.background),
        "interpolation": preprocessing.interpolation,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }
    return {**manifest, "batch_sensitive": True} if graphs.is_dynamically_quantized(path) else manifest


def _write_text(folder: Path, part: TextPart, precision: Precision, lengths: set[int]) -> dict[str, Any]:
    path, tokenizer = folder / "text.onnx", folder / "tokenizer.json"
    one, other = (part.reference([golden.TEXTS[name]]) for name in ("plain", "question"))
    shortest = min(one[0].shape[1], other[0].shape[1])
    example = [torch.cat([first[:, :shortest], second[:, :shortest]]) for first, second in zip(one, other, strict=True)]
    graphs.write(part.tower, example, part.inputs, path, precision)
    lengths.add(part.tower.vectors(*example).shape[1])
    part.tokenizer.save(str(tokenizer), pretty=False)
    manifest: dict[str, Any] = {
        "file": path.name,
        "sha256": sha256_of(path),
        "tokenizer": tokenizer.name,
        "tokenizer_sha256": sha256_of(tokenizer),
        "max_tokens": part.max_tokens,
        "inputs": list(part.inputs),
    }
    if part.padding is not None:
        manifest |= {"pad_to": part.padding.length, "pad_id": part.padding.token_id}
    if part.prefixes.query or part.prefixes.document:
        manifest["prefixes"] = asdict(part.prefixes)
    return manifest


def _write_audio(folder: Path, part: AudioPart, precision: Precision, lengths: set[int]) -> dict[str, Any]:
    path = folder / "audio.onnx"
    sounds = list(golden.sounds(int(part.features["sampling_rate"] or 0)).values())[:2]
    example = torch.from_numpy(extract_features(part, sounds))
    graphs.write(part.tower, [example], ["features"], path, precision)
    lengths.add(part.tower.vectors(example).shape[1])
    return {"file": path.name, "sha256": sha256_of(path), "features": dict(part.features)}


def _summary(parts: Parts, record: BuildRecord) -> str:
    kinds = [kind for kind, part in (("texts", parts.text), ("pictures", parts.image)) if part is not None]
    source = record.source.given if record.source.revision else Path(record.source.given).name
    return f"{' and '.join(kinds).capitalize()}: {parts.family} model {source}, {record.precision}."


def _card(folder: Path, parts: Parts, record: BuildRecord, parity: Mapping[str, Parity], fingerprint: str) -> str:
    source = record.source
    rows = [f"| {name} | {each.least:.6f} | {each.mean:.6f} | {each.worst} |" for name, each in parity.items()]
    files = [
        f"| {path.name} | {megabytes(path.stat().st_size)} |" for path in sorted(folder.glob("*.*")) if path.is_file()
    ]
    revision = f", revision {source.revision}" if source.revision else ""
    return "\n".join(
        [
            f"# {record.name}",
            "",
            f"{_summary(parts, record)} Built from `{source.given}`{revision} by `medley models build`.",
            f"Licence: {source.licence or UNSTATED}. Fingerprint: `{fingerprint}`.",
            *("", *parts.notes) * bool(parts.notes),
            "",
            "Cosine of its vectors to the original's on the golden inputs; `pixels` compares Medley's preprocessing of",
            "pictures with the original's.",
            "",
            "| tower | least | mean | worst input |",
            "|---|---|---|---|",
            *rows,
            "",
            "| file | size |",
            "|---|---|",
            *files,
            "",
            f"Hashes, versions and the time are in `{PROVENANCE}`.",
            "",
        ]
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
