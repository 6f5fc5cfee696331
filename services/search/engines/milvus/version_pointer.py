"""Which version of which collection is complete in Milvus: one row a collection, written after all others."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from pymilvus import CollectionSchema, DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from medley.v1 import index_config_pb2 as pb
from services.common import index_config_codec
from services.common.index_config import IndexConfig
from services.common.versions import Version
from services.search.core.change_feed import Space
from services.search.engines.milvus.client import MAX_RESULTS, Milvus
from services.search.engines.milvus.errors import MilvusLostError

FORMAT = 1
_MAX_STATE_BYTES = 65_535
_FIELDS = ("uid", "state")


@dataclass(frozen=True, slots=True)
class StoredSpace:
    """A space as it lies in Milvus: the name of its rows, how it is indexed, for about how many, its longest vector."""

    name: str
    dimensions: int
    metric: str
    index_hex: str
    indexed: int = 0
    longest: float = 0.0

    @classmethod
    def of(cls, name: str, space: Space, indexed: int, longest: float) -> Self:
        """Return how `space` lies under `name`."""
        message = index_config_codec.to_message(space.config)
        return cls(name, space.dimensions, space.metric.value, message.SerializeToString().hex(), indexed, longest)

    @property
    def config(self) -> IndexConfig:
        """How it is indexed."""
        return index_config_codec.from_message(pb.IndexConfig.FromString(bytes.fromhex(self.index_hex)))

    def fits(self, space: Space) -> bool:
        """Return whether these can be the vectors of `space`."""
        return (self.dimensions, self.metric) == (space.dimensions, space.metric.value)


@dataclass(frozen=True, slots=True)
class VersionPointer:
    """What is complete of a collection: `round_number` is the newest round, `build` names the building it is of.

    `writer` is the process that wrote last: no other writes. `format` is how rows are spelt.
    """

    uid: str
    collection: str
    number: int
    round_number: int
    build: str
    writer: str
    spaces: Mapping[str, StoredSpace] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def version(self) -> Version:
        """The version that the newest round is."""
        return Version(self.uid, self.number)


class VersionPointers:
    """The markers of all collections."""

    def __init__(self, milvus: Milvus) -> None:
        self._milvus = milvus
        self._name = f"{milvus.options.prefix}_versions"

    def read(self, uid: str) -> VersionPointer | None:
        """Return the marker of a collection; None where there is none that this release can read."""
        found = self._found(f'uid == "{uid}"')
        return found[0] if found else None

    def all(self) -> list[VersionPointer]:
        """Return the markers of all collections."""
        return self._found('uid != ""')

    def write(self, pointer: VersionPointer) -> None:
        """Put `pointer` in the place of the one there is."""
        self._ensure()
        row = {"uid": pointer.uid, "state": json.dumps(asdict(pointer)), "vector": np.zeros(2, np.float32)}
        self._milvus.upsert(self._name, [row])

    def remove(self, uid: str) -> None:
        """Remove the marker of a collection."""
        self._milvus.delete(self._name, f'uid == "{uid}"')

    def _found(self, expression: str) -> list[VersionPointer]:
        try:
            rows = self._milvus.query(self._name, expression, _FIELDS, MAX_RESULTS)
        except MilvusLostError:
            return []
        read = [json.loads(row["state"]) for row in rows]
        return [_parse_pointer(state) for state in read if state["format"] == FORMAT]

    def _ensure(self) -> None:
        if self._name in self._milvus.names():
            return
        try:
            self._milvus.create(self._name, _schema())
        except MilvusException:
            if self._name not in self._milvus.names():
                raise
        self._milvus.index(self._name, {"vector": {"index_type": "FLAT", "metric_type": "L2"}})


def _schema() -> CollectionSchema:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("uid", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("state", DataType.VARCHAR, max_length=_MAX_STATE_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    return schema


def _parse_pointer(state: dict[str, Any]) -> VersionPointer:
    spaces = {name: StoredSpace(**space) for name, space in state.pop("spaces").items()}
    return VersionPointer(**state, spaces=spaces)
