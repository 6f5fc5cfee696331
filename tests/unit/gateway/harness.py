"""A gateway's handlers over peers in memory."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.content import ContentType
from services.common.errors import ServiceError
from services.common.vectors import Metric
from services.gateway.core.embedder import Content, Embedder, Embedding, Model, Purpose
from services.gateway.core.items import Collection, MediaFacts, NewItem, Space
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import WrittenRow
from services.gateway.ingest.batcher import BatchLimits
from services.gateway.ingest.item_embedder import ItemEmbedder
from services.gateway.ingest.pipeline import IngestLimits, IngestPipeline, IngestResult
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

LIMITS = IngestLimits(
    batch=BatchLimits(items=4, bytes=1000, seconds=0.005),
    batches=2,
    items=100,
    bytes=10_000,
    max_media_bytes=1000,
    retry_seconds=5.0,
)


class RecordingEmbedder:
    """Records the calls of an embedder, and raises `errors` first, one a call."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.errors: list[ServiceError] = []
        self.embedded: list[tuple[str, list[Content]]] = []
        self.purposes: set[Purpose] = set()
        self.inspected = 0

    async def get_model(self, name: str) -> Model:
        return await self._embedder.get_model(name)

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedding | ServiceError]:
        if self.errors:
            raise self.errors.pop(0)
        self.embedded.append((model, list(inputs)))
        self.purposes.add(purpose)
        return await self._embedder.embed(model, fingerprint, inputs, purpose)

    async def inspect(self, data: bytes) -> MediaFacts:
        self.inspected += 1
        return await self._embedder.inspect(data)


@dataclass(frozen=True)
class Harness:
    store: MemoryStore
    embedder: RecordingEmbedder
    cache: MetadataCache
    ingest_pipeline: IngestPipeline
    updater: Updater[MemoryItem]
    searcher: Searcher[MemoryItem]

    async def ingest(self, *items: NewItem) -> list[IngestResult]:
        return [result async for results in self.ingest_pipeline.ingest(NAME, stream(items)) for result in results]


async def stream(items: Sequence[NewItem]) -> AsyncIterator[NewItem]:
    for item in items:
        yield item


async def make_harness(
    collection: Collection = COLLECTION, limits: IngestLimits = LIMITS, max_ingests: int = 2
) -> Harness:
    store = MemoryStore()
    await store.create_collection(collection, {})
    embedder = RecordingEmbedder(MemoryEmbedder([CLIP_MODEL, TEXT_MODEL]))
    cache = MetadataCache(store, embedder, seconds=60)
    item_embedder = ItemEmbedder(embedder, limits.retry_seconds, inputs_in_flight=64)
    return Harness(
        store,
        embedder,
        cache,
        IngestPipeline(cache, item_embedder, store, limits, ConcurrencyLimiter("ingests", max_ingests)),
        Updater(cache, item_embedder, store, store, limits.max_media_bytes),
        Searcher(cache, embedder, MemoryIndex(store), store, ConcurrencyLimiter("searches", 8)),
    )


def with_limits(**changes: object) -> IngestLimits:
    return replace(LIMITS, **changes)  # type: ignore[arg-type]  # fields of IngestLimits


def reasons(results: Sequence[IngestResult]) -> list[str]:
    """Return "written" or the reason of each."""
    return ["written" if isinstance(each.outcome, WrittenRow) else each.outcome.reason for each in results]
