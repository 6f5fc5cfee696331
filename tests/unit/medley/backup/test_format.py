"""What files of items hold, read back."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medley import Item, Space
from medley.backup.format import decode_items, encode_items

SPACES = (Space("own", dimensions=3), Space("other", dimensions=2))

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

READ = """
import os, sys
from medley import Space
from medley.backup.format import decode_items
content = open(sys.argv[1], "rb").read()
before = set(os.listdir("/proc/self/task"))
assert len(list(decode_items(content, [Space("own", dimensions=3)]))) == 40
print(len(set(os.listdir("/proc/self/task")) - before))
"""


def item(id: str, text: str | None = None, metadata: Any = None, **vectors: list[float]) -> Item:
    held = {name: np.array(vector, np.float32) for name, vector in vectors.items()}
    return Item(id, "text", text, None, metadata, held, tuple(held), 1, NOW, NOW)


def test_items_come_back_as_they_were() -> None:
    items = [
        item("a", "ä text", {"n": [1, {"deep": None}]}, own=[1, 2, 3]),
        item("b", own=[0, -1, 1], other=[1e-30, 5]),
    ]
    first, second = decode_items(encode_items(items, SPACES), SPACES)
    assert (first.id, first.text, first.metadata) == ("a", "ä text", {"n": [1, {"deep": None}]})
    assert {name: vector.tolist() for name, vector in first.vectors.items()} == {"own": [1, 2, 3]}
    assert second.vectors["other"].tobytes() == np.array([1e-30, 5], np.float32).tobytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_reading_leaves_no_thread_that_holds_the_bytes(tmp_path: Path) -> None:
    """Such a thread aborts the process where it lets go of them while Python ends."""
    items = [item(f"{number}", own=[number, 0, 0]) for number in range(40)]
    path = tmp_path / "items.parquet"
    path.write_bytes(encode_items(items, SPACES[:1]))
    read = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=False, timeout=60)
    assert (read.returncode, read.stdout) == (0, "0\n"), read.stderr
