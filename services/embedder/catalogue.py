"""Which models there are, and what each is made of."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from services.common.vectors import Metric
from services.embedder.errors import ModelNotFoundError
from services.embedder.passport import fingerprint
from services.embedder.preprocessing import Preprocessing


class Content(Enum):
    """A kind of input that a model may embed."""

    TEXT = "text"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model, and the lower-case hexadecimal SHA-256 that its bytes must have."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class PictureTower:
    """A graph from pixels, made as `preprocessing` says, to vectors of `dimensions`."""

    graph: ModelFile
    preprocessing: Preprocessing
    dimensions: int


@dataclass(frozen=True, slots=True)
class TextTower:
    """A tokenizer, cutting off what is over `max_tokens`, and a graph from tokens to vectors of `dimensions`."""

    graph: ModelFile
    tokenizer: ModelFile
    max_tokens: int
    dimensions: int


@dataclass(frozen=True, slots=True)
class TextHead:
    """A graph from the text vectors of the model `after`, which has a `TextTower`, to vectors of `dimensions`."""

    graph: ModelFile
    after: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model: at least one tower, and all of them into one space."""

    name: str
    dimensions: int
    metric: Metric
    summary: str
    text: TextTower | TextHead | None
    image: PictureTower | None

    @property
    def inputs(self) -> tuple[Content, ...]:
        """What it embeds."""
        towers = ((Content.TEXT, self.text), (Content.IMAGE, self.image))
        return tuple(content for content, tower in towers if tower is not None)


@dataclass(frozen=True, slots=True)
class CataloguePage:
    """Some models, by name; `more` tells whether others follow."""

    models: list[Model]
    more: bool


class Catalogue:
    """The models of this server, and the passport each has under its runtime."""

    def __init__(self, models: Iterable[Model], runtime: str) -> None:
        """Offer `models`, of different names, run by what calls itself `runtime`."""
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self._passports = {name: fingerprint(self._makings(model, runtime)) for name, model in self._models.items()}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str) -> Model:
        """Return the model called `name`.

        Raises:
            ModelNotFoundError: there is none.
        """
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFoundError(name, self._models) from None

    def passport(self, name: str) -> str:
        """Return the passport of the vectors of the model called `name`, which must be there."""
        return self._passports[name]

    def page(self, after: str | None, size: int) -> CataloguePage:
        """Return at most `size` models whose names follow `after`; None begins with the first."""
        following = [model for name, model in self._models.items() if after is None or name > after]
        return CataloguePage(following[:size], len(following) > size)

    def _makings(self, model: Model, runtime: str) -> dict[str, object]:
        return {"runtime": runtime, "text": self._text_makings(model), "image": _image_makings(model)}

    def _text_makings(self, model: Model) -> object:
        match model.text:
            case TextHead(graph, after):
                return {"graph": graph.sha256, "after": self._text_makings(self.get(after))}
            case TextTower(graph, tokenizer, max_tokens):
                return {"graph": graph.sha256, "tokenizer": tokenizer.sha256, "max_tokens": max_tokens}
            case None:
                return None


def _image_makings(model: Model) -> object:
    tower = model.image
    return tower and {"graph": tower.graph.sha256, "preprocessing": tower.preprocessing.makings()}
