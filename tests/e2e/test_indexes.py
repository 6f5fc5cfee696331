"""The choice of an index, from the command line: made, changed, waited for, told, and kept by backups."""

import numpy as np
import pytest

from medley import Client, HnswIndex, NewItem, Space
from tests.e2e.commands import Medley

ITEMS = 60


def fill(medley: Medley, name: str) -> None:
    vectors = np.random.default_rng(7).normal(size=(ITEMS, 8))
    with Client(medley.server) as client:
        items = (
            NewItem(f"i{number:02}", metadata={"number": number}, vectors={"own": vector.tolist()})
            for number, vector in enumerate(vectors)
        )
        assert all(result.ok for result in client.ingest(name, items))


def found(medley: Medley, name: str, *options: str) -> list[str]:
    return [hit["item"]["id"] for hit in medley.json("search", "-c", name, "--item", "i07", *options)["hits"]]


def mode(medley: Medley, name: str, *options: str) -> str:
    (arm,) = medley.json("search", "-c", name, "--item", "i07", *options)["arms"]
    assert 0 < arm["compared"] <= ITEMS
    return str(arm["mode"])


def state(medley: Medley, name: str) -> dict[str, object]:
    status = medley.json("status")
    (index,) = next(each["indexes"] for each in status["collections"] if each["collection"]["name"] == name)
    return dict(index)


def test_an_index_is_chosen_waited_for_and_taken_back(medley: Medley) -> None:
    made = medley.json("collections", "create", "tuned", "--space", "own=8", "--index", "own=ivf,nlist=4")
    assert (made["spaces"][0]["index"]["kind"], made["spaces"][0]["index"]["nlist"]) == ("ivf", 4)
    assert medley.json("collections", "create", "tuned", "--space", "own=8") == made, "the same again"
    fill(medley, "tuned")
    exact = found(medley, "tuned", "--exact")
    waited = medley.json("collections", "index", "tuned", "own", "hnsw", "--m", 24, "--wait")
    assert (waited["index"]["state"], waited["index"]["vectors"]) == ("ready", ITEMS)
    assert waited["index"]["config"]["kind"] == "hnsw"
    assert waited["index"]["config"]["m"] == 24
    assert waited["index"]["config"] == waited["collection"]["spaces"][0]["index"]
    assert found(medley, "tuned", "--exact") == exact
    assert len(found(medley, "tuned")) == 10
    assert mode(medley, "tuned") == "approximate"
    assert mode(medley, "tuned", "--exact") == "exact"
    assert mode(medley, "tuned", "--where", '{"number": {"$lt": 5}}') == "exact", "few are left"

    told = state(medley, "tuned")
    assert (told["state"], told["config"]) == ("ready", waited["index"]["config"])
    assert "hnsw" in str(told["engine"])
    assert told["lag_seconds"] == 0
    table = medley("status").out
    assert "tuned" in table
    assert "ready" in table

    few = medley("collections", "index", "tuned", "own", "ivf", "--nlist", 4096, "--wait", "--json")
    assert (few.code, few.json["index"]["state"]) == (1, "waiting")
    assert few.json["index"]["note"].startswith("it takes 32,768 vectors")
    back = medley("collections", "index", "tuned", "own", "exact", "--wait")
    assert back.code == 0, back.err
    assert f"own: ready, {ITEMS} vectors" in back.out
    assert "exact storage=int8" in medley("collections", "show", "tuned").out
    assert found(medley, "tuned") == exact
    assert mode(medley, "tuned") == "exact"


def test_the_usual_spaces_can_be_indexed_otherwise(medley: Medley) -> None:
    made = medley.json("collections", "create", "usual", "--index", "clip=hnsw")
    assert {space["name"]: space["index"]["kind"] for space in made["spaces"]} == {"clip": "hnsw", "text": "exact"}
    with Client(medley.server) as client:
        spaces = {space.name: space.index for space in client.collection("usual").spaces}
        assert isinstance(spaces["clip"], HnswIndex)
        assert spaces["clip"].m == 32


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("collections", "index", "nowhere", "own", "hnsw"), 1, "nowhere"),
        (("collections", "index", "odd", "none", "hnsw"), 1, "no space 'none'"),
        (("collections", "index", "odd", "own", "tree"), 2, "tree"),
        (("collections", "index", "odd", "own", "exact", "--nlist", "3"), 2, "has no lists"),
        (("collections", "index", "odd", "own", "hnsw", "--m", "3"), 1, "index.hnsw.m 3"),
        (("collections", "index", "odd", "own", "ivf", "--product-bytes", "3"), 1, "must divide the 8 dimensions"),
        (("collections", "create", "odd2", "--space", "own=8", "--index", "none=hnsw"), 2, "the spaces are own"),
        (("collections", "create", "odd2", "--index", "clip=hnsw,nlist=3"), 2, "has no lists"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(medley: Medley, arguments: tuple[str, ...], code: int, problem: str) -> None:
    with Client(medley.server) as client:
        client.create_collection("odd", [Space("own", dimensions=8)])
    answer = medley(*arguments)
    assert (answer.code, answer.out) == (code, "")
    assert problem in answer.err


def test_a_backup_keeps_the_choice(medley: Medley) -> None:
    chosen = HnswIndex(24, 100, 64, "float32", 0.2, 0.8)
    with Client(medley.server) as client:
        client.create_collection("kept", [Space("own", dimensions=8, index=chosen)])
        fill(medley, "kept")
        assert medley("backup", "kept", "--to", medley.folder / "saved").code == 0
        client.drop_collection("kept")
        restored = medley("restore", medley.folder / "saved")
        assert restored.code == 0, restored.err
        assert client.collection("kept").spaces[0].index == chosen
