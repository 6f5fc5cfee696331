"""The command line against a suite that `medley up` runs."""

import csv
import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medley import Client
from medley.demo.catalogue import Product
from tests.e2e.commands import Medley, ended, run, up, up_until_signalled


def pictures(folder: Path, products: list[Product]) -> Path:
    """Write the products as a folder of pictures with captions: texts, or JSON with metadata."""
    folder.mkdir()
    for number, product in enumerate(products):
        (folder / f"{product.id}.jpg").write_bytes(product.picture)
        if number % 2:
            (folder / f"{product.id}.txt").write_text(product.description)
        else:
            sidecar = {"text": product.description, "metadata": dict(product.metadata)}
            (folder / f"{product.id}.json").write_text(json.dumps(sidecar))
    return folder


def named(products: list[Product], name: str) -> Product:
    return next(product for product in products if product.name == name)


def test_a_folder_goes_in_is_searched_changed_and_deleted(medley: Medley, products: list[Product]) -> None:
    folder = pictures(medley.folder / "in", products)
    (folder / "note.md").write_text("Tea needs water just off the boil.")
    first = medley.json("ingest", folder, "--collection", "folder", "--create")
    assert (first["ingested"], first["unchanged"], first["failed"]) == (len(products) + 1, 0, [])
    again = medley.json("ingest", folder, "--collection", "folder")
    assert (again["ingested"], again["unchanged"], again["failed"]) == (0, len(products) + 1, [])

    mug = named(products, "Blue mug")
    by_picture = medley.json("search", "-c", "folder", "--image", folder / f"{mug.id}.jpg", "--top-k", 3)
    assert by_picture["hits"][0]["item"]["id"] == f"{mug.id}.jpg"
    assert by_picture["hits"][0]["arms"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    by_words = medley.json("search", "how to make tea", "-c", "folder", "--space", "text")
    assert by_words["hits"][0]["item"]["id"] == "note.md"

    changed = medley.json(
        "update", "note.md", "-c", "folder", "--text", "Coffee from Aleppo", "--merge", '{"by": "me"}'
    )
    assert (changed["text"], changed["metadata"], changed["revision"]) == ("Coffee from Aleppo", {"by": "me"}, 2)
    by_words = medley.json("search", "a cup of coffee", "-c", "folder", "--where", '{"by": "me"}')
    assert [hit["item"]["id"] for hit in by_words["hits"]] == ["note.md"]

    assert medley("get", f"{mug.id}.jpg", "-c", "folder", "--media", "back.jpg").code == 0
    assert (medley.folder / "back.jpg").read_bytes() == mug.picture

    assert medley.json("delete", "note.md", "nobody", "-c", "folder") == {"deleted": 1}
    gone = medley("get", "note.md", "-c", "folder")
    assert (gone.code, gone.out, gone.err) == (1, "", "medley: no item 'note.md'\n")


def test_manifests_of_every_kind_make_the_same_items(medley: Medley, products: list[Product]) -> None:
    pictures(medley.folder / "in", products)
    rows = [
        {
            "id": product.id,
            "text": product.description,
            "image": f"in/{product.id}.jpg",
            "colour": product.metadata["colour"],
            "price": product.metadata["price"],
        }
        for product in products
    ]
    with (medley.folder / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (medley.folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    embedded = [
        row | {"image": {"bytes": product.picture, "path": None}} for row, product in zip(rows, products, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(embedded), medley.folder / "m.parquet", row_group_size=10)

    first = medley.json("ingest", "m.csv", "-c", "manifests", "--create")
    assert (first["ingested"], first["failed"]) == (len(products), [])
    for other in ("m.jsonl", "m.parquet"):
        assert medley.json("ingest", other, "-c", "manifests")["unchanged"] == len(products)
    found = medley.json("list", "-c", "manifests", "--where", '{"colour": "red", "price": {"$lt": 1000}}')
    wanted = [product.id for product in products if product.metadata["colour"] == "red"]
    assert [item["id"] for item in found] == sorted(wanted)


def test_failed_inputs_are_named_and_the_others_go_in(medley: Medley, products: list[Product]) -> None:
    folder = pictures(medley.folder / "in", products[:4])
    (folder / "torn.jpg").write_bytes(products[0].picture[:500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    answer = medley("ingest", folder, "-c", "failing", "--create", "--report", "report.json")
    assert answer.code == 1
    assert answer.out.startswith("4 ingested, 0 unchanged, 3 failed\n")
    report = json.loads((medley.folder / "report.json").read_text())
    assert {failure["name"]: failure["reason"] for failure in report["failed"]} == {
        "torn.jpg": "MEDIA_INVALID",
        "empty.png": "MEDIA_INVALID",
        "latin.txt": "",
    }
    for failure in report["failed"]:
        assert failure["name"] in answer.out


def test_contact_sheets_show_the_hits(medley: Medley, products: list[Product]) -> None:
    folder = pictures(medley.folder / "in", products[:8])
    assert medley("ingest", folder, "-c", "sheets", "--create").code == 0
    sheets = ("--sheet", "out/found.png", "--sheet", "out/found.html")
    answer = medley("search", "<b>häppy</b> & ☂", "-c", "sheets", "--item", f"{products[0].id}.jpg", *sheets)
    assert answer.code == 0, answer.err
    page = (medley.folder / "out/found.html").read_text()
    assert page.count("<article>") == 8
    assert "&lt;b&gt;häppy&lt;/b&gt; &amp; ☂" in page
    assert page.count('src="data:image/jpeg;base64,') == 9
    with Image.open(medley.folder / "out/found.png") as sheet:
        assert sheet.width > 500
        assert len(sheet.convert("RGB").getcolors(2**24) or ()) > 1000


def test_tables_fit_eighty_columns_and_have_no_colours(medley: Medley, products: list[Product]) -> None:
    pictures(medley.folder / "in", products[:6])
    assert medley("ingest", "in", "-c", "tables", "--create").code == 0
    for arguments in (("list",), ("search", "red", "--item", f"{products[0].id}.jpg")):
        answer = medley(*arguments, "-c", "tables")
        assert answer.code == 0, answer.err
        assert "\x1b" not in answer.out
        assert all(len(line) <= 80 for line in answer.out.splitlines())
        assert all(f"{product.id}.jpg" in answer.out for product in products[:6])


def test_collections_are_made_shown_and_dropped(medley: Medley) -> None:
    assert medley.json("collections", "create", "made", "--space", "own=3")["spaces"][0]["dimensions"] == 3
    other = medley("collections", "create", "made")
    assert other.code == 1
    assert "made" in other.err
    assert medley.json("collections", "show", "made")["items"] == 0
    assert "made" in [collection["name"] for collection in medley.json("collections", "list")]
    assert medley("collections", "drop", "made", "--yes").out == "dropped made\n"
    assert "made" not in [collection["name"] for collection in medley.json("collections", "list")]


def test_status_says_that_all_is_well(medley: Medley) -> None:
    status = medley.json("status")
    assert {service["name"]: service["error"] for service in status["services"]} == {
        "embedder": None,
        "store": None,
        "search": None,
    }
    assert {model["name"] for model in status["models"]} >= {"medley-mini", "minilm"}
    assert medley("status").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("search", "x", "-c", "nowhere"), 1, "medley: no collection 'collections/nowhere'\n"),
        (("ingest", ".", "-c", "nowhere"), 1, "no pictures"),
        (("ingest", "m.jsonl", "-c", "nowhere"), 1, "--create makes it\n"),
        (("ingest", "nothing", "-c", "c"), 1, "medley: nothing: no such file or folder\n"),
        (("ingest", "bad.parquet", "-c", "c"), 1, "no Parquet file that can be read"),
        (("ingest", "no-id.csv", "-c", "c"), 1, "no column for the ids"),
        (("search", "x", "-c", "c", "--image", "nothing.jpg"), 1, "medley: nothing.jpg: No such file or directory\n"),
        (("search", "-c", "c"), 2, "Give a text, --image or --item"),
        (("search", "x", "-c", "c", "--weight", "text"), 2, "e.g. text=2"),
        (("search", "x", "-c", "c", "--weight", "image=2"), 1, "a weight for image, but the queries are text"),
        (("search", "x", "-c", "c", "--sheet", "a.pdf"), 2, "one of .html, .png"),
        (("search", "x", "-c", "c", "--where", "{"), 1, "medley: filter: no JSON"),
        (("search", "x", "-c", "c", "--where", '{"a": {"$near": 1}}'), 1, "unknown operator '$near'"),
        (("update", "a", "-c", "c", "--metadata", "[1]"), 2, "wants a JSON object"),
        (("delete", "-c", "c"), 2, "either ids or --where"),
        (("frobnicate",), 2, "No such command"),
        (("status", "--server", "http://127.0.0.1:1"), 1, "write host:port"),
        (("status", "--server", "127.0.0.1:1"), 1, "start one with `medley up`"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    medley: Medley, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    (medley.folder / "bad.parquet").write_bytes(b"PAR1")
    (medley.folder / "m.jsonl").write_text('{"id": 1, "text": "a"}')
    (medley.folder / "no-id.csv").write_text("words,number\na,1\n")
    with Client(medley.server) as client:
        client.create_collection("c")
    answer = medley(*arguments)
    assert answer.code == code
    assert problem in answer.err
    assert "Traceback" not in answer.err
    assert code == 2 or answer.err.count("\n") == 1
    assert answer.out == ""


def test_up_refuses_a_port_that_is_taken(medley: Medley) -> None:
    base = int(medley.server.rpartition(":")[2])
    answer = run("up", "--data", "data", "--port-base", base, cwd=medley.folder)
    assert answer.code == 1
    assert answer.err == f"medley: port {base} is taken (Address already in use): choose others with --port-base\n"


def test_what_was_ingested_is_there_after_a_restart(tmp_path: Path, products: list[Product]) -> None:
    folder = pictures(tmp_path / "in", products[:10])
    with up(tmp_path) as server:
        assert Medley(server, tmp_path)("ingest", folder, "-c", "kept", "--create").code == 0
    with up(tmp_path) as server:
        medley = Medley(server, tmp_path)
        assert medley.json("ingest", folder, "-c", "kept")["unchanged"] == 10
        assert len(medley.json("search", "a mug", "-c", "kept")["hits"]) == 10


def test_the_demo_shows_everything_and_cleans_up(tmp_path: Path) -> None:
    answer = run("demo", "--count", 60, "--sheet-dir", "sheets", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "60 ingested, 0 unchanged, 0 failed" in answer.out
    assert answer.out.count("exact among") == 7
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == [
        f"{name}{suffix}" for name in ("1-words", "2-picture", "3-both", "4-filter") for suffix in (".html", ".png")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["sheets"]


def test_up_ends_cleanly_at_ctrl_c(tmp_path: Path) -> None:
    with up_until_signalled(tmp_path) as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        answer = ended(process)
    assert (answer.code, "Traceback" in answer.err) == (0, False), answer.err


def test_up_goes_on_at_ctrl_c_where_that_is_ignored_and_ends_when_terminated(tmp_path: Path) -> None:
    """A script's background command has interrupts ignored: Ctrl-C is meant for what runs in the foreground."""
    with up_until_signalled(tmp_path, signal.SIG_IGN) as (process, address):
        os.killpg(process.pid, signal.SIGINT)
        with Client(address) as client:
            assert list(client.collections()) == []
        process.terminate()
        answer = ended(process)
    assert (answer.code, "Traceback" in answer.err) == (0, False), answer.err
