import json
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from medley import Error, Item, Media
from medley.cli.printing import item_title, print_table, to_jsonable
from medley.text import one_line, printable, shorten


def item(text: str | None = None, metadata: dict[str, object] | None = None, media: Media | None = None) -> Item:
    when = datetime(2024, 1, 2, tzinfo=UTC)
    return Item("a", "text", text, media, metadata, {"own": np.array([1.5], "f4")}, ("own",), 1, when, when)


def test_values_become_json_without_their_bytes() -> None:
    value = to_jsonable(item(media=Media("f", data=b"bytes")))
    assert json.loads(json.dumps(value)) == value
    assert value["media"] == {"sha256": "f", "mime_type": "", "size_bytes": 0, "width": 0, "height": 0}
    assert (value["vectors"], value["create_time"]) == ({"own": [1.5]}, "2024-01-02T00:00:00+00:00")
    assert to_jsonable(Error("m", "R", {"a": "b"})) == {"reason": "R", "message": "m", "metadata": {"a": "b"}}


def test_an_item_is_called_by_its_name_its_text_or_its_media() -> None:
    assert item_title(item("text", {"name": "Name"})) == "Name"
    assert item_title(item("text", {"name": 3, "title": "Title"})) == "Title"
    assert item_title(item("text")) == "text"
    assert item_title(item(media=Media("f", "image/png"))) == "(image/png)"


def test_text_stays_on_one_line_and_within_its_room() -> None:
    assert one_line("a\n\tb\x1b[31m\x00c") == "a b[31mc"
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"
    assert printable("caf\udce9") == "caf?"


def test_a_table_cuts_the_long_column_and_keeps_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("id-1", "long " * 40, 1), ("id-22", "short", 20)]
    print_table(("id", "what", "n"), rows, flexible="what", right=("n",))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "id-1", "id-22"]
    assert all(len(line) <= 80 for line in lines)
    assert "…" in lines[1]
    assert lines[1].rstrip().endswith(" 1")


def test_a_table_keeps_to_the_line_however_long_the_ids(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "what", "n"), [("i" * 200, "w" * 200, "123456")], flexible="what")
    line = capsys.readouterr().out.splitlines()[1]
    assert len(line) <= 80
    assert "123456" in line
    assert line.index("…") > 12


def test_the_client_needs_nothing_of_the_command_line_or_the_server() -> None:
    forbidden = ("click", "rich", "PIL", "pyarrow", "pydantic", "onnxruntime", "services")
    program = f"import sys, medley, medley.aio; print([name for name in {forbidden} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
