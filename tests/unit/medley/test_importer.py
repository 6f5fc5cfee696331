"""The loader against a gateway that keeps items in a dictionary and fails on demand."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2

import medley
from medley import Client, NewItem
from medley.importer import Importer, Report
from medley.importer import importer as module
from medley.importer.pending_item import json_equal
from medley.inputs import Input, InputError
from medley.v1 import gateway_service_pb2 as pb
from medley.v1 import item_pb2
from services.common.errors import CollectionNotFoundError, ServiceUnavailableError
from services.common.rpc.statuses import to_status
from tests.unit.medley.scripted_gateway import ScriptedGateway, serving


class Shelf:
    """A gateway's ingest and lookups, over a dictionary."""

    def __init__(self) -> None:
        self.items: dict[str, item_pb2.Item] = {}
        self.sent: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.before_answer: Callable[[str], status_pb2.Status | None] = lambda item_id: None
        self.before_lookup: Callable[[], None] = lambda: None

    def gateway(self) -> ScriptedGateway:
        return ScriptedGateway(IngestItems=self._ingest, GetItems=self._get, UploadMedia=self._upload)

    def _ingest(self, requests: Iterator[pb.IngestItemsRequest], context: Any) -> Iterator[pb.IngestItemsResponse]:
        next(requests)
        for sequence, item in enumerate(item for request in requests for item in request.chunk.items):
            self.sent.append(item.id)
            refused = self.before_answer(item.id)
            if refused:
                result = item_pb2.ItemResult(error=refused)
            else:
                self.items[item.id] = self._stored(item)
                result = item_pb2.ItemResult(written=item_pb2.ItemWritten(id=item.id, revision=1, version="v.1"))
            answer = pb.IngestedItem(id=item.id, sequence=sequence, result=result)
            yield pb.IngestItemsResponse(items=[answer])

    def _stored(self, item: pb.IngestItem) -> item_pb2.Item:
        media = None
        if item.HasField("media"):
            sha256 = item.media.sha256 or hashlib.sha256(item.media.data).hexdigest()
            media = item_pb2.Media(sha256=sha256)
        text = item.text if item.HasField("text") else None
        return item_pb2.Item(id=item.id, text=text, media=media, metadata_json=item.metadata_json or "{}")

    def _get(self, request: pb.GetItemsRequest, context: Any) -> pb.GetItemsResponse:
        self.before_lookup()
        missing = item_pb2.ItemLookup(error=status_pb2.Status(code=5))
        found = [item_pb2.ItemLookup(item=self.items[i]) if i in self.items else missing for i in request.ids]
        return pb.GetItemsResponse(lookups=found)

    def _upload(self, requests: Iterator[pb.UploadMediaRequest], context: Any) -> pb.UploadMediaResponse:
        content = b"".join(request.chunk for request in requests)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        return pb.UploadMediaResponse(media=item_pb2.Media(sha256=sha256))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INITIAL_BACKOFF_SECONDS", 0.01)


def inputs(count: int) -> Iterator[Input]:
    return (Input(f"row {number}", NewItem(str(number), text=f"text {number}")) for number in range(count))


def load(shelf: Shelf, given: Iterator[Input], timeout_seconds: float = 5.0) -> Report:
    report = Report()
    with serving(shelf.gateway()) as server, Client(server) as client:
        Importer(client, "c", timeout_seconds=timeout_seconds).run(given, report)
    return report


def counts(report: Report) -> tuple[int, int, int]:
    return report.ingested, report.unchanged, len(report.failures)


def test_what_is_stored_unchanged_is_skipped(shelf: Shelf) -> None:
    assert counts(load(shelf, inputs(300))) == (300, 0, 0)
    shelf.sent.clear()
    del shelf.items["7"]
    shelf.items["8"].text = "other"
    shelf.items["9"].metadata_json = '{"a": 1}'
    shelf.items["10"].media.sha256 = "f" * 64
    assert counts(load(shelf, inputs(300))) == (4, 296, 0)
    assert shelf.sent == ["7", "8", "9", "10"]


