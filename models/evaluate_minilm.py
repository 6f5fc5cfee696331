"""Measure `models/minilm` against its float32 graph, and how much a text's vector depends on its batch.

    python -m models.evaluate_minilm --float32 FLOAT32.onnx --fashion fashion-products-train.parquet \\
        --documents MED.ALL

`python -m models.make_minilm … --float32 FLOAT32.onnx` keeps the float32 graph. Needs the extra `training`.
"""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from models.training.text import TextEncoder

NAMES, SENTENCES, BATCH = 300, 100, 32


def product_names(path: Path) -> list[str]:
    """Return `NAMES` product names of the file at `path`, spread evenly over the sorted names."""
    names = sorted(set(pq.read_table(path, columns=["productDisplayName"])["productDisplayName"].to_pylist()))
    return names[:: len(names) // NAMES][:NAMES]


def sentences(path: Path) -> list[str]:
    """Return the first `SENTENCES` sentences of a SMART collection (Medlars, CISI) at `path`."""
    text = re.sub(r"^\.(I \d+|W|T|A|B|X)\s*$", "", path.read_text(encoding="latin-1"), flags=re.MULTILINE)
    found = (" ".join(sentence.split()) for sentence in re.split(r"(?<=\.)\s+", text))
    return [sentence for sentence in found if len(sentence) > len("too short")][:SENTENCES]


def compare(left: np.ndarray, right: np.ndarray) -> str:
    """Say the lowest and mean cosine between the rows of two arrays of unit vectors."""
    cosines = (left * right).sum(1)
    return f"min {cosines.min():.4f}, mean {cosines.mean():.4f}"


def embed_batched(encoder: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Embed `texts` in padded batches of `BATCH`."""
    parts = [encoder.run_padded(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return np.concatenate(parts)


def main() -> None:
    """Print the figures of the card."""
    arguments = argparse.ArgumentParser(description="Measure models/minilm.")
    arguments.add_argument("--model", type=Path, default=Path("models/minilm"))
    arguments.add_argument("--float32", type=Path, required=True)
    arguments.add_argument("--fashion", type=Path, required=True)
    arguments.add_argument("--documents", type=Path, required=True)
    options = arguments.parse_args()

    small = TextEncoder(options.model)
    exact = TextEncoder(options.model, graph=options.float32)
    for title, texts in {"names": product_names(options.fashion), "sentences": sentences(options.documents)}.items():
        started = time.perf_counter()
        alone = small.run(texts)
        milliseconds = (time.perf_counter() - started) * 1000 / len(texts)
        together = embed_batched(small, texts)
        print(f"{title} ({len(texts)}), int8 one at a time: {milliseconds:.2f} ms each")
        print(f"  int8 alone ~ float32 alone:          {compare(alone, exact.run(texts))}")
        print(f"  float32 in batches ~ float32 alone:  {compare(embed_batched(exact, texts), exact.run(texts))}")
        print(f"  int8 in batches ~ int8 alone:        {compare(together, alone)}")
        print(f"  int8 in batches ~ float32 alone:     {compare(together, exact.run(texts))}")


if __name__ == "__main__":
    main()
