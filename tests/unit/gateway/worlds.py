"""A gateway's domain among neighbours in memory."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.content import ContentType
from services.common.errors import ServiceError
from services.common.vectors import Metric
from services.gateway.core.embedder import Content, Embedded, Embedder, Model, Purpose
from services.gateway.core.items import Collection, MediaFacts, NewItem, Space
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import Written
from services.gateway.ingest.batcher import BatchLimits
from services.gateway.ingest.item_encoder import ItemEmbedder
from services.gateway.ingest.pipeline import Answer, IngestLimits, IngestPipeline, Stores
from services.gateway.ingest.updater import Updater
from services.gateway.search.searcher import Searcher
from tests.support.gateway_peers import MemoryEmbedder, MemoryIndex, MemoryItem, MemoryStore

NAME = "collections/things"
IMAGE, TEXT = ContentType.IMAGE, ContentType.TEXT

CLIP_MODEL = Model("mini", 8, Metric.COSINE, (IMAGE, TEXT), "mini/1")
TEXT_MODEL = Model("words", 4, Metric.COSINE, (TEXT,), "words/1")

CLIP = Space("clip", "mini", 8, Metric.COSINE, (IMAGE,), "mini/1")
WORDS = Space("text", "words", 4, Metric.COSINE, (TEXT,), "words/1")
OWN = Space("own", "", 2, Metric.EUCLIDEAN)
COLLECTION = Collection(NAME, (CLIP, WORDS, OWN))

PACE = IngestLimits(
    batch=BatchLimits(items=4, bytes=1000, seconds=0.005),
    batches=2,
    items=100,
    bytes=10_000,
    max_media_bytes=1000,
    retry_seconds=5.0,
)


class CountingEmbedder:
    """Counts what is asked of an embedder, and raises `errors` first, one a call."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.errors: list[ServiceError] = []
        self.embedded: list[tuple[str, list[Content]]] = []
        self.purposes: set[Purpose] = set()
        self.inspected = 0

    async def model(self, name: str) -> Model:
        return await self._embedder.model(name)

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedded | ServiceError]:
        if self.errors:
            raise self.errors.pop(0)
        self.embedded.append((model, list(inputs)))
        self.purposes.add(purpose)
        return await self._embedder.embed(model, fingerprint, inputs, purpose)

    async def inspect(self, data: bytes) -> MediaFacts:
        self.inspected += 1
        return await self._embedder.inspect(data)


@dataclass(frozen=True)
class World:
    store: MemoryStore
    embedder: CountingEmbedder
    catalogue: MetadataCache
    ingester: IngestPipeline
    updater: Updater[MemoryItem]
    searcher: Searcher[MemoryItem]

    async def ingest(self, *items: NewItem) -> list[Answer]:
        return [answer async for answers in self.ingester.ingest(NAME, stream(items)) for answer in answers]


async def stream(items: Sequence[NewItem]) -> AsyncIterator[NewItem]:
    for item in items:
        yield item


async def world(collection: Collection = COLLECTION, pace: IngestLimits = PACE, max_ingests: int = 2) -> World:
    store = MemoryStore()
    await store.create(collection, {})
    embedder = CountingEmbedder(MemoryEmbedder([CLIP_MODEL, TEXT_MODEL]))
    catalogue = MetadataCache(store, embedder, seconds=60)
    encoder = ItemEmbedder(embedder, pace.retry_seconds, inputs_in_flight=64)
    return World(
        store,
        embedder,
        catalogue,
        IngestPipeline(catalogue, encoder, Stores(store, store), pace, ConcurrencyLimiter("ingests", max_ingests)),
        Updater(catalogue, encoder, store, store, pace.max_media_bytes),
        Searcher(catalogue, embedder, MemoryIndex(store), store, ConcurrencyLimiter("searches", 8)),
    )


def with_pace(**changes: object) -> IngestLimits:
    return replace(PACE, **changes)  # type: ignore[arg-type]  # a test's own words


def reasons(answers: Sequence[Answer]) -> list[str]:
    """Return "written" or the reason of each."""
    return ["written" if isinstance(each.outcome, Written) else each.outcome.reason for each in answers]
