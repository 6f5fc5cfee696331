"""The contract of the gateway's ports. Subclass the classes and provide the `peers` fixture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from services.common.content import ContentType
from services.common.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    ServiceError,
)
from services.common.filters import Comparison, Operator
from services.common.vectors import Matrix, Metric
from services.gateway.core.embedder import Embedder, Embedding, Purpose
from services.gateway.core.index import Index, Scope
from services.gateway.core.items import Collection, InlineMedia, MediaFacts, Space, StoredMedia
from services.gateway.core.store import (
    CollectionStore,
    ItemReader,
    MediaReader,
    MergeMetadata,
    Row,
    RowChange,
    RowEditor,
    RowMedia,
    RowWriter,
    WrittenRow,
)

NAME = "collections/things"
MODEL = "medley-mini"
DIMENSIONS = 4


class Store(CollectionStore[Any], ItemReader[Any], RowWriter, RowEditor[Any], MediaReader, Protocol):
    """Every port of the store."""


@dataclass(frozen=True)
class PeerPorts:
    embedder: Embedder
    store: Store
    index: Index


def picture(shade: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def collection(fingerprint: str = "p/1") -> Collection:
    pictures = Space("clip", MODEL, DIMENSIONS, Metric.COSINE, (ContentType.IMAGE,), fingerprint)
    texts = Space("text", MODEL, DIMENSIONS, Metric.COSINE, (ContentType.TEXT,), fingerprint)
    return Collection(NAME, (pictures, texts, Space("own", "", 2, Metric.EUCLIDEAN)))


def media(shade: int) -> RowMedia:
    data = picture(shade)
    facts = MediaFacts(ContentType.IMAGE, hashlib.sha256(data).hexdigest(), "image/png", len(data), 6, 4)
    return RowMedia(InlineMedia(data), facts)


def axis(number: int, dimensions: int = DIMENSIONS) -> Matrix:
    vector: Matrix = np.eye(dimensions, dtype=np.float32)[number]
    return vector


def row(item_id: str = "a", metadata_json: str = "{}") -> Row:
    vectors = {"clip": axis(0), "text": axis(1), "own": np.array([1, 2], np.float32)}
    return Row(item_id, "a text", media(1), metadata_json, vectors)


class EmbedderContract:
    async def test_a_model_says_what_it_takes(self, peers: PeerPorts) -> None:
        model = await peers.embedder.get_model(MODEL)
        assert model.name == MODEL
        assert set(model.inputs) == {ContentType.IMAGE, ContentType.TEXT}
        assert model.dimensions > 0
        assert model.fingerprint

    async def test_an_unknown_model_is_not_found(self, peers: PeerPorts) -> None:
        for call in (peers.embedder.get_model("none"), peers.embedder.embed("none", "", ["a"], Purpose.QUERY)):
            with pytest.raises(NotFoundError) as refused:
                await call
            assert refused.value.reason == "MODEL_NOT_FOUND"

    async def test_vectors_come_in_order_with_facts_for_pictures(self, peers: PeerPorts) -> None:
        model = await peers.embedder.get_model(MODEL)
        text, image = await peers.embedder.embed(MODEL, model.fingerprint, ["a shoe", picture(9)], Purpose.QUERY)
        assert isinstance(text, Embedding)
        assert isinstance(image, Embedding)
        assert text.vector.shape == image.vector.shape == (model.dimensions,)
        assert text.media is None
        assert image.media is not None
        assert image.media.sha256 == hashlib.sha256(picture(9)).hexdigest()
        assert image.media.content_type is ContentType.IMAGE

    async def test_a_bad_input_is_refused_alone(self, peers: PeerPorts) -> None:
        bad, good = await peers.embedder.embed(MODEL, "", [b"corrupt", "a shoe"], Purpose.QUERY)
        assert isinstance(bad, ServiceError)
        assert bad.reason == "MEDIA_INVALID"
        assert isinstance(good, Embedding)

    async def test_another_fingerprint_is_refused(self, peers: PeerPorts) -> None:
        with pytest.raises(PreconditionError) as refused:
            await peers.embedder.embed(MODEL, "another", ["a shoe"], Purpose.QUERY)
        assert refused.value.reason == "FINGERPRINT_MISMATCH"

    async def test_media_are_inspected(self, peers: PeerPorts) -> None:
        facts = await peers.embedder.inspect(picture(9))
        assert (facts.content_type, facts.size_bytes) == (ContentType.IMAGE, len(picture(9)))
        with pytest.raises(InvalidError):
            await peers.embedder.inspect(b"corrupt")


class StoreContract:
    async def test_a_collection_is_kept_as_created(self, peers: PeerPorts) -> None:
        await peers.store.create_collection(collection(), {})
        assert await peers.store.get_collection(NAME) == collection()

    async def test_the_same_collection_again_is_no_error_and_another_is(self, peers: PeerPorts) -> None:
        await peers.store.create_collection(collection(), {})
        await peers.store.create_collection(collection(), {})
        with pytest.raises(AlreadyExistsError) as refused:
            await peers.store.create_collection(collection("p/2"), {})
        assert refused.value.reason == "COLLECTION_EXISTS"

    async def test_an_unknown_collection_is_not_found(self, peers: PeerPorts) -> None:
        store = peers.store
        calls = [store.get_collection(NAME), store.get_items(NAME, ["a"], []), store.upsert(NAME, [row()], {})]
        for each in calls:
            with pytest.raises(NotFoundError) as refused:
                await each
            assert refused.value.reason == "COLLECTION_NOT_FOUND"

    async def test_rows_are_written_in_order_and_replaced(self, peers: PeerPorts) -> None:
        store = await self._create(peers, row("b"))
        written = _written(await store.upsert(NAME, [row("a"), row("b")], {"clip": "p/1", "text": "p/1"}))
        assert [(each.id, each.revision) for each in written] == [("a", 1), ("b", 2)]
        found = await store.get_items(NAME, ["b", "none", "a"], [])
        assert [each is None for each in found] == [False, True, False]

    async def test_the_state_of_a_row_is_read(self, peers: PeerPorts) -> None:
        store = await self._create(peers, row())
        state = await store.get_state(NAME, "a")
        assert (state.text, state.revision, set(state.spaces)) == ("a text", 1, {"clip", "text", "own"})
        assert state.sha256 == media(1).facts.sha256
        vectors = await store.get_vectors(NAME, "a")
        assert {space: vector.tolist() for space, vector in vectors.items()} == {
            "clip": [1, 0, 0, 0],
            "text": [0, 1, 0, 0],
            "own": [1, 2],
        }

    async def test_an_unknown_item_is_not_found(self, peers: PeerPorts) -> None:
        store = await self._create(peers)
        calls = [
            store.get_state(NAME, "a"),
            store.get_vectors(NAME, "a"),
            store.update(NAME, RowChange("a", text="x"), {}),
        ]
        for each in calls:
            with pytest.raises(NotFoundError) as refused:
                await each
            assert refused.value.reason == "ITEM_NOT_FOUND"

    async def test_media_written_with_a_row_can_be_read_and_referred_to(self, peers: PeerPorts) -> None:
        store = await self._create(peers, row())
        facts = media(1).facts
        assert await store.read_media(facts.sha256, 10_000) == picture(1)
        again = replace(row("b"), media=RowMedia(StoredMedia(facts.sha256), facts))
        assert _written(await store.upsert(NAME, [again], {}))[0].revision == 1
        with pytest.raises(NotFoundError) as refused:
            await store.read_media("0" * 64, 10_000)
        assert refused.value.reason == "MEDIA_NOT_FOUND"

    async def test_an_update_keeps_the_fields_it_leaves_out(self, peers: PeerPorts) -> None:
        store = await self._create(peers, row())
        _, version = await store.update(NAME, RowChange("a", metadata=MergeMetadata('{"n": 1}')), {})
        assert version
        state = await store.get_state(NAME, "a")
        assert (state.text, state.revision, set(state.spaces)) == ("a text", 2, {"clip", "text", "own"})

    async def test_changed_content_removes_its_vector_unless_there_is_a_new_one(self, peers: PeerPorts) -> None:
        store = await self._create(peers, row())
        await store.update(NAME, RowChange("a", text="other", vectors={"text": axis(2)}), {"text": "p/1"})
        assert (await store.get_vectors(NAME, "a"))["text"].tolist() == axis(2).tolist()
        await store.update(NAME, RowChange("a", text="", media=media(2)), {})
        state = await store.get_state(NAME, "a")
        assert (state.text, set(state.spaces), state.sha256) == (None, {"own"}, media(2).facts.sha256)
        await store.update(NAME, RowChange("a", remove_media=True), {})
        assert (await store.get_state(NAME, "a")).sha256 == ""

    async def test_another_revision_than_expected_conflicts(self, peers: PeerPorts) -> None:
        store = await self._create(peers, row())
        await store.update(NAME, RowChange("a", text="b", expected_revision=1), {})
        with pytest.raises(ConflictError) as refused:
            await store.update(NAME, RowChange("a", text="c", expected_revision=1), {})
        assert refused.value.reason == "REVISION_MISMATCH"

    async def _create(self, peers: PeerPorts, *rows: Row) -> Store:
        await peers.store.create_collection(collection(), {})
        if rows:
            _written(await peers.store.upsert(NAME, rows, {}))
        return peers.store


class IndexContract:
    async def test_the_nearest_come_first_and_ties_by_id(self, peers: PeerPorts) -> None:
        version = await self._fill(peers)
        answer = await peers.index.search(Scope(NAME, None, version), self._own, _own(0), "", 3)
        assert [hit.id for hit in answer.hits] == ["i0", "i1", "i1b"]
        assert [hit.score for hit in answer.hits] == [0, 1, 1]
        assert answer.candidates == 5

    async def test_a_hit_names_every_space_of_its_item(self, peers: PeerPorts) -> None:
        version = await self._fill(peers)
        answer = await peers.index.search(Scope(NAME, None, version), self._own, _own(3), "", 1)
        assert [(hit.id, set(hit.spaces)) for hit in answer.hits] == [("i3", {"own", "text"})]

    async def test_only_what_satisfies_the_condition_is_ranked(self, peers: PeerPorts) -> None:
        version = await self._fill(peers)
        condition = Comparison(("n",), Operator.GREATER, (1,))
        answer = await peers.index.search(Scope(NAME, condition, version), self._own, _own(0), "", 10)
        assert [hit.id for hit in answer.hits] == ["i2", "i3"]
        assert answer.candidates == 2

    async def test_an_unknown_collection_or_space_is_not_found(self, peers: PeerPorts) -> None:
        version = await self._fill(peers)
        none = replace(self._own, name="none")
        cases = [(Scope("collections/none"), self._own, "COLLECTION"), (Scope(NAME, None, version), none, "SPACE")]
        for scope, space, what in cases:
            with pytest.raises(NotFoundError) as refused:
                await peers.index.search(scope, space, _own(0), "", 3)
            assert refused.value.reason == f"{what}_NOT_FOUND"

    async def test_another_fingerprint_is_refused(self, peers: PeerPorts) -> None:
        version = await self._fill(peers)
        text = collection().spaces[1]
        with pytest.raises(PreconditionError) as refused:
            await peers.index.search(Scope(NAME, None, version), text, axis(0), "another", 3)
        assert refused.value.reason == "FINGERPRINT_MISMATCH"

    _own = collection().spaces[2]

    async def _fill(self, peers: PeerPorts) -> str:
        await peers.store.create_collection(collection(), {})
        rows = [Row(f"i{n}", "x", None, f'{{"n": {n}}}', {"own": _own(n)}) for n in range(4)]
        rows[3] = replace(rows[3], vectors={"own": _own(3), "text": axis(0)})
        rows.append(Row("i1b", "x", None, '{"n": 1}', {"own": _own(1)}))
        return _written(await peers.store.upsert(NAME, rows, {}))[-1].version


def _own(number: float) -> Matrix:
    return np.array([number, 0], np.float32)


def _written(outcomes: Sequence[WrittenRow | ServiceError]) -> list[WrittenRow]:
    for outcome in outcomes:
        assert isinstance(outcome, WrittenRow), outcome
    return [outcome for outcome in outcomes if isinstance(outcome, WrittenRow)]
