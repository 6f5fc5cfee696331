"""What is searched: vectors, metadata and queries. It needs NumPy alone, so that every engine's process can read it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Items, numbered from 0, and queries that are none of them: unit vectors, shapes (n, d) and (q, d).

    `fields` are the columns of the metadata, by name, each with a value ("" for none) an item.
    """

    name: str
    vectors: Matrix
    fields: Mapping[str, NDArray[np.str_]]
    queries: Matrix

    def metadata(self, begin: int, end: int) -> list[dict[str, str]]:
        """Return the metadata of the items from `begin` up to `end`, or to the last."""
        columns = {name: values[begin:end].tolist() for name, values in self.fields.items()}
        rows = range(min(end, len(self.vectors)) - begin)
        return [{name: values[row] for name, values in columns.items() if values[row]} for row in rows]

    def first(self, items: int) -> Self:
        """Return the first `items` alone."""
        fields = {name: values[:items] for name, values in self.fields.items()}
        return type(self)(self.name, self.vectors[:items], fields, self.queries)

    def save(self, folder: Path) -> None:
        """Write all to `folder`, for other processes."""
        (folder / "name.json").write_text(json.dumps(self.name))
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "queries.npy", self.queries)
        np.savez(folder / "fields.npz", **dict(self.fields))  # type: ignore[arg-type]  # its stub knows one keyword

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what `save` wrote to `folder`; the vectors stay on the disk until they are read."""
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        with np.load(folder / "fields.npz") as kept:
            fields = dict(kept)
        return cls(json.loads((folder / "name.json").read_text()), vectors, fields, np.load(folder / "queries.npy"))
