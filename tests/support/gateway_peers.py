"""In-memory implementations of the gateway's ports.

They accept any bytes as an image, except those that begin with `CORRUPT`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.common.content import ContentType
from services.common.errors import (
    CollectionNotFoundError,
    FingerprintError,
    ItemNotFoundError,
    MediaError,
    RevisionError,
    ServiceError,
    SpaceNotFoundError,
)
from services.common.filters import matches
from services.common.index_config import IndexConfig
from services.common.metadata import parse_metadata
from services.common.vectors import Matrix, Metric
from services.common.versions import Version
from services.embedder.core.errors import ModelNotFoundError
from services.gateway.core.embedder import Content, Embedding, Model, Purpose
from services.gateway.core.index import IndexHit, IndexResult, Scope, SearchMode
from services.gateway.core.items import Collection, InlineMedia, ItemField, MediaFacts, Space, StoredMedia
from services.gateway.core.store import ItemState, MergeMetadata, ReplaceMetadata, Row, RowChange, RowMedia, WrittenRow
from services.gateway.ingest.item_embedder import first_source
from services.store.core.errors import CollectionExistsError, MediaNotFoundError

CORRUPT = b"corrupt"


class MemoryEmbedder:
    """`Embedder` whose vectors depend on nothing but the content: equal contents are nearest, all others at random."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = {model.name: model for model in models}

    async def get_model(self, name: str) -> Model:
        """Look the model up."""
        if name not in self._models:
            raise ModelNotFoundError(name, list(self._models))
        return self._models[name]

    async def embed(
        self, model: str, fingerprint: str, inputs: Sequence[Content], purpose: Purpose
    ) -> list[Embedding | ServiceError]:
        """Make a vector of each content's hash, whatever the purpose."""
        known = await self.get_model(model)
        if fingerprint not in ("", known.fingerprint):
            raise FingerprintError(fingerprint, known.fingerprint)
        return [_embedded(content, known.dimensions) for content in inputs]

    async def inspect(self, data: bytes) -> MediaFacts:
        """Look whether the bytes are corrupt."""
        if data.startswith(CORRUPT):
            raise MediaError("is corrupt")
        return MediaFacts(ContentType.IMAGE, hashlib.sha256(data).hexdigest(), "image/png", len(data), 1, 1)


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """A stored row, which is also the item that callers see."""

    row: Row
    revision: int


@dataclass(slots=True)
class _Table:
    collection: Collection
    uid: str
    commits: int = 0
    items: dict[str, MemoryItem] = field(default_factory=dict)

    def commit(self) -> str:
        self.commits += 1
        return self.version

    @property
    def version(self) -> str:
        return str(Version(self.uid, self.commits))


class MemoryStore:
    """Every port of the store over dicts."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._created = 0
        self._media: dict[str, bytes] = {}

    def table(self, name: str) -> _Table:
        """Return the table of the name."""
        if name not in self._tables:
            raise CollectionNotFoundError(name)
        return self._tables[name]

    async def create_collection(self, collection: Collection, indexes: Mapping[str, IndexConfig]) -> Collection:
        """Make a table, which has no indexes."""
        self._created += 1
        table = self._tables.setdefault(collection.name, _Table(collection, f"t{self._created}"))
        if table.collection != collection:
            raise CollectionExistsError(collection.name)
        return table.collection

    async def drop(self, name: str) -> None:
        """Remove the table."""
        del self._tables[self.table(name).collection.name]

    async def get_collection(self, name: str) -> Collection:
        """Return what the table keeps."""
        return self.table(name).collection

    async def get_items(
        self, collection: str, ids: Sequence[str], fields: Sequence[ItemField]
    ) -> list[MemoryItem | None]:
        """Look the ids up; whole items come whatever the fields."""
        return [self.table(collection).items.get(item_id) for item_id in ids]

    async def get_vectors(self, collection: str, item_id: str) -> Mapping[str, Matrix]:
        """Return the row's vectors."""
        return self._item(collection, item_id).row.vectors

    async def get_state(self, collection: str, item_id: str) -> ItemState:
        """Return what the row holds."""
        item = self._item(collection, item_id)
        sha256 = item.row.media.facts.sha256 if item.row.media else ""
        return ItemState(item.row.text, sha256, item.revision, frozenset(item.row.vectors))

    async def upsert(
        self, collection: str, rows: Sequence[Row], fingerprints: Mapping[str, str]
    ) -> list[WrittenRow | ServiceError]:
        """Replace the rows."""
        table = self.table(collection)
        version = table.commit()
        return [self._written(table, row, version) for row in rows]

    async def update(
        self, collection: str, change: RowChange, fingerprints: Mapping[str, str]
    ) -> tuple[MemoryItem, str]:
        """Replace the row by its changed self."""
        item, table = self._item(collection, change.id), self.table(collection)
        if change.expected_revision not in (None, item.revision):
            raise RevisionError(change.id, change.expected_revision or 0, item.revision)
        self._written(table, _changed(table.collection, item.row, change), table.commit())
        return table.items[change.id], table.version

    async def read_media(self, sha256: str, max_bytes: int) -> bytes:
        """Look the object up."""
        if sha256 not in self._media:
            raise MediaNotFoundError(sha256)
        return self._media[sha256]

    def _item(self, collection: str, item_id: str) -> MemoryItem:
        items = self.table(collection).items
        if item_id not in items:
            raise ItemNotFoundError(item_id)
        return items[item_id]

    def _written(self, table: _Table, row: Row, version: str) -> WrittenRow:
        before = table.items.get(row.id)
        revision = before.revision + 1 if before else 1
        table.items[row.id] = MemoryItem(row, revision)
        if row.media and isinstance(row.media.source, InlineMedia):
            self._media[row.media.facts.sha256] = row.media.source.data
        return WrittenRow(row.id, revision, version)


