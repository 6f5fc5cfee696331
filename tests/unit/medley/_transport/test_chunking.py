"""Items of an ingest go together as far as they are at hand and fit."""

from medley._transport.chunking import RequestChunker
from medley.v1 import gateway_service_pb2 as pb


def lots(*sizes: int, max_items: int = 3, max_bytes: int = 100) -> RequestChunker:
    filled = RequestChunker(max_items, max_bytes)
    for number, size in enumerate(sizes):
        filled.put(pb.IngestItem(id=str(number)), size)
    return filled


def taken(waiting: RequestChunker) -> list[list[str]]:
    """Return the ids of each lot, until none is left."""
    return [[item.id for item in lot] for lot in iter(waiting.take, [])]


def test_a_lot_has_no_more_items_than_allowed() -> None:
    assert taken(lots(1, 1, 1, 1)) == [["0", "1", "2"], ["3"]]


def test_a_lot_has_no_more_bytes_than_allowed() -> None:
    assert taken(lots(60, 40, 1)) == [["0", "1"], ["2"]]


def test_an_item_over_the_bound_goes_alone() -> None:
    assert taken(lots(10, 500, 10)) == [["0"], ["1"], ["2"]]


def test_it_is_ready_with_an_item_or_at_the_end() -> None:
    waiting = lots()
    assert not waiting.ready()
    waiting.put(pb.IngestItem(id="a"), 1)
    assert waiting.ready()
    assert taken(waiting) == [["a"]]
    assert not waiting.ready()
    waiting.end()
    assert waiting.ready()
    assert waiting.take() == []
