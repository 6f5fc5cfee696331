"""A collection's schema as JSON."""

import json
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from medley.v1 import index_config_pb2
from services.common import index_config_codec
from services.common.content import ContentType
from services.common.index_config import IndexConfig
from services.common.vectors import Metric
from services.store.core.rows import CollectionSchema, Space

FORMAT = 1


def to_json(schema: CollectionSchema) -> str:
    """Return `schema` as JSON."""
    spaces = [{**asdict(space), "index": _index_fields(space.index)} for space in schema.spaces]
    return json.dumps({"format": FORMAT, **asdict(schema), "spaces": spaces}, default=_plain, indent=2)


def from_json(text: str) -> CollectionSchema:
    """Return the schema that `to_json` wrote.

    Raises:
        ValueError: it is in another format: a later version of the store wrote it, or somebody by hand.
    """
    fields = json.loads(text)
    if fields.pop("format") != FORMAT:
        raise ValueError(f"unknown format of a collection's schema: {text[:200]}")
    spaces = tuple(_space(space) for space in fields.pop("spaces"))
    return CollectionSchema(spaces=spaces, created=datetime.fromisoformat(fields.pop("created")), **fields)


def index_to_json(index: IndexConfig) -> str:
    """Return an index configuration as JSON."""
    return json.dumps(_index_fields(index))


def index_from_json(text: str) -> IndexConfig:
    """Return what `index_to_json` wrote."""
    return _index(json.loads(text))


def _space(fields: dict[str, Any]) -> Space:
    metric, sources = Metric(fields.pop("metric")), fields.pop("sources")
    index = _index(fields.pop("index", {}))  # the oldest schemas have none
    return Space(metric=metric, sources=tuple(map(ContentType, sources)), index=index, **fields)


def _index_fields(index: IndexConfig) -> dict[str, Any]:
    fields: dict[str, Any] = MessageToDict(index_config_codec.to_message(index), preserving_proto_field_name=True)
    return fields


def _index(fields: dict[str, Any]) -> IndexConfig:
    return index_config_codec.from_message(ParseDict(fields, index_config_pb2.IndexConfig()))


def _plain(value: datetime | Enum) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value.value)
