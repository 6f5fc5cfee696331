"""Where the items come from: real products, or a fixed seed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.fashion import METADATA, products
from benchmarks.search.conditions import CONDITIONS
from benchmarks.search.corpus import Corpus, Matrix
from benchmarks.texts import encoded, pictured

SEED = 7
CLUSTERS = 256
SPREAD = 0.7  # length of the noise around a cluster's centre, whose length is 1
PERTURBATION = 0.1  # length of the noise that makes a further vector of a real one
_PART = 100_000


def real(path: Path, items: int, queries: int, cache: Path) -> Corpus:
    """Return the product names of `path` as minilm embeds them, with the products' own metadata.

    Names are split before anything else: a product whose name is a query is no item. Where there are too few products,
    some come again with a little noise. Embedding takes a minute, so its outcome is kept in `cache`.
    """
    table = pq.read_table(path, columns=["productDisplayName", *METADATA])
    names = table["productDisplayName"].to_pylist()
    distinct = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    vectors = dict(zip(distinct, encoded(distinct, cache), strict=True))
    asked = distinct[:queries]
    kept = [row for row, name in enumerate(names) if name not in set(asked)]
    dice = np.random.default_rng(SEED)
    rows = np.concatenate([kept, dice.choice(kept, max(0, items - len(kept)))])[:items]
    found = np.stack([vectors[names[row]] for row in rows])
    found[len(kept) :] += _noise(dice, found[len(kept) :].shape, PERTURBATION)
    fields = {name: np.array([each or "" for each in table[name].to_pylist()])[rows] for name in METADATA}
    again = f", {items - len(kept):,} of them made of others by a little noise" if items > len(kept) else ""
    name = f"product names embedded by minilm{again}"
    return Corpus(name, _unit(found), fields, np.stack([vectors[each] for each in asked]))


def captioned(path: Path, queries: int, cache: Path) -> Corpus:
    """Return the pictures of `path` as medley-mini embeds them, and captions as queries: names of some of the products.

    Captions lie elsewhere than pictures do. Embedding takes minutes, so its outcome is kept in `cache`.
    """
    found = list(products(path, pq.read_metadata(path).num_rows))
    names = sorted({each.name for each in found}, key=lambda name: hashlib.sha256(name.encode()).digest())[:queries]
    fields = {name: np.array([each.metadata.get(name, "") for each in found]) for name in METADATA}
    vectors, asked = pictured([each.picture for each in found], names, cache)
    return Corpus("pictures embedded by medley-mini, searched by captions", vectors, fields, asked)


def generated(items: int, dimensions: int, queries: int, seed: int = SEED) -> Corpus:
    """Return vectors around some centres, with metadata that the conditions let pass as often as real products'."""
    dice = np.random.default_rng(seed)
    centres = _unit(dice.standard_normal((CLUSTERS, dimensions), np.float32))
    drawn = [_around(dice, centres, count) for count in (items, queries)]
    fields: dict[str, NDArray[np.str_]] = {}
    for condition in CONDITIONS:
        passing = dice.random(items) < condition.share
        fields[condition.field] = np.where(passing, condition.value, fields.get(condition.field, ""))
    return Corpus(f"generated vectors around {CLUSTERS} centres", drawn[0], fields, drawn[1])


def _around(dice: np.random.Generator, centres: Matrix, count: int) -> Matrix:
    vectors = centres[dice.integers(0, len(centres), count)]
    for begin in range(0, count, _PART):
        part = vectors[begin : begin + _PART]
        part += _noise(dice, part.shape, SPREAD)
    return _unit(vectors)


def _noise(dice: np.random.Generator, shape: Sequence[int], length: float) -> Matrix:
    noise: Matrix = dice.standard_normal(tuple(shape), np.float32)
    noise *= length / np.sqrt(shape[1])
    return noise


def _unit(vectors: Matrix) -> Matrix:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