def test_the_same_picture_under_another_path_is_unchanged(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    (tmp_path / "b").write_bytes(b"picture")
    assert counts(load(shelf, iter([Input("a", NewItem("x", media=tmp_path / "a"))]))) == (1, 0, 0)
    assert counts(load(shelf, iter([Input("b", NewItem("x", media=tmp_path / "b"))]))) == (0, 1, 0)
    (tmp_path / "b").write_bytes(b"another")
    assert counts(load(shelf, iter([Input("b", NewItem("x", media=tmp_path / "b"))]))) == (1, 0, 0)


def test_failed_inputs_are_named_and_the_others_go_on(shelf: Shelf, tmp_path: Path) -> None:
    given = [
        Input("bad row", problem="no id"),
        Input("first", NewItem("a", "one")),
        Input("twice", NewItem("a", "two")),
        Input("lost", NewItem("b", media=tmp_path / "nowhere.jpg")),
        Input("surrogate", NewItem("c", "\ud800")),
        Input("refused", NewItem("d", "bad")),
        Input("last", NewItem("e", "good")),
    ]
    refusal = status_pb2.Status(code=3, message="not this one")
    shelf.before_answer = lambda item_id: refusal if item_id == "d" else None
    report = load(shelf, iter(given))
    assert counts(report) == (2, 0, 5)
    assert shelf.sent == ["a", "d", "e"]
    problems = {failure.name: failure.problem for failure in report.failures}
    assert problems.keys() == {"bad row", "twice", "lost", "surrogate", "refused"}
    assert problems["twice"] == "duplicate id 'a'"
    assert "nowhere.jpg: No such file" in problems["lost"]
    assert problems["refused"] == "not this one"
    assert not report.ok


def failing_at(*moments: int) -> Callable[..., None]:
    """Fail with UNAVAILABLE at these calls, counted from 1."""
    calls = [0]

    def check(*_: object) -> None:
        calls[0] += 1
        if calls[0] in moments:
            raise ServiceUnavailableError("store")

    return check


def test_an_ingest_that_breaks_goes_on_with_what_was_not_answered(shelf: Shelf) -> None:
    shelf.before_answer = failing_at(5, 200)
    assert counts(load(shelf, inputs(400))) == (400, 0, 0)
    assert len(shelf.items) == 400


def test_lookups_that_fail_are_made_again(shelf: Shelf) -> None:
    shelf.before_lookup = failing_at(1, 2, 3, 4, 6, 7, 8, 9)
    assert counts(load(shelf, inputs(400))) == (400, 0, 0)


def test_an_item_refused_for_now_is_sent_again(shelf: Shelf) -> None:
    away = to_status(ServiceUnavailableError("embedder"))
    answers = iter([None, away, away])
    shelf.before_answer = lambda item_id: next(answers, None)
    report = load(shelf, inputs(10))
    assert counts(report) == (10, 0, 0)
    assert shelf.items.keys() == {str(number) for number in range(10)}


def test_patience_ends_and_the_report_says_so(shelf: Shelf) -> None:
    away = to_status(ServiceUnavailableError("embedder"))
    shelf.before_answer = lambda item_id: away if item_id == "3" else None
    report = load(shelf, inputs(10), timeout_seconds=0.2)
    assert counts(report) == (3, 0, 0)
    assert "no progress in 0.2 seconds" in report.stopped
    assert "embedder" in report.stopped
    assert not report.ok


def test_a_collection_that_is_not_there_is_an_error(shelf: Shelf) -> None:
    def missing() -> None:
        raise CollectionNotFoundError("collections/c")

    shelf.before_lookup = missing
    with pytest.raises(medley.NotFoundError):
        load(shelf, inputs(1))


def test_a_manifest_that_breaks_stops_after_what_came_before(shelf: Shelf) -> None:
    def breaking() -> Iterator[Input]:
        yield from inputs(150)
        raise InputError("m.parquet: cannot be read beyond row 150")

    report = load(shelf, breaking())
    assert counts(report) == (150, 0, 0)
    assert "beyond row 150" in report.stopped


def test_large_files_are_uploaded_before_their_item(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INLINE_BYTES", 10)
    (tmp_path / "large").write_bytes(b"large picture")
    given = [Input("a", NewItem("a", media=tmp_path / "large")), Input("b", NewItem("b", media=b"small"))]
    assert counts(load(shelf, iter(given))) == (2, 0, 0)
    assert list(shelf.objects.values()) == [b"large picture"]
    assert counts(load(shelf, iter(given))) == (0, 2, 0)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ({"a": 1, "b": [2, {}]}, {"b": [2, {}], "a": 1.0}, True),
        (None, {}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": (1,)}, {"a": [1]}, True),
        ({"a": "1"}, {"a": 1}, False),
    ],
)
def test_metadata_are_compared_as_json(left: Any, right: Any, same: bool) -> None:
    assert json_equal(left, right) is same
    assert json_equal(json.loads(json.dumps(left)), right) is same
