"""Medley among its peers: each engine asked by `benchmarks.peers.driver`, in its own environment."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.search.conditions import CONDITIONS
from benchmarks.search.corpus import Corpus

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache/peers"
PEERS = {"lancedb": "lancedb", "milvus_lite": "milvus-lite", "chromadb": "chromadb", "deeplake": "deeplake"}
HEAD = (
    "",
    "loaded in",
    *(f"{label}: p50 ms (recall) · 8 callers, queries/s" for label in ("all", *(c.label for c in CONDITIONS))),
)
LIMIT_SECONDS = 240  # for an engine, all its modes together
QUERIES = 100


def compared(corpus: Corpus) -> Iterator[Sequence[str]]:
    """Yield the cells of each engine's lines, in the order of `HEAD`; one that cannot be measured says why."""
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as temporary:
        folder = Path(temporary)
        replace(corpus, queries=corpus.queries[:QUERIES]).save(folder)
        for engine, python in _pythons().items():
            yield from _lines(engine, python, folder)


def _pythons() -> dict[str, Path]:
    peers = {engine: ENVIRONMENTS / name / "bin/python" for engine, name in PEERS.items()}
    return {"medley": Path(sys.executable), **peers}


def _lines(engine: str, python: Path, folder: Path) -> Iterator[Sequence[str]]:
    if not python.exists():
        yield engine, "not measured: `make peers` installs it", *[""] * (len(HEAD) - 2)
        return
    output, failure = _asked([str(python), "-m", "benchmarks.peers.driver", engine, str(folder)])
    modes: dict[str, list[dict[str, Any]]] = {}
    for line in output.splitlines():
        answered = json.loads(line)
        modes.setdefault(f"{answered['engine']}, {answered['mode']}", []).append(answered)
    for name, answers in modes.items():
        cells = [_cell(answered) for answered in answers]
        yield name, f"{answers[0]['load_seconds']:.1f} s", *cells, *[""] * (len(HEAD) - 2 - len(cells))
    if failure:
        yield engine, failure, *[""] * (len(HEAD) - 2)


def _asked(command: Sequence[str]) -> tuple[str, str]:
    """Return what the driver printed, and why it ended early, "" if it did not."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        try:
            output, errors = driver.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            driver.terminate()
            return driver.communicate()[0], f"ended after {LIMIT_SECONDS} s"
    if driver.returncode:
        print(errors, file=sys.stderr)
    return output, "failed, as the output says" if driver.returncode else ""


def _cell(answered: dict[str, Any]) -> str:
    return f"{answered['p50']:.1f} ({answered['recall']:.3f}) · {answered['rate']:,.0f}"
