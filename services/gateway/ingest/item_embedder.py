"""Embeds items: each space's vector is made from the first of its sources that the item has."""

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
from services.gateway.core.embedder import Content, Embedder, Embedding, Purpose
from services.gateway.core.items import MediaFacts, MediaSource, Space
from services.gateway.core.store import RowMedia

MAX_CALL_INPUTS = 32
MAX_CALL_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ItemContent:
    """The content of an item and the `spaces` to embed it for; an `image` is inspected even without any."""

    spaces: Sequence[Space]
    text: str | None = None
    image: bytes | None = None

    def source(self, space: Space) -> ContentType | None:
        """Return the content that the vector of `space` is made from; None where the item has no source of it."""
        return first_source(space, text=self.text is not None, image=self.image is not None)


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """An item's vectors by space, and the facts of its image; None without one."""

    vectors: Mapping[str, Matrix]
    facts: MediaFacts | None


@dataclass(frozen=True, slots=True)
class _ModelInput:
    """A model and the type of content it embeds."""

    name: str
    fingerprint: str
    content_type: ContentType


def first_source(space: Space, *, text: bool, image: bool) -> ContentType | None:
    """Return the first of the space's sources that an item has; None where it has none of them."""
    has = {ContentType.TEXT: text, ContentType.IMAGE: image}
    return next((source for source in space.sources if has.get(source)), None)


def build_row_media(source: MediaSource | None, vectors: ItemVectors) -> RowMedia | None:
    """Return the media of a row, with the facts found while embedding; None without a `source`."""
    if source is None:
        return None
    assert vectors.facts is not None, "every image is inspected"
    return RowMedia(source, vectors.facts)


class ItemEmbedder:
    """Embeds items as documents, in batched and concurrent calls.

    Calls are retried for `retry_seconds` while the embedder is unavailable or overloaded. It has at most
    `inputs_in_flight` inputs at a time: enough to keep it busy, few enough that a query does not queue for long.
    """

    def __init__(self, embedder: Embedder, retry_seconds: float, inputs_in_flight: int) -> None:
        self._embedder = embedder
        self._retry_seconds = retry_seconds
        self._inputs = WeightedSemaphore(inputs_in_flight)

    async def embed(self, items: Sequence[ItemContent]) -> list[ItemVectors | ServiceError]:
        """Return the vectors of each of `items`, in order, or the error of that one."""
        by_model = _group_by_model(items)
        answers = [answer for answers in await gather(list(self._calls(items, by_model))) for answer in answers]
        collected = [_ItemAnswers() for _ in items]
        for number, spaces, answer in answers:
            collected[number].add(spaces, answer)
        return [each.result() for each in collected]

    def _calls(
        self, items: Sequence[ItemContent], by_model: Mapping[_ModelInput, Mapping[int, list[str]]]
    ) -> Iterator[Coroutine[Any, Any, "list[_Answer]"]]:
        for model, numbers in by_model.items():
            for part in _split_calls([(number, _content(items[number], model.content_type)) for number in numbers]):
                yield self._embed(model, part, numbers)
        embedded = {
            number
            for model, numbers in by_model.items()
            if model.content_type is ContentType.IMAGE
            for number in numbers
        }
        for number, item in enumerate(items):
            if item.image is not None and number not in embedded:
                yield self._inspect(number, item.image)

    async def _embed(
        self, model: _ModelInput, part: "Sequence[_Numbered]", spaces: Mapping[int, list[str]]
    ) -> "list[_Answer]":
        contents = [content for _, content in part]
        attempt = partial(self._embedder.embed, model.name, model.fingerprint, contents, Purpose.DOCUMENT)
        answers: Sequence[Embedding | ServiceError]
        try:
            async with self._inputs.reserve(len(part)):
                answers = await retry(attempt, is_transient, seconds=self._retry_seconds)
        except ServiceError as error:
            answers = [error] * len(part)
        return [(number, spaces[number], answer) for (number, _), answer in zip(part, answers, strict=True)]

    async def _inspect(self, number: int, image: bytes) -> "list[_Answer]":
        answer: MediaFacts | ServiceError
        try:
            async with self._inputs.reserve(1):
                inspect = partial(self._embedder.inspect, image)
                answer = await retry(inspect, is_transient, seconds=self._retry_seconds)
        except ServiceError as error:
            answer = error
        return [(number, [], answer)]


_Numbered = tuple[int, Content]
_Answer = tuple[int, list[str], Embedding | MediaFacts | ServiceError]


class _ItemAnswers:
    """The answers about one item so far; its first error wins."""

    def __init__(self) -> None:
        self._vectors: dict[str, Matrix] = {}
        self._facts: MediaFacts | None = None
        self._error: ServiceError | None = None

    def add(self, spaces: Sequence[str], answer: Embedding | MediaFacts | ServiceError) -> None:
        match answer:
            case ServiceError():
                self._error = self._error or answer
            case MediaFacts():
                self._facts = answer
            case Embedding(vector, facts):
                self._vectors.update(dict.fromkeys(spaces, vector))
                self._facts = facts or self._facts

    def result(self) -> ItemVectors | ServiceError:
        return self._error or ItemVectors(self._vectors, self._facts)


def _group_by_model(items: Sequence[ItemContent]) -> dict[_ModelInput, dict[int, list[str]]]:
    """Return the numbers of the items that each model embeds, and the spaces it embeds them for."""
    by_model: dict[_ModelInput, dict[int, list[str]]] = {}
    for number, item in enumerate(items):
        for space in item.spaces:
            if content_type := item.source(space):
                numbers = by_model.setdefault(_ModelInput(space.model, space.fingerprint, content_type), {})
                numbers.setdefault(number, []).append(space.name)
    return by_model


def _content(item: ItemContent, content_type: ContentType) -> Content:
    content = item.text if content_type is ContentType.TEXT else item.image
    assert content is not None, "the item has this source"
    return content


def _split_calls(inputs: Sequence[_Numbered]) -> Iterator[Sequence[_Numbered]]:
    """Yield `inputs` in parts of at most `MAX_CALL_INPUTS` and `MAX_CALL_BYTES`."""
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
