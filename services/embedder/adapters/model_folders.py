"""Models from folders, each described by its `model.json`."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.vectors import MAX_DIMENSIONS, Metric
from services.embedder.catalogue import Model, ModelFile, PictureTower, TextHead, TextTower
from services.embedder.errors import ModelFileError
from services.embedder.preprocessing import Interpolation, Preprocessing

MANIFEST = "model.json"

FileName = Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shade = Annotated[int, Field(ge=0, le=255)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Tower(BaseModel):
    """What makes vectors must be understood to the last word: an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: FileName
    sha256: Sha256


class _Image(_Tower):
    size: int = Field(gt=0, le=4096)
    resize: Literal["pad"]
    background: tuple[Shade, Shade, Shade]
    interpolation: Interpolation
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]


class _Text(_Tower):
    tokenizer: FileName
    tokenizer_sha256: Sha256
    max_tokens: int = Field(gt=0)


class _Head(_Tower):
    after: str


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    dimensions: int = Field(gt=0, le=MAX_DIMENSIONS)
    metric: Metric
    licence: str = Field(min_length=1)
    summary: str = Field(min_length=1)
    image: _Image | None = None
    text: _Text | _Head | None = None


def read_models(folder: Path) -> list[Model]:
    """Return the models in the folders of `folder`; those without a `model.json` are passed over.

    Raises:
        ModelFileError: there is no model, or one does not say what it must, or says what cannot be.
    """
    manifests = sorted(folder.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise ModelFileError(folder, f"no folder in it holds a {MANIFEST}")
    models = [_read(path) for path in manifests]
    _check_names(folder, models)
    return models


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
            return TextTower(_graph(folder, text), tokenizer, text.max_tokens, manifest.dimensions)
        case _Head() as head:
            return TextHead(_graph(folder, head), head.after, manifest.dimensions)
        case None:
            return None


def _image(folder: Path, manifest: _Manifest) -> PictureTower | None:
    image = manifest.image
    if image is None:
        return None
    wanted = Preprocessing(image.size, image.background, image.interpolation, image.mean, image.std)
    return PictureTower(_graph(folder, image), wanted, manifest.dimensions)


def _graph(folder: Path, tower: _Tower) -> ModelFile:
    return ModelFile(folder / tower.file, tower.sha256)


def _check_names(folder: Path, models: Iterable[Model]) -> None:
    counts = Counter(model.name for model in models)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ModelFileError(folder, f"two models are called {twice[0]!r}")
    trunks = {model.name for model in models if isinstance(model.text, TextTower)}
    for model in models:
        if isinstance(model.text, TextHead) and model.text.after not in trunks:
            problem = f"model {model.name!r} comes after {model.text.after!r}, and no such model has a tokenizer"
            raise ModelFileError(folder, problem)


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
