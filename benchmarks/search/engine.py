"""`python -m benchmarks.search.engine --data fashion.parquet`: the exact engine in process, beside raw FAISS.

Each side is a process of its own with one thread. Sides take turns, a few works at a time, and what counts is the time
of the processor. `--beside PATH` adds the engine of another checkout, whose answers must be the same. *Once* is a
filter that is asked for the first time; *unlike* is a query that has nothing in common with the vectors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import description
from benchmarks.report import marks, table, write
from benchmarks.search import engine_side
from benchmarks.search.conditions import CONDITIONS
from benchmarks.search.corpus import Corpus
from benchmarks.search.sources import captioned, generated, real

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/benchmarks"
ENGINE = "services.search.engines.faiss.vector_index:FaissIndex"
FILTERED = [f"search {number} 1" for number in range(len(CONDITIONS))]
CASES = ["search all 1", *FILTERED, "once 0 1", "once 1 1", "search all 8", "search all 64", "search all 1000"]
CHANGING = ["write all 1", "unlike all 1"]  # they change the index, so they come last
WORKS, QUERIES = 25, 400

Ask = Callable[..., Mapping[str, Any]]


def main() -> None:
    """Measure, print, and write where asked."""
    options = _options()
    sides = {"Medley": (ROOT, ENGINE), "raw FAISS": (ROOT, engine_side.RAW)}
    if options.beside:
        sides["beside"] = (options.beside, options.beside_engine)
    text = f"{description()}; one thread, p50 of the processor's time in ms.\n"
    for name in options.corpora:
        corpus = CORPORA[name](options)
        with tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
            save(corpus, Path(folder))
            rows = [_cells(*line) for line in compared(Path(folder), sides, options.turns)]
        items, dimensions = corpus.vectors.shape
        text += f"\n{items:,} × {dimensions}, {corpus.name}:\n\n{table(['', *sides, 'Medley over the others'], rows)}\n"
        print(text, flush=True)
    if options.write:
        write(options.write, marks("benchmarks.search.engine"), text)


def save(corpus: Corpus, folder: Path) -> None:
    """Write what the sides read."""
    np.save(folder / "vectors.npy", corpus.vectors)
    np.save(folder / "queries.npy", corpus.queries)
    masks = {str(number): corpus.fields[each.field] == each.value for number, each in enumerate(CONDITIONS)}
    np.savez(folder / "masks.npz", **masks)


def compared(folder: Path, sides: Mapping[str, tuple[Path, str]], turns: int) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield each case and the median milliseconds of each side.

    Raises:
        AssertionError: two exact engines answer otherwise.
    """
    exact = [number for number, (_, engine) in enumerate(sides.values()) if engine != engine_side.RAW]
    with ExitStack() as stack:
        asks = [stack.enter_context(_side(folder, *side)) for side in sides.values()]
        for case in [*CASES, *CHANGING]:
            works = max(1, WORKS // int(case.split()[2]))
            taken: list[list[float]] = [[] for _ in asks]
            for turn in range(turns + 1):
                order = range(len(asks)) if turn % 2 else reversed(range(len(asks)))
                answers = {number: asks[number](case, turn * works, (turn + 1) * works) for number in order}
                assert len({answers[number]["answers"] for number in exact}) == 1, f"{case}: engines answer otherwise"
                for number, times in enumerate(taken if turn else ()):  # the first turn is to warm up
                    times.extend(answers[number]["seconds"])
            yield case, [1e3 * median(times) for times in taken]


@contextmanager
def _side(folder: Path, root: Path, engine: str) -> Iterator[Ask]:
    """Run a side while the block runs; it answers what it is asked."""
    settings = {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, engine_side.__file__, str(folder), engine]
    with subprocess.Popen(
        command, cwd=root, env=os.environ | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout

        def ask(*question: object) -> Mapping[str, Any]:
            print(json.dumps(question), file=told, flush=True)
            answer: Mapping[str, Any] = json.loads(heard.readline())
            return answer

        yield ask
        told.close()


def _cells(case: str, times: Sequence[float]) -> Sequence[str]:
    kind, selection, size = case.split()
    share = f"{CONDITIONS[int(selection)].label}" if selection.isdigit() else selection
    label = "one row written" if kind == "write" else f"{share}{'' if kind == 'search' else f', {kind}'}"
    ratios = " ".join(f"{times[0] / each:.2f}" for each in times[1:])
    return label if size == "1" else f"{label}, batch of {size}", *(f"{each:.3g}" for each in times), ratios


CORPORA = {
    "names": lambda options: real(options.data, options.items, QUERIES, CACHE),
    "pictures": lambda options: captioned(options.data, QUERIES, CACHE),
    "clustered": lambda options: generated(options.largest, 512, QUERIES),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.engine", description=__doc__)
    parser.add_argument("corpora", nargs="*", default=list(CORPORA), help=f"any of {', '.join(CORPORA)}; else all")
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of the fashion products")
    parser.add_argument("--items", type=int, default=44_000, help="vectors of names")
    parser.add_argument("--largest", type=int, default=1_000_000, help="vectors of clustered")
    parser.add_argument("--turns", type=int, default=8, help="turns of each side at each case")
    parser.add_argument("--beside", type=Path, help="another checkout, whose engine is measured too")
    parser.add_argument("--beside-engine", default=ENGINE, help="where the class of that engine is, module:name")
    parser.add_argument("--write", type=Path, help="file whose marked part the tables replace")
    return parser.parse_args()


if __name__ == "__main__":
    main()
