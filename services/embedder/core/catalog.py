"""Which models there are, and what each is made of."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from services.common.content import ContentType
from services.common.vectors import Metric
from services.embedder.core.errors import ModelNotFoundError
from services.embedder.core.fingerprint import compute_fingerprint
from services.embedder.core.preprocessing import Preprocessing

TOKEN_INPUTS = ("input_ids", "attention_mask")


class Purpose(Enum):
    """What a text is embedded for."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model, and the lower-case hexadecimal SHA-256 that its bytes must have."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class PictureTower:
    """A graph from pixels, made as `preprocessing` says, to vectors of `dimensions`.

    Where it is to run each picture `alone`, a picture's vector would depend on those beside it in a batch.
    """

    graph: ModelFile
    preprocessing: Preprocessing
    dimensions: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Padding:
    """Texts filled up to `length` tokens by the token `token_id`."""

    length: int
    token_id: int


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What a model was trained to see before a text, by its purpose; a text without a purpose gets none."""

    query: str = ""
    document: str = ""

    def of(self, purpose: Purpose | None) -> str:
        """Return what comes before a text of `purpose`."""
        match purpose:
            case Purpose.QUERY:
                return self.query
            case Purpose.DOCUMENT:
                return self.document
            case None:
                return ""


@dataclass(frozen=True, slots=True)
class TextTower:
    """A tokenizer, cutting off what is over `max_tokens`, and a graph from tokens to vectors of `dimensions`.

    The graph takes the `inputs`, of `TOKEN_INPUTS`; None for `padding` leaves each text as long as it is.
    """

    graph: ModelFile
    tokenizer: ModelFile
    max_tokens: int
    dimensions: int
    padding: Padding | None = None
    inputs: tuple[str, ...] = TOKEN_INPUTS
    prefixes: Prefixes = Prefixes()


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
    def inputs(self) -> tuple[ContentType, ...]:
        """What it embeds."""
        towers = ((ContentType.TEXT, self.text), (ContentType.IMAGE, self.image))
        return tuple(content for content, tower in towers if tower is not None)

    def prefix(self, purpose: Purpose | None) -> str:
        """Return what comes before a text of `purpose`; nothing where the model continues another one."""
        return self.text.prefixes.of(purpose) if isinstance(self.text, TextTower) else ""


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """Some models, by name; `more` tells whether others follow."""

    models: list[Model]
    more: bool


class ModelCatalog:
    """The models of this server, and the fingerprint each has under its runtime."""

    def __init__(self, models: Iterable[Model], runtime: str) -> None:
        """Offer `models`, of different names, run by what calls itself `runtime`."""
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self._fingerprints = {
            name: compute_fingerprint(self._makings(model, runtime)) for name, model in self._models.items()
        }

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

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of the vectors of the model called `name`, which must be there."""
        return self._fingerprints[name]

    def page(self, after: str | None, size: int) -> CatalogPage:
        """Return at most `size` models whose names follow `after`; None begins with the first."""
        following = [model for name, model in self._models.items() if after is None or name > after]
        return CatalogPage(following[:size], len(following) > size)

    def _makings(self, model: Model, runtime: str) -> dict[str, object]:
        return {"runtime": runtime, "text": self._text_makings(model), "image": _image_makings(model)}

    def _text_makings(self, model: Model) -> object:
        match model.text:
            case TextHead(graph, after):
                return {"graph": graph.sha256, "after": self._text_makings(self.get(after))}
            case TextTower() as tower:
                return _tower_makings(tower)
            case None:
                return None


def _tower_makings(tower: TextTower) -> dict[str, object]:
    """Return what makes a text's vector; what a tower leaves at its default is not named: fingerprints are older."""
    makings: dict[str, object] = {
        "graph": tower.graph.sha256,
        "tokenizer": tower.tokenizer.sha256,
        "max_tokens": tower.max_tokens,
    }
    if tower.padding is not None:
        makings["padding"] = asdict(tower.padding)
    if tower.inputs != TOKEN_INPUTS:
        makings["inputs"] = list(tower.inputs)
    if tower.prefixes != Prefixes():
        makings["prefixes"] = asdict(tower.prefixes)
    return makings


def _image_makings(model: Model) -> object:
    tower = model.image
    return tower and {"graph": tower.graph.sha256, "preprocessing": tower.preprocessing.makings()}
