"""The vectors of items: each space's from the first of its sources that the item has."""

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.common.concurrency.limiter import WeightedSemaphore
from services.common.concurrency.retry import is_transient, retry
from services.common.concurrency.tasks import gather
from services.common.content import ContentType
from services.common.errors import ServiceError
from services.common.vectors import Matrix
from services.gateway.core.embedder import Content, Embedded, Embedder, Purpose
from services.gateway.core.items import MediaFacts, MediaSource, Space
from services.gateway.core.store import RowMedia

MAX_CALL_INPUTS = 32
MAX_CALL_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What an item has to embed, and the `spaces` that want a vector; a `picture` is examined even if none does."""

    spaces: Sequence[Space]
    text: str | None = None
    picture: bytes | None = None

    def source(self, space: Space) -> ContentType | None:
        """Return the content that the vector of `space` is made from, None where the item has no such."""
        return first_source(space, text=self.text is not None, picture=self.picture is not None)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An item's vectors by space, and what its picture's bytes are; None without a picture."""

    vectors: Mapping[str, Matrix]
    facts: MediaFacts | None


@dataclass(frozen=True, slots=True)
class _Model:
    """What embeds one kind of content, and for which spaces."""

    name: str
    fingerprint: str
    kind: ContentType


def first_source(space: Space, *, text: bool, picture: bool) -> ContentType | None:
    """Return the first of the space's sources that an item has; None where it has none of them."""
    has = {ContentType.TEXT: text, ContentType.IMAGE: picture}
    return next((source for source in space.sources if has.get(source)), None)


def row_media(source: MediaSource | None, encoded: Encoded) -> RowMedia | None:
    """Return the media of a row whose picture was encoded; None without."""
    if source is None:
        return None
    assert encoded.facts is not None, "every picture is examined"
    return RowMedia(source, encoded.facts)


class ItemEmbedder:
    """Embeds many items, as documents, with few calls, several at a time.

    Calls are retried while the embedder is unavailable or overloaded. No more than `inputs_in_flight` are with it at a
    time: enough to keep it busy, and so few that a query does not wait for long behind them.
    """

    def __init__(self, embedder: Embedder, retry_seconds: float, inputs_in_flight: int) -> None:
        self._embedder = embedder
        self._retry_seconds = retry_seconds
        self._inputs = WeightedSemaphore(inputs_in_flight)

    async def encode(self, items: Sequence[ItemContent]) -> list[Encoded | ServiceError]:
        """Return the vectors of each of `items`, in order, or why it was refused."""
        wanted = _wanted(items)
        answers = [answer for answers in await gather(list(self._calls(items, wanted))) for answer in answers]
        results = [_Result() for _ in items]
        for number, spaces, answer in answers:
            results[number].add(spaces, answer)
        return [result.encoded() for result in results]

    def _calls(
        self, items: Sequence[ItemContent], wanted: Mapping[_Model, Mapping[int, list[str]]]
    ) -> Iterator[Coroutine[Any, Any, "list[_Answer]"]]:
        for model, numbers in wanted.items():
            for part in _parts([(number, _content(items[number], model.kind)) for number in numbers]):
                yield self._embed(model, part, numbers)
        embedded = {
            number for model, numbers in wanted.items() if model.kind is ContentType.IMAGE for number in numbers
        }
        for number, item in enumerate(items):
            if item.picture is not None and number not in embedded:
                yield self._inspect(number, item.picture)

    async def _embed(
        self, model: _Model, part: "Sequence[_Numbered]", spaces: Mapping[int, list[str]]
    ) -> "list[_Answer]":
        contents = [content for _, content in part]
        attempt = partial(self._embedder.embed, model.name, model.fingerprint, contents, Purpose.DOCUMENT)
        answers: Sequence[Embedded | ServiceError]
        try:
            async with self._inputs.reserve(len(part)):
                answers = await retry(attempt, is_transient, seconds=self._retry_seconds)
        except ServiceError as error:
            answers = [error] * len(part)
        return [(number, spaces[number], answer) for (number, _), answer in zip(part, answers, strict=True)]

    async def _inspect(self, number: int, picture: bytes) -> "list[_Answer]":
        answer: MediaFacts | ServiceError
        try:
            async with self._inputs.reserve(1):
                inspect = partial(self._embedder.inspect, picture)
                answer = await retry(inspect, is_transient, seconds=self._retry_seconds)
        except ServiceError as error:
            answer = error
        return [(number, [], answer)]


_Numbered = tuple[int, Content]
_Answer = tuple[int, list[str], Embedded | MediaFacts | ServiceError]


class _Result:
    """What is known so far of one item."""

    def __init__(self) -> None:
        self._vectors: dict[str, Matrix] = {}
        self._facts: MediaFacts | None = None
        self._error: ServiceError | None = None

    def add(self, spaces: Sequence[str], answer: Embedded | MediaFacts | ServiceError) -> None:
        match answer:
            case ServiceError():
                self._error = self._error or answer
            case MediaFacts():
                self._facts = answer
            case Embedded(vector, facts):
                self._vectors.update(dict.fromkeys(spaces, vector))
                self._facts = facts or self._facts

    def encoded(self) -> Encoded | ServiceError:
        return self._error or Encoded(self._vectors, self._facts)


def _wanted(items: Sequence[ItemContent]) -> dict[_Model, dict[int, list[str]]]:
    """Return, for each model and kind of content, the items it embeds and for which spaces."""
    wanted: dict[_Model, dict[int, list[str]]] = {}
    for number, item in enumerate(items):
        for space in item.spaces:
            if kind := item.source(space):
                numbers = wanted.setdefault(_Model(space.model, space.fingerprint, kind), {})
                numbers.setdefault(number, []).append(space.name)
    return wanted


def _content(item: ItemContent, kind: ContentType) -> Content:
    content = item.text if kind is ContentType.TEXT else item.picture
    assert content is not None, "asked only for what the item has"
    return content


def _parts(inputs: Sequence[_Numbered]) -> Iterator[Sequence[_Numbered]]:
    """Yield `inputs` in runs that one call takes."""
    part: list[_Numbered] = []
    size = 0
    for numbered in inputs:
        if part and (len(part) == MAX_CALL_INPUTS or size + len(numbered[1]) > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(numbered)
        size += len(numbered[1])
    if part:
        yield part
