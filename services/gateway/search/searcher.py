"""A search: arms planned, queries embedded, spaces asked, lists fused, items fetched."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Generic

from services.common.concurrency.limiter import ConcurrencyLimiter
from services.common.concurrency.tasks import gather, task_group
from services.common.errors import ServiceError, VersionUnknownError
from services.common.filters import Filter
from services.common.vectors import Matrix
from services.common.versions import Version
from services.gateway.core.embedder import Content, Embedder, Purpose
from services.gateway.core.index import Index, IndexAnswer, Scope
from services.gateway.core.items import Collection, ItemField
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import ItemReader, ShownItem
from services.gateway.search.fusion import RRF_K, FusedHit, RankedList, reciprocal_rank_fusion
from services.gateway.search.planner import (
    MAX_TOP_K,
    ArmSpec,
    PlanInputs,
    PlannedArm,
    default_depth,
    items_asked,
    models_asked,
    plan,
    validate_arms,
    validate_depth,
    validate_rrf_k,
    validate_top_k,
)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as a caller asks for it; 0 and empty mean the defaults."""

    collection: str
    arms: Sequence[ArmSpec]
    top_k: int = 0
    depth: int = 0
    rrf_k: float = RRF_K
    condition: Filter | None = None
    fields: Sequence[ItemField] = ()
    version: str = ""
    exact: bool = False


@dataclass(frozen=True, slots=True)
class ArmRun:
    """What an arm found, and the time it took, embedding included."""

    arm: PlannedArm
    answer: IndexAnswer
    milliseconds: float


@dataclass(frozen=True, slots=True)
class SearchAnswer(Generic[ShownItem]):
    """Hits with their items, best first; `version` is the oldest that an arm answered for."""

    hits: Sequence[tuple[FusedHit, ShownItem]]
    runs: Sequence[ArmRun]
    version: str


_Embedding = asyncio.Task[dict[Content, Matrix]]


class Searcher(Generic[ShownItem]):
    """Searches collections."""

    def __init__(
        self,
        catalogue: MetadataCache,
        embedder: Embedder,
        index: Index,
        items: ItemReader[ShownItem],
        limiter: ConcurrencyLimiter,
    ) -> None:
        self._catalogue = catalogue
        self._embedder = embedder
        self._index = index
        self._items = items
        self._limiter = limiter

    async def search(self, wish: SearchRequest) -> SearchAnswer[ShownItem]:
        """Return the best items of a collection by all arms gather.

        Raises:
            ArgumentError: a number is out of range.
            ServiceError: what `plan` refuses, a query that cannot be embedded, or a neighbour's refusal.
            OverloadedError: too many searches are running.
        """
        wish = replace(wish, top_k=validate_top_k(wish.top_k))
        wish = replace(wish, depth=validate_depth(wish.depth, wish.top_k), arms=validate_arms(wish.arms))
        validate_rrf_k(wish.rrf_k)
        with self._limiter.admit():
            return await self._catalogue.with_collection(wish.collection, partial(self._search, wish))

    async def _search(self, wish: SearchRequest, collection: Collection) -> SearchAnswer[ShownItem]:
        arms = plan(collection, wish.arms, await self._known(collection, wish.arms))
        runs = await self._run_all(wish, arms)
        lists = [RankedList(run.arm.space.name, run.arm.weight, run.answer.hits) for run in runs]
        hits = await self._fetch(wish, reciprocal_rank_fusion(lists, wish.rrf_k))
        return SearchAnswer(hits, runs, _oldest(collection.name, [run.answer.version for run in runs]))

    async def _known(self, collection: Collection, wishes: Sequence[ArmSpec]) -> PlanInputs:
        models, ids = models_asked(collection, wishes), items_asked(wishes)
        found = await gather([self._catalogue.model(model) for model in models])
        vectors = await gather([self._items.vectors(collection.name, item_id) for item_id in ids])
        return PlanInputs(dict(zip(models, found, strict=True)), dict(zip(ids, vectors, strict=True)))

    async def _run_all(self, wish: SearchRequest, arms: Sequence[PlannedArm]) -> list[ArmRun]:
        scope = Scope(wish.collection, wish.condition, wish.version, wish.exact)
        depth = wish.depth or default_depth(len(arms), wish.top_k)
        async with task_group() as group:
            embeddings = {
                model: group.create_task(self._embed(model, contents)) for model, contents in _contents(arms).items()
            }
            tasks = [group.create_task(self._run(scope, depth, arm, embeddings)) for arm in arms]
        return [task.result() for task in tasks]

    async def _embed(self, model: tuple[str, str], contents: Sequence[Content]) -> dict[Content, Matrix]:
        vectors: dict[Content, Matrix] = {}
        answers = await self._embedder.embed(*model, contents, Purpose.QUERY)
        for content, embedded in zip(contents, answers, strict=True):
            if isinstance(embedded, ServiceError):
                raise embedded
            vectors[content] = embedded.vector
        return vectors

    async def _run(
        self, scope: Scope, depth: int, arm: PlannedArm, embeddings: dict[tuple[str, str], _Embedding]
    ) -> ArmRun:
        began = time.perf_counter()
        vector = arm.query
        if isinstance(vector, str | bytes):
            vector = (await embeddings[arm.space.model, arm.space.fingerprint])[vector]
        asked = depth if arm.left_out is None else min(depth + 1, MAX_TOP_K)
        answer = await self._index.search(scope, arm.space, vector, arm.fingerprint, asked)
        hits = [hit for hit in answer.hits if hit.id != arm.left_out][:depth]
        return ArmRun(arm, replace(answer, hits=hits), (time.perf_counter() - began) * 1000)

    async def _fetch(self, wish: SearchRequest, ranking: Sequence[FusedHit]) -> list[tuple[FusedHit, ShownItem]]:
        """Return the first of `ranking` that are still there; one deleted meanwhile leaves its place to the next."""
        found: list[tuple[FusedHit, ShownItem]] = []
        rest = iter(ranking)
        while next_hits := list(islice(rest, wish.top_k - len(found))):
            items = await self._items.find(wish.collection, [hit.id for hit in next_hits], wish.fields)
            found += [(hit, item) for hit, item in zip(next_hits, items, strict=True) if item is not None]
        return found


def _contents(arms: Sequence[PlannedArm]) -> dict[tuple[str, str], list[Content]]:
    """Return the distinct contents that each model, with its fingerprint, has to embed."""
    contents: dict[tuple[str, str], list[Content]] = {}
    for arm in arms:
        if isinstance(arm.query, str | bytes):
            wanted = contents.setdefault((arm.space.model, arm.space.fingerprint), [])
            if arm.query not in wanted:
                wanted.append(arm.query)
    return contents


def _oldest(collection: str, tokens: Sequence[str]) -> str:
    versions = [Version.parse(token) for token in tokens]
    oldest = min(versions, key=lambda version: version.number)
    for version in versions:
        if version.uid != oldest.uid:
            raise VersionUnknownError(collection, str(version))
    return str(oldest)
