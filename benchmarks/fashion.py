"""Real products to measure with: pictures, names and metadata from a Parquet file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

METADATA = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "usage")


@dataclass(frozen=True, slots=True)
class Product:
    """One product."""

    id: str
    name: str
    metadata: dict[str, str]
    picture: bytes


def products(path: Path, count: int, *, skip: int = 0) -> Iterator[Product]:
    """Yield `count` products of the file at `path`, after the first `skip`, in its order."""
    rows = pq.read_table(path).slice(skip, count)
    for row in rows.to_pylist():
        metadata = {key: row[key] for key in METADATA if row[key]}
        yield Product(row["id"], row["productDisplayName"], metadata, row["image"])


def queries(path: Path, count: int, *, skip: int) -> list[str]:
    """Return `count` distinct product names from after the first `skip` rows: texts no ingested item need have."""
    names = pq.read_table(path, columns=["productDisplayName"]).slice(skip)["productDisplayName"].to_pylist()
    return list(dict.fromkeys(names))[:count]


def chunks(products: Iterable[Product], size: int) -> Iterator[list[Product]]:
    """Yield `products` in lists of `size`, the last one shorter."""
    rest = iter(products)
    while chunk := list(islice(rest, size)):
        yield chunk
