"""The labelled pictures a model is trained and measured on, and how they are split.

A picture's labels are words, `""` where unknown. Splits never depend on the order of the rows:

* fashion by product *name*: a hash of the name holds out 20 %, and 10 % of the others for validation, so that two
  pictures of one product never sit on both sides;
* Caltech-101 by picture within its label, in the order of a hash: 20 % held out, 8 % for validation. `Faces` and
  `Faces_easy` show the same photographs and share their split;
* drawn products: other seeds than the demo's own.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from medley.demo.catalog import Product, generate_catalog
from models.training.pixels import square


class Split(StrEnum):
    """What a picture may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    HELD_OUT = "held out"


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled picture. Labels are spelt as in the source."""

    source: str
    encoded: bytes
    kind: str
    group: str = ""
    colour: str = ""
    gender: str = ""
    usage: str = ""
    pattern: str = ""
    count: str = ""
    place: str = ""
    title: str = ""
    text: str = ""


FASHION, CALTECH, DRAWN = "fashion", "caltech", "drawn"
PATTERNS = {"striped": ("stripe",), "checked": ("check",), "dotted": ("polka", "dotted"), "floral": ("floral",)}


def _share(key: str) -> float:
    """Return a number in [0, 1) that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


def name_split(name: str) -> Split:
    """Say what the pictures of the product `name` are used for."""
    if _share(name) < 0.2:
        return Split.HELD_OUT
    return Split.VALIDATION if _share(f"validation: {name}") < 0.1 else Split.TRAIN


def fashion(path: Path, split: Split) -> list[Example]:
    """Read the part `split` of the fashion products at `path`."""
    rows = pq.read_table(path).to_pylist()
    return [_garment(row) for row in rows if name_split(row["productDisplayName"]) is split]


def _garment(row: dict[str, str]) -> Example:
    name = row["productDisplayName"]
    found = (pattern for pattern, words in PATTERNS.items() if any(word in name.lower() for word in words))
    return Example(
        source=FASHION,
        encoded=row["image"],
        kind=row["articleType"],
        group=row["subCategory"],
        colour=row["baseColour"],
        gender=row["gender"],
        usage=row["usage"],
        pattern=next(found, ""),
        title=name,
    )


def caltech(path: Path, split: Split) -> list[Example]:
    """Read the part `split` of the Caltech-101 photographs at `path`."""
    rows = pq.read_table(path).to_pylist()
    kept = {key for key, part in _caltech_splits((row["label"], row["id"]) for row in rows) if part is split}
    return [Example(CALTECH, row["image"], row["label"]) for row in rows if row["id"] in kept]


def _caltech_splits(pictures: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Split]]:
    by_label: dict[str, list[str]] = {}
    for label, key in pictures:
        by_label.setdefault(label, []).append(key)
    for keys in by_label.values():
        ordered = sorted(keys, key=lambda key: _share(key.replace("Faces_easy", "Faces")))
        held_out, validation = round(0.2 * len(keys)), round(0.28 * len(keys))
        for index, key in enumerate(ordered):
            yield key, _caltech_part(index, held_out, validation)


def _caltech_part(index: int, held_out: int, validation: int) -> Split:
    if index < held_out:
        return Split.HELD_OUT
    return Split.VALIDATION if index < validation else Split.TRAIN


def drawn(seeds: Sequence[int], count: int) -> list[Example]:
    """Draw `count` products for each of `seeds`."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return [example for part in pool.map(partial(_draw, count), seeds) for example in part]


def _draw(count: int, seed: int) -> list[Example]:
    return [drawn_example(product) for product in generate_catalog(count, seed=seed)]


def drawn_example(product: Product) -> Example:
    """Turn a product of the demo catalogue into an example."""
    label = {key: str(product.metadata.get(key, "")) for key in ("type", "colour", "pattern", "count", "position")}
    return Example(
        source=DRAWN,
        encoded=product.picture,
        kind=label["type"],
        colour=label["colour"],
        pattern=label["pattern"],
        count=label["count"],
        place=label["position"],
        title=product.name,
        text=product.description,
    )


def canvases(examples: Sequence[Example], size: int) -> np.ndarray:
    """Decode every picture of `examples`: uint8, shape (pictures, size, size, 3)."""
    pixels = np.empty((len(examples), size, size, 3), np.uint8)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        decoded = pool.map(partial(square, size=size), (example.encoded for example in examples), chunksize=256)
        for index, picture in enumerate(decoded):
            pixels[index] = picture
    return pixels
