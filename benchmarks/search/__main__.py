"""`python -m benchmarks.search --data fashion.parquet`: search over gRPC beside its floors, in one run.

`--growth`, `--large` and `--peers` measure more; `--write FILE` puts each table between its marks in that file.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.machine import description
from benchmarks.report import marks, table, write
from benchmarks.search import figures
from benchmarks.search.corpus import Corpus
from benchmarks.search.small import measured
from benchmarks.search.sources import generated, real

CACHE = Path(__file__).parents[2] / ".cache/benchmarks"
Part = Callable[[argparse.Namespace], str]


def main() -> None:
    """Measure, print, and write where asked."""
    options = _options()
    for name, part in _parts(options):
        text = f"{description()}.\n{part(options)}\n"
        print(text, flush=True)
        if options.write:
            write(options.write, marks(f"benchmarks.search{name}"), text)


def _parts(options: argparse.Namespace) -> Iterator[tuple[str, Part]]:
    yield "", _small


def _small(options: argparse.Namespace) -> str:
    corpus = _corpus(options)
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
        lines = measured(corpus, Path(folder), options.seconds)
    shown = table(figures.HEAD, (line.cells for line in lines))
    return f"{_named(corpus)}.\n\n{shown}"


def _corpus(options: argparse.Namespace) -> Corpus:
    if options.data:
        return real(options.data, options.items, options.queries, CACHE)
    return generated(options.items, options.dimensions, options.queries)


def _named(corpus: Corpus) -> str:
    items, dimensions = corpus.vectors.shape
    return f"{items:,} × {dimensions}, {corpus.name}; {len(corpus.queries):,} queries"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="Parquet file of the fashion products; without, vectors are generated"
    )
    parser.add_argument("--items", type=int, default=44_000)
    parser.add_argument("--dimensions", type=int, default=384, help="of generated vectors")
    parser.add_argument("--queries", type=int, default=400, help="distinct queries, a fifth of them to warm up")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each figure of callers side by side")
    parser.add_argument("--write", type=Path, help="file whose marked parts the tables replace")
    return parser.parse_args()


if __name__ == "__main__":
    main()