class MemoryIndex:
    """`Index` that compares with every row of a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def search(self, scope: Scope, space: Space, vector: Matrix, fingerprint: str, depth: int) -> IndexResult:
        """Score and sort."""
        table = self._store.table(scope.collection)
        known = {space.name: space for space in table.collection.spaces}
        if space.name not in known:
            raise SpaceNotFoundError(space.name, list(known))
        if fingerprint not in ("", known[space.name].fingerprint):
            raise FingerprintError(known[space.name].fingerprint, fingerprint)
        rows = [item.row for item in table.items.values() if space.name in item.row.vectors and _satisfies(item, scope)]
        hits = [IndexHit(row.id, _score(row.vectors[space.name], vector, space), list(row.vectors)) for row in rows]
        sign = 1 if space.metric is Metric.EUCLIDEAN else -1
        hits.sort(key=lambda hit: (sign * hit.score, hit.id))
        return IndexResult(hits[:depth], table.version, SearchMode.EXACT, len(hits), len(hits))


def _embedded(content: Content, dimensions: int) -> Embedding | ServiceError:
    data = content.encode() if isinstance(content, str) else content
    if data.startswith(CORRUPT):
        return MediaError("is corrupt")
    facts = None
    if isinstance(content, bytes):
        facts = MediaFacts(ContentType.IMAGE, hashlib.sha256(data).hexdigest(), "image/png", len(data), 1, 1)
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return Embedding(vector / np.linalg.norm(vector), facts)


def _satisfies(item: MemoryItem, scope: Scope) -> bool:
    return scope.condition is None or matches(scope.condition, parse_metadata(item.row.metadata_json))


def _score(mine: Matrix, query: Matrix, space: Space) -> float:
    match space.metric:
        case Metric.COSINE:
            return float(mine @ query / (np.linalg.norm(mine) * np.linalg.norm(query)))
        case Metric.DOT_PRODUCT:
            return float(mine @ query)
        case Metric.EUCLIDEAN:
            return float(np.linalg.norm(mine - query))


def _changed(collection: Collection, row: Row, change: RowChange) -> Row:
    text = row.text if change.text is None else change.text or None
    media = None if change.remove_media else change.media or _kept(row.media)
    before = {
        space.name: first_source(space, text=bool(row.text), image=bool(row.media)) for space in collection.spaces
    }
    changed = {ContentType.TEXT: text != row.text, ContentType.IMAGE: change.media is not None or change.remove_media}
    kept = {
        space.name: row.vectors[space.name]
        for space in collection.spaces
        if space.name in row.vectors
        and not changed.get(before[space.name] or ContentType.VIDEO)
        and first_source(space, text=bool(text), image=bool(media)) is before[space.name]
    }
    return Row(row.id, text, media, _metadata(row.metadata_json, change), {**kept, **change.vectors})


def _kept(media: RowMedia | None) -> RowMedia | None:
    return RowMedia(StoredMedia(media.facts.sha256), media.facts) if media else None


def _metadata(before: str, change: RowChange) -> str:
    match change.metadata:
        case None:
            return before
        case ReplaceMetadata(text):
            return text
        case MergeMetadata(text):
            return json.dumps(_merged(parse_metadata(before), parse_metadata(text)))


def _merged(before: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    known = before if isinstance(before, dict) else {}
    changed = {key: _merged(known.get(key), value) for key, value in patch.items() if value is not None}
    return {key: value for key, value in known.items() if key not in patch} | changed
