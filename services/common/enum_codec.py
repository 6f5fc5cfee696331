"""Conversion of the API's enums that several services use."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from medley.v1 import collection_pb2, vector_pb2
from services.common.content import ContentType
from services.common.errors import ArgumentError
from services.common.vectors import Metric

Kind = TypeVar("Kind", bound=Enum)

METRICS = {kind: vector_pb2.Metric.Value(f"METRIC_{kind.name}") for kind in Metric}
CONTENT_TYPES = {kind: collection_pb2.ContentType.Value(f"CONTENT_TYPE_{kind.name}") for kind in ContentType}


def from_proto(field: str, number: int, numbers: Mapping[Kind, int]) -> Kind:
    """Return the kind whose number in the API is `number`; `field` is named in the error.

    Raises:
        ArgumentError: the number is unknown.
    """
    for kind, known in numbers.items():
        if known == number:
            return kind
    raise ArgumentError(field, number, "is not known")
