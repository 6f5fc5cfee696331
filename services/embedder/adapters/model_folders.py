"""Models from folders, each described by its `model.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.vectors import MAX_DIMENSIONS, Metric
from services.embedder.core.catalog import (
    ImageTower,
    Model,
    ModelFile,
    Padding,
    Prefixes,
    TextProjection,
    TextTower,
)
from services.embedder.core.errors import ModelFileError
from services.embedder.core.preprocessing import Interpolation, Preprocessing, Resize

MANIFEST = "model.json"

FileName = Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shade = Annotated[int, Field(ge=0, le=255)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Scalar = str | int | float | bool | None


class _Tower(BaseModel):
    """Unknown fields are refused, because they may change the vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: FileName
    sha256: Sha256


class _Image(_Tower):
    size: int = Field(gt=0, le=4096)
    resize: Resize
    background: tuple[Shade, Shade, Shade]
    interpolation: Interpolation
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    batch_sensitive: bool = False


class _Prefixes(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = ""
    document: str = ""


class _Text(_Tower):
    tokenizer: FileName
    tokenizer_sha256: Sha256
    max_tokens: int = Field(gt=0)
    pad_to: int | None = Field(None, gt=0)
    pad_id: int | None = Field(None, ge=0)
    inputs: tuple[Literal["input_ids"]] | tuple[Literal["input_ids"], Literal["attention_mask"]] = (
        "input_ids",
        "attention_mask",
    )
    prefixes: _Prefixes = _Prefixes()

    @model_validator(mode="after")
    def _validate_padding(self) -> Self:
        if (self.pad_to is None) != (self.pad_id is None):
            raise ValueError("pad_to and pad_id must be given together")
        if self.pad_to is not None and self.pad_to < self.max_tokens:
            raise ValueError(f"pad_to is {self.pad_to}, less than max_tokens, {self.max_tokens}")
        return self

    @property
    def padding(self) -> Padding | None:
        return None if self.pad_to is None or self.pad_id is None else Padding(self.pad_to, self.pad_id)


class _Projection(_Tower):
    base: str


class _Audio(_Tower):
    """A graph that takes spectrograms; not used yet, because the embedder decodes no audio."""

    features: dict[str, Scalar]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    dimensions: int = Field(gt=0, le=MAX_DIMENSIONS)
    metric: Metric
    licence: str = Field(min_length=1)
    summary: str = Field(min_length=1)
    image: _Image | None = None
    text: _Text | _Projection | None = None
    audio: _Audio | None = None


def read_models(*folders: Path) -> list[Model]:
    """Return the models in the subfolders of `folders`; subfolders without a `model.json` are ignored.

    Raises:
        ModelFileError: one of `folders` has no model, a `model.json` is invalid, or two models have the same name.
    """
    models = {path: _read(path) for folder in folders for path in _manifests(folder)}
    _check_names(models)
    _check_bases(models)
    return list(models.values())


def _manifests(folder: Path) -> list[Path]:
    manifests = sorted(folder.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise ModelFileError(folder, f"no folder in it holds a {MANIFEST}")
    return manifests


def _read(path: Path) -> Model:
    try:
        manifest = _Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelFileError(path, _problems(error)) from error
    if manifest.image is None and manifest.text is None:
        raise ModelFileError(path, "it has neither text nor image")
    return Model(
        name=manifest.name,
        dimensions=manifest.dimensions,
        metric=manifest.metric,
        summary=f"{manifest.summary} Licence: {manifest.licence}.",
        text=_text(path.parent, manifest),
        image=_image(path.parent, manifest),
    )


def _text(folder: Path, manifest: _Manifest) -> TextTower | TextProjection | None:
    match manifest.text:
        case _Text() as text:
            tokenizer = ModelFile(folder / text.tokenizer, text.tokenizer_sha256)
            return TextTower(
                _graph(folder, text),
                tokenizer,
                text.max_tokens,
                manifest.dimensions,
                padding=text.padding,
                inputs=text.inputs,
                prefixes=Prefixes(text.prefixes.query, text.prefixes.document),
            )
        case _Projection() as projection:
            return TextProjection(_graph(folder, projection), projection.base, manifest.dimensions)
        case None:
            return None


def _image(folder: Path, manifest: _Manifest) -> ImageTower | None:
    image = manifest.image
    if image is None:
        return None
    preprocessing = Preprocessing(
        image.size, image.background, image.interpolation, image.mean, image.std, image.resize
    )
    return ImageTower(_graph(folder, image), preprocessing, manifest.dimensions, image.batch_sensitive)


def _graph(folder: Path, tower: _Tower) -> ModelFile:
    return ModelFile(folder / tower.file, tower.sha256)


def _check_names(models: Mapping[Path, Model]) -> None:
    paths: dict[str, Path] = {}
    for path, model in models.items():
        if model.name in paths:
            raise ModelFileError(path, f"two models are called {model.name!r}; the other is {paths[model.name]}")
        paths[model.name] = path


def _check_bases(models: Mapping[Path, Model]) -> None:
    bases = {model.name for model in models.values() if isinstance(model.text, TextTower)}
    for path, model in models.items():
        if isinstance(model.text, TextProjection) and model.text.base not in bases:
            problem = f"model {model.name!r} builds on {model.text.base!r}, and no such model has a tokenizer"
            raise ModelFileError(path, problem)


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
