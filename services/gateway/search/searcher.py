"""Runs searches: plans the arms, embeds the queries, searches the spaces, fuses the lists, fetches the items."""

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
from services.gateway.core.index import Index, IndexResult, Scope
from services.gateway.core.items import Collection, ItemField
from services.gateway.core.metadata_cache import MetadataCache
from services.gateway.core.store import ItemReader, ItemView
from services.gateway.search.fusion import RRF_K, FusedHit, RankedList, reciprocal_rank_fusion
from services.gateway.search.planner import (
    MAX_TOP_K,
    ArmSpec,
    PlanInputs,
    PlannedArm,
    default_depth,
    plan,
    required_item_ids,
    required_models,
    validate_arms,
    validate_depth,
    validate_rrf_k,
    validate_top_k,
)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as requested; 0 and empty values mean the defaults."""

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
class ArmResult:
    """The hits of an arm, and the time it took, embedding included."""

    arm: PlannedArm
    result: IndexResult
    milliseconds: float


@dataclass(frozen=True, slots=True)
class SearchResult(Generic[ItemView]):
    """Hits with their items, best first; `version` is the oldest of the versions that the arms searched."""

    hits: Sequence[tuple[FusedHit, ItemView]]
    arms: Sequence[ArmResult]
    version: str


_EmbedTask = asyncio.Task[dict[Content, Matrix]]


class Searcher(Generic[ItemView]):
    """Searches collections."""

    def __init__(
        self,
        cache: MetadataCache,
        embedder: Embedder,
        index: Index,
        items: ItemReader[ItemView],
        limiter: ConcurrencyLimiter,
    ) -> None:
        self._cache = cache
        self._embedder = embedder
        self._index = index
        self._items = items
        self._limiter = limiter

    async def search(self, request: SearchRequest) -> SearchResult[ItemView]:
        """Return the best items of a collection over all arms.

        Raises:
            ArgumentError: a number is out of range.
            ServiceError: an error of `plan`, of embedding a query, or of a service that is called.
            OverloadedError: too many searches are running.
        """
        request = replace(request, top_k=validate_top_k(request.top_k))
        request = replace(request, depth=validate_depth(request.depth, request.top_k), arms=validate_arms(request.arms))
        validate_rrf_k(request.rrf_k)
        with self._limiter.admit():
            return await self._cache.with_collection(request.collection, partial(self._search, request))

    async def _search(self, request: SearchRequest, collection: Collection) -> SearchResult[ItemView]:
        arms = plan(collection, request.arms, await self._load_plan_inputs(collection, request.arms))
        results = await self._run_arms(request, arms)
        lists = [RankedList(each.arm.space.name, each.arm.weight, each.result.hits) for each in results]
        hits = await self._fetch(request, reciprocal_rank_fusion(lists, request.rrf_k))
        return SearchResult(hits, results, _oldest_version(collection.name, [each.result.version for each in results]))

    async def _load_plan_inputs(self, collection: Collection, specs: Sequence[ArmSpec]) -> PlanInputs:
        models, ids = required_models(collection, specs), required_item_ids(specs)
        found = await gather([self._cache.get_model(model) for model in models])
        vectors = await gather([self._items.get_vectors(collection.name, item_id) for item_id in ids])
        return PlanInputs(dict(zip(models, found, strict=True)), dict(zip(ids, vectors, strict=True)))

    async def _run_arms(self, request: SearchRequest, arms: Sequence[PlannedArm]) -> list[ArmResult]:
        scope = Scope(request.collection, request.condition, request.version, request.exact)
        depth = request.depth or default_depth(len(arms), request.top_k)
        async with task_group() as group:
            embeddings = {
                model: group.create_task(self._embed(model, contents))
                for model, contents in _group_by_model(arms).items()
            }
            tasks = [group.create_task(self._run_arm(scope, depth, arm, embeddings)) for arm in arms]
        return [task.result() for task in tasks]

    async def _embed(self, model: tuple[str, str], contents: Sequence[Content]) -> dict[Content, Matrix]:
        vectors: dict[Content, Matrix] = {}
        embeddings = await self._embedder.embed(*model, contents, Purpose.QUERY)
        for content, embedding in zip(contents, embeddings, strict=True):
            if isinstance(embedding, ServiceError):
                raise embedding
            vectors[content] = embedding.vector
        return vectors

    async def _run_arm(
        self, scope: Scope, depth: int, arm: PlannedArm, embeddings: dict[tuple[str, str], _EmbedTask]
    ) -> ArmResult:
        began = time.perf_counter()
        vector = arm.query
        if isinstance(vector, str | bytes):
            vector = (await embeddings[arm.space.model, arm.space.fingerprint])[vector]
        limit = depth if arm.excluded_id is None else min(depth + 1, MAX_TOP_K)
        result = await self._index.search(scope, arm.space, vector, arm.fingerprint, limit)
        hits = [hit for hit in result.hits if hit.id != arm.excluded_id][:depth]
        return ArmResult(arm, replace(result, hits=hits), (time.perf_counter() - began) * 1000)

    async def _fetch(self, request: SearchRequest, ranking: Sequence[FusedHit]) -> list[tuple[FusedHit, ItemView]]:
        """Return the first hits of `ranking` whose items still exist; the next hit replaces one that is gone."""
        found: list[tuple[FusedHit, ItemView]] = []
        rest = iter(ranking)
        while next_hits := list(islice(rest, request.top_k - len(found))):
            items = await self._items.get_items(request.collection, [hit.id for hit in next_hits], request.fields)
            found += [(hit, item) for hit, item in zip(next_hits, items, strict=True) if item is not None]
        return found


def _group_by_model(arms: Sequence[PlannedArm]) -> dict[tuple[str, str], list[Content]]:
    """Return the distinct contents to embed by model and fingerprint."""
    contents: dict[tuple[str, str], list[Content]] = {}
    for arm in arms:
        if isinstance(arm.query, str | bytes):
            queries = contents.setdefault((arm.space.model, arm.space.fingerprint), [])
            if arm.query not in queries:
                queries.append(arm.query)
    return contents


def _oldest_version(collection: str, tokens: Sequence[str]) -> str:
    versions = [Version.parse(token) for token in tokens]
    oldest = min(versions, key=lambda version: version.number)
    for version in versions:
        if version.uid != oldest.uid:
            raise VersionUnknownError(collection, str(version))
    return str(oldest)
