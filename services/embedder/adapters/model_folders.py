"""Models from folders, each described by its `model.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.vectors import MAX_DIMENSIONS, Metric
from services.embedder.core.catalog import (
    Model,
    ModelFile,
    Padding,
    PictureTower,
    Prefixes,
    TextHead,
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
    """What makes vectors must be understood to the last word: an unknown one is refused."""

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
    alone: bool = False


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
    def _padding_is_whole(self) -> Self:
        if (self.pad_to is None) != (self.pad_id is None):
            raise ValueError("pad_to and pad_id come together")
        if self.pad_to is not None and self.pad_to < self.max_tokens:
            raise ValueError(f"pad_to is {self.pad_to}, less than max_tokens, {self.max_tokens}")
        return self

    @property
    def padding(self) -> Padding | None:
        return None if self.pad_to is None or self.pad_id is None else Padding(self.pad_to, self.pad_id)


class _Head(_Tower):
    after: str


class _Audio(_Tower):
    """A graph from spectrograms; kept beside the others for the day when sound is decoded, and not used until then."""

    features: dict[str, Scalar]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    dimensions: int = Field(gt=0, le=MAX_DIMENSIONS)
    metric: Metric
    licence: str = Field(min_length=1)
    summary: str = Field(min_length=1)
    image: _Image | None = None
    text: _Text | _Head | None = None
    audio: _Audio | None = None


def read_models(*folders: Path) -> list[Model]:
    """Return the models in the folders of `folders`; those without a `model.json` are passed over.

    Raises:
        ModelFileError: one of `folders` has no model, a model does not say what it must, or says what cannot be, or
            two have one name.
    """
    models = {path: _read(path) for folder in folders for path in _manifests(folder)}
    _check_names(models)
    _check_heads(models)
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


def _text(folder: Path, manifest: _Manifest) -> TextTower | TextHead | None:
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
        case _Head() as head:
            return TextHead(_graph(folder, head), head.after, manifest.dimensions)
        case None:
            return None


def _image(folder: Path, manifest: _Manifest) -> PictureTower | None:
    image = manifest.image
    if image is None:
        return None
    wanted = Preprocessing(image.size, image.background, image.interpolation, image.mean, image.std, image.resize)
    return PictureTower(_graph(folder, image), wanted, manifest.dimensions, image.alone)


def _graph(folder: Path, tower: _Tower) -> ModelFile:
    return ModelFile(folder / tower.file, tower.sha256)


def _check_names(models: Mapping[Path, Model]) -> None:
    places: dict[str, Path] = {}
    for path, model in models.items():
        if model.name in places:
            raise ModelFileError(path, f"two models are called {model.name!r}; the other is {places[model.name]}")
        places[model.name] = path


def _check_heads(models: Mapping[Path, Model]) -> None:
    trunks = {model.name for model in models.values() if isinstance(model.text, TextTower)}
    for path, model in models.items():
        if isinstance(model.text, TextHead) and model.text.after not in trunks:
            problem = f"model {model.name!r} comes after {model.text.after!r}, and no such model has a tokenizer"
            raise ModelFileError(path, problem)


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
