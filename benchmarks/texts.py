"""Names and pictures as the built-in models embed them, kept on disk."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.floors import BATCH, Matrix, RawEncoder

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


def pictured(pictures: Sequence[bytes], captions: Sequence[str], cache: Path) -> tuple[Matrix, Matrix]:
    """Return medley-mini vectors of `pictures` and `captions`, shapes (n, 256), from the folder `cache` if present."""
    digest = hashlib.sha256((MODELS / "medley-mini/model.json").read_bytes() + "\n".join(captions).encode())
    for picture in pictures:
        digest.update(picture)
    file = cache / f"medley-mini-{digest.hexdigest()[:16]}.npz"
    if not file.exists():
        encoder = RawEncoder(MODELS, threads=1)
        parts = [pictures[begin : begin + BATCH] for begin in range(0, len(pictures), BATCH)]
        with ThreadPoolExecutor(THREADS) as pool:
            vectors = np.concatenate(list(pool.map(encoder.pictures, parts)))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, pictures=vectors, captions=np.stack([encoder.caption(text) for text in captions]))
    with np.load(file) as kept:
        return kept["pictures"], kept["captions"]
