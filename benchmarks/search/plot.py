"""A picture of how searches grow."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot

from benchmarks.search.growth import HEAD, Step

STYLES = {
    "raw": ("#888888", "--"),
    "exact-float32": ("#1b6ca8", "-"),
    "exact-int8": ("#2a9d5c", "-"),
    "hnsw": ("#c8553d", "-"),
}


def draw(steps: Sequence[Step], file: Path) -> None:
    """Draw the median latency of each engine over the number of vectors, both logarithmic, into an SVG file."""
    pyplot.rcParams["svg.hashsalt"] = "medley"  # the same figures give the same file
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    sizes = [step.vectors for step in steps]
    for (engine, (colour, line)), label in zip(STYLES.items(), HEAD[1:-1], strict=True):
        medians = [(step.raw if engine == "raw" else step.engines[engine]).p50 for step in steps]
        axes.loglog(sizes, medians, line, color=colour, marker="o", markersize=4, label=label)
    axes.set_xlabel("vectors")
    axes.set_ylabel("median latency of one caller, ms")
    axes.grid(which="major", color="#dddddd")
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
