"""Vectors of texts by minilm, cached on disk."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.floors import Matrix, RawEncoder

MODELS = Path(__file__).parents[1] / "models"
THREADS = 2


def encoded(texts: Sequence[str], cache: Path) -> Matrix:
    """Return the minilm vectors of `texts`, shape (len(texts), 384), from the folder `cache` if present."""
    manifest = (MODELS / "minilm/model.json").read_text()
    key = hashlib.sha256("\n".join([manifest, *texts]).encode()).hexdigest()
    file = cache / f"minilm-{key[:16]}.npy"
    if not file.exists():
        encoder = RawEncoder(MODELS, threads=1)
        with ThreadPoolExecutor(THREADS) as pool:
            vectors = np.stack(list(pool.map(encoder.sentence, texts)))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, vectors)
    cached: Matrix = np.load(file)
    return cached
