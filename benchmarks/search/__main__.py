"""`python -m benchmarks.search --data fashion.parquet`: search over gRPC beside its floors, in one run.

Name parts to measure others: `small peers growth large` are all. `--write FILE` puts each table between its marks.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.machine import description
from benchmarks.report import marks, table, write
from benchmarks.search import figures, growth, large, others
from benchmarks.search.corpus import Corpus
from benchmarks.search.small import measured
from benchmarks.search.sources import generated, real

CACHE = Path(__file__).parents[2] / ".cache/benchmarks"
PICTURE = "search-growth.svg"
LARGE_DIMENSIONS, LARGE_QUERIES = 512, 60
Part = Callable[[argparse.Namespace], str]


def main() -> None:
    """Measure, print, and write where asked."""
    options = _options()
    for name in options.parts:
        text = f"{description()}.\n{PARTS[name](options)}\n"
        print(text, flush=True)
        if options.write:
            write(options.write, marks(f"benchmarks.search {name}"), text)


def _small(options: argparse.Namespace) -> str:
    corpus = _corpus(options)
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
        lines = measured(corpus, Path(folder), options.seconds)
    shown = table(figures.HEAD, (line.cells for line in lines))
    return f"{_named(corpus)}.\n\n{shown}"


def _peers(options: argparse.Namespace) -> str:
    corpus = _corpus(options)
    about = f"{_named(corpus)}, of them {others.QUERIES} asked"
    return f"{about}.\n\n{table(others.HEAD, others.compared(corpus))}"


def _growth(options: argparse.Namespace) -> str:
    from benchmarks.search.plot import draw  # noqa: PLC0415  # matplotlib is there for this alone

    steps = growth.grown([size for size in growth.SIZES if size <= options.largest])
    picture = (options.write.parent if options.write else CACHE) / PICTURE
    draw(steps, picture)
    shown = table(growth.HEAD, (step.cells for step in steps))
    about = (
        f"Vectors of {growth.DIMENSIONS} numbers around some centres; {growth.QUERIES} queries; p50 (p95) of one caller"
    )
    return f"{about}.\n\n![Latency over the number of vectors]({PICTURE})\n\n{shown}"


def _large(options: argparse.Namespace) -> str:
    corpus = generated(options.largest, LARGE_DIMENSIONS, LARGE_QUERIES)
    shown = table(figures.HEAD, (line.cells for line in large.measured(corpus)))
    return f"{_named(corpus)}.\n\n{shown}"


def _corpus(options: argparse.Namespace) -> Corpus:
    if options.data:
        return real(options.data, options.items, options.queries, CACHE)
    return generated(options.items, options.dimensions, options.queries)


def _named(corpus: Corpus) -> str:
    items, dimensions = corpus.vectors.shape
    return f"{items:,} × {dimensions}, {corpus.name}; {len(corpus.queries):,} queries"


PARTS: Mapping[str, Part] = {"small": _small, "peers": _peers, "growth": _growth, "large": _large}


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", type=_part, default=["small"], help=f"any of {', '.join(PARTS)}; else small"
    )
    parser.add_argument(
        "--data", type=Path, help="Parquet file of the fashion products; without, vectors are generated"
    )
    parser.add_argument("--items", type=int, default=44_000)
    parser.add_argument("--dimensions", type=int, default=384, help="of generated vectors")
    parser.add_argument("--queries", type=int, default=400, help="distinct queries, a fifth of them to warm up")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each figure of callers side by side")
    parser.add_argument("--largest", type=int, default=1_000_000, help="vectors at most of growth and large")
    parser.add_argument("--write", type=Path, help="file whose marked parts the tables replace")
    return parser.parse_args()


if __name__ == "__main__":
    main()
