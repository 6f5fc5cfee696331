"""`python -m benchmarks.run --data fashion.parquet`: Medley beside its floors, in one run.

Prints one table and, with `--write FILE`, puts it between the marks of that file.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import medley
from benchmarks.fashion import Product, products, queries
from benchmarks.floors import RawEncoder, RawStack, encode_both, encode_pictures
from benchmarks.machine import description
from benchmarks.processes import Suite, first_answer, four_processes, one_process, ready
from benchmarks.report import table, write
from benchmarks.timing import interleaved, seconds

MODELS = Path(__file__).parents[1] / "models"
BOTH, PICTURES = "both", "pictures"
STARTS = 3
TIDIED_SECONDS = 20.0  # the store compacts its tables every 15 s; the floor's table is compact from the start
MARKS = ("<!-- make bench writes from here -->", "<!-- to here -->")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the measurement, the floor, Medley, their ratio and its target."""

    what: str
    floor: str
    medley: str
    ratio: str
    target: str


def main() -> None:
    """Measure, print, and write to the file of `--write`."""
    options = _options()
    rows = measure(options.data, options.items, options.queries, options.threads)
    figures = table(["", "floor", "Medley", "ratio", "target"], map(astuple, rows))
    command = f"make bench DATA={options.data.name}"
    text = f"{description()}.\n{options.items:,} products; command: `{command}`.\n\n{figures}\n"
    print(text)
    if options.write:
        write(options.write, MARKS, text)


def measure(data: Path, items: int, asked: int, threads: int) -> list[Row]:
    """Return the rows measured with the first `items` products of `data` and `asked` queries from those after them."""
    catalogue = list(products(data, items))
    texts = queries(data, asked, skip=items)
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as temporary:
        folder = Path(temporary)
        rows = _ingest_rows(folder, catalogue, threads)
        rows += _query_rows(folder, catalogue, texts)
        rows += _start_rows(folder, texts[0])
    return rows


def _ingest_rows(folder: Path, catalogue: list[Product], threads: int) -> list[Row]:
    encoder = RawEncoder(MODELS, threads=1)
    spaces = {PICTURES: [medley.Space("clip", model="medley-mini")], BOTH: None}
    rows = []
    with one_process(folder) as suite:
        ready(suite)
        at_rest = suite.resident_mib()
        for name, floor in ((PICTURES, encode_pictures), (BOTH, encode_both)):
            floor_rate = len(catalogue) / seconds(partial(floor, encoder, catalogue, threads))
            rate = len(catalogue) / seconds(partial(_ingest, suite, name, spaces[name], catalogue))
            rows.append(_rate_row(name, floor_rate, rate))
        after = suite.resident_mib()
    rows.append(Row("memory at rest, one process", "", f"{at_rest:.0f} MiB", "", ""))
    rows.append(Row(f"memory after ingesting {2 * len(catalogue):,} items", "", f"{after:.0f} MiB", "", ""))
    return rows


def _query_rows(folder: Path, catalogue: list[Product], texts: list[str]) -> list[Row]:
    raw = RawStack(folder, RawEncoder(MODELS, threads=1))
    raw.fill(catalogue)
    copy = folder / "four"
    shutil.copytree(folder / "data", copy / "data")
    with (
        one_process(folder) as one,
        four_processes(copy) as four,
        medley.Client(one.server) as near,
        medley.Client(four.server) as far,
    ):
        for suite in (one, four):
            first_answer(suite, BOTH, texts[0])
        time.sleep(TIDIED_SECONDS)
        memory = [suite.resident_mib() for suite in (one, four)]
        works = [
            raw.query,
            lambda text: near.search(BOTH, text=text, space="clip"),
            lambda text: near.search(BOTH, text=text, space="clip"),
            lambda text: far.search(BOTH, text=text, space="clip"),
            lambda text: near.search(BOTH, text=text),
            lambda text: near.search(BOTH, text=text, space="clip", where={"gender": "Women"}),
        ]
        floor, *taken = interleaved(works, texts, warm_up=len(texts) // 5)
    names = [
        "one process",
        "one process, items read before",
        "four processes",
        "one process, both spaces fused",
        "one process, filtered",
    ]
    targets = ["≤ 1.5", "≤ 1.5", "≤ 3", "", ""]
    rows = [
        Row(
            f"text query, {name}: p50 (p95)",
            f"{floor.p50:.2f} ({floor.p95:.2f}) ms",
            f"{latency.p50:.2f} ({latency.p95:.2f}) ms",
            f"{latency.p50 / floor.p50:.2f}",
            target,
        )
        for name, latency, target in zip(names, taken, targets, strict=True)
    ]
    rows.append(Row(f"memory, one process, two collections of {len(catalogue):,}", "", f"{memory[0]:.0f} MiB", "", ""))
    rows.append(
        Row(f"memory, four processes, two collections of {len(catalogue):,}", "", f"{memory[1]:.0f} MiB", "", "")
    )
    return rows


def _start_rows(folder: Path, text: str) -> list[Row]:
    return [
        Row(
            f"start to first answer, {name}", "", f"{statistics.median(_starts(start, where, text)):.2f} s", "", "< 3 s"
        )
        for name, start, where in (
            ("one process", one_process, folder),
            ("four processes", four_processes, folder / "four"),
        )
    ]


def _starts(start: object, folder: Path, text: str) -> Iterable[float]:
    for _ in range(STARTS):
        began = time.perf_counter()
        with start(folder) as suite:  # type: ignore[operator]  # one of the two context managers
            first_answer(suite, BOTH, text)
            yield time.perf_counter() - began


def _ingest(suite: Suite, collection: str, spaces: list[medley.Space] | None, catalogue: list[Product]) -> None:
    with medley.Client(suite.server, timeout=600) as client:
        client.create_collection(collection, spaces)
        items = (
            medley.NewItem(each.id, text=each.name, media=each.picture, metadata=each.metadata) for each in catalogue
        )
        refused = [result for result in client.ingest(collection, items) if not result.ok]
    if refused:
        raise RuntimeError(f"{len(refused)} items refused, the first for {refused[0].error}")


def _rate_row(name: str, floor: float, rate: float) -> Row:
    what = {PICTURES: "ingest, pictures embedded", BOTH: "ingest, pictures and names embedded"}[name]
    return Row(what, f"{floor:.0f} items/s", f"{rate:.0f} items/s", f"{rate / floor:.2f}", "≥ 0.8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of the fashion products")
    parser.add_argument("--items", type=int, default=10_000, help="products to ingest")
    parser.add_argument("--queries", type=int, default=400, help="distinct queries, a fifth of them to warm up")
    parser.add_argument("--threads", type=int, default=2, help="threads of the raw encoder")
    parser.add_argument("--write", type=Path, help="file in which to replace the table between the marks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
