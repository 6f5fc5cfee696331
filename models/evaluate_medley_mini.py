"""Measure `models/medley-mini` on pictures kept out of its training, through its ONNX files.

    python -m models.evaluate_medley_mini --fashion fashion-products-train.parquet \\
        --caltech caltech101-train-128px.parquet [--split validation]

Prints the figures of the card, and the answers to a few queries on the demo catalogue. Needs the extra `training`.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from medley.demo.catalog import generate_catalog
from models.training import corpus, measures
from models.training.corpus import Example, Split
from models.training.graphs import PictureAndTextModel
from models.training.text import TextEncoder

TITLE_PICTURES = 5000
MIN_PICTURES = 10
DEMO_QUERIES = (
    "green t-shirt",
    "red striped dress",
    "a blue mug",
    "two yellow balls",
    "three red balls",
    "black umbrella",
    "a chair with a checked cover",
    "purple dotted teapot",
    "something to keep my hands warm",
)


def report_precision(model: PictureAndTextModel, title: str, pictures: np.ndarray, answers: measures.Answers) -> None:
    """Print the mean precision@10 over the queries of `answers`, and the worst of them."""
    found = measures.precision(model.texts, pictures, answers)
    counts = [int(right.sum()) for right in answers.values()]
    print(
        f"{title}: precision@10 {found.mean:.3f} of at most {found.ceiling:.3f}, {len(counts)} queries, "
        f"{min(counts)} to {max(counts)} right pictures each (median {median(counts):g})"
    )
    worst = sorted(found.by_query.items(), key=lambda item: item[1])[:8]
    print("   lowest: " + ", ".join(f"{query} {value:.1f}" for query, value in worst))


def report_fashion(model: PictureAndTextModel, examples: Sequence[Example]) -> None:
    """Print the figures for product pictures."""
    pictures = model.pictures([example.encoded for example in examples])
    print(f"fashion: {len(examples)} pictures")
    for title, query in {"kind": measures.kind, "colour and kind": measures.colour_and_kind}.items():
        report_precision(model, title, pictures, measures.answers_by(examples, query, MIN_PICTURES))
    chosen = np.random.default_rng(0).permutation(len(examples))[:TITLE_PICTURES]
    recall = measures.title_recall(model.texts, pictures[chosen], [examples[index] for index in chosen])
    print(f"title to picture: recall@10 {recall:.3f} over {len(chosen)} pictures, equal titles count as one")


def report_caltech(model: PictureAndTextModel, examples: Sequence[Example]) -> None:
    """Print the figures for photographs of objects."""
    pictures = model.pictures([example.encoded for example in examples])
    print(f"caltech: {len(examples)} pictures")
    report_precision(model, "class name", pictures, measures.answers_by(examples, measures.kind, 1))


def report_demo(model: PictureAndTextModel) -> None:
    """Print the five best products of the demo catalogue for each of `DEMO_QUERIES`."""
    products = list(generate_catalog())
    scores = model.texts(DEMO_QUERIES) @ model.pictures([product.picture for product in products]).T
    for query, row in zip(DEMO_QUERIES, scores, strict=True):
        print(f"{query}: " + ", ".join(products[index].name for index in np.argsort(-row)[:5]))


def report_speed(model: PictureAndTextModel, encoded: bytes) -> None:
    """Print the milliseconds a picture takes on one thread, without decoding."""
    for size in (1, 32):
        batch, durations = [model.pixels(encoded)] * size, []
        for _ in range(20):
            started = time.perf_counter()
            model.tower(batch)
            durations.append((time.perf_counter() - started) * 1000 / size)
        print(f"picture tower, batches of {size}: {median(durations):.2f} ms a picture")


def main() -> None:
    """Print every figure."""
    arguments = argparse.ArgumentParser(description="Measure models/medley-mini.")
    arguments.add_argument("--model", type=Path, default=Path("models/medley-mini"))
    arguments.add_argument("--minilm", type=Path, default=Path("models/minilm"))
    arguments.add_argument("--fashion", type=Path, required=True)
    arguments.add_argument("--caltech", type=Path, required=True)
    arguments.add_argument("--split", type=Split, choices=list(Split), default=Split.HELD_OUT)
    options = arguments.parse_args()

    model = PictureAndTextModel(options.model, TextEncoder(options.minilm))
    garments = corpus.fashion(options.fashion, options.split)
    print(f"split: {options.split}")
    report_fashion(model, garments)
    report_caltech(model, corpus.caltech(options.caltech, options.split))
    report_demo(model)
    report_speed(model, garments[0].encoded)


if __name__ == "__main__":
    main()
