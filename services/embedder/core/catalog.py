"""The catalog of models, their towers and fingerprints."""

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
    """The purpose of a text's embedding."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model, and the expected SHA-256 of its bytes, in lower-case hexadecimal."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class ImageTower:
    """A graph from pixels, prepared by `preprocessing`, to vectors of `dimensions`.

    If it is `batch_sensitive`, a picture's vector depends on the other pictures of its batch, so each runs separately.
    """

    graph: ModelFile
    preprocessing: Preprocessing
    dimensions: int
    batch_sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Padding:
    """Padding of texts to `length` tokens with the token `token_id`."""

    length: int
    token_id: int


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The text that a model expects before an input, by purpose; an input without a purpose gets none."""

    query: str = ""
    document: str = ""

    def of(self, purpose: Purpose | None) -> str:
        """Return the prefix of texts for `purpose`."""
        match purpose:
            case Purpose.QUERY:
                return self.query
            case Purpose.DOCUMENT:
                return self.document
            case None:
                return ""


@dataclass(frozen=True, slots=True)
class TextTower:
    """A tokenizer that truncates to `max_tokens`, and a graph from tokens to vectors of `dimensions`.

    `inputs` are those of `TOKEN_INPUTS` that the graph takes; without `padding`, texts are not padded.
    """

    graph: ModelFile
    tokenizer: ModelFile
    max_tokens: int
    dimensions: int
    padding: Padding | None = None
    inputs: tuple[str, ...] = TOKEN_INPUTS
    prefixes: Prefixes = Prefixes()


@dataclass(frozen=True, slots=True)
class TextProjection:
    """A graph from the text vectors of the model `base`, which has a `TextTower`, to vectors of `dimensions`."""

    graph: ModelFile
    base: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model: at least one tower; all its towers embed into the same space."""

    name: str
    dimensions: int
    metric: Metric
    summary: str
    text: TextTower | TextProjection | None
    image: ImageTower | None

    @property
    def inputs(self) -> tuple[ContentType, ...]:
        """The kinds of content it embeds."""
        towers = ((ContentType.TEXT, self.text), (ContentType.IMAGE, self.image))
        return tuple(content for content, tower in towers if tower is not None)

    def prefix(self, purpose: Purpose | None) -> str:
        """Return the prefix of texts for `purpose`; empty if the model projects the vectors of another one."""
        return self.text.prefixes.of(purpose) if isinstance(self.text, TextTower) else ""


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """A page of models, by name; `more` is true if others follow."""

    models: list[Model]
    more: bool


class ModelCatalog:
    """The models of this server, with their fingerprints under its runtime."""

    def __init__(self, models: Iterable[Model], runtime: str) -> None:
        """The names of `models` are unique; `runtime` is the `Runtime.identity` that runs them."""
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self._fingerprints = {
            name: compute_fingerprint(self._fingerprint_inputs(model, runtime)) for name, model in self._models.items()
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
        """Return the fingerprint of the vectors of the model called `name`, which must exist."""
        return self._fingerprints[name]

    def page(self, after: str | None, size: int) -> CatalogPage:
        """Return at most `size` models whose names follow `after`; None begins with the first."""
        following = [model for name, model in self._models.items() if after is None or name > after]
        return CatalogPage(following[:size], len(following) > size)

    def _fingerprint_inputs(self, model: Model, runtime: str) -> dict[str, object]:
        return {"runtime": runtime, "text": self._text_inputs(model), "image": _image_inputs(model)}

    def _text_inputs(self, model: Model) -> object:
        match model.text:
            case TextProjection(graph, base):
                return {"graph": graph.sha256, "after": self._text_inputs(self.get(base))}
            case TextTower() as tower:
                return _tower_inputs(tower)
            case None:
                return None


def _tower_inputs(tower: TextTower) -> dict[str, object]:
    """Return the fingerprint inputs of a tower; defaults are left out, so that older fingerprints stay valid."""
    inputs: dict[str, object] = {
        "graph": tower.graph.sha256,
        "tokenizer": tower.tokenizer.sha256,
        "max_tokens": tower.max_tokens,
    }
    if tower.padding is not None:
        inputs["padding"] = asdict(tower.padding)
    if tower.inputs != TOKEN_INPUTS:
        inputs["inputs"] = list(tower.inputs)
    if tower.prefixes != Prefixes():
        inputs["prefixes"] = asdict(tower.prefixes)
    return inputs


def _image_inputs(model: Model) -> object:
    tower = model.image
    return tower and {"graph": tower.graph.sha256, "preprocessing": tower.preprocessing.fingerprint_inputs()}
