"""The API's enums and the gateway's."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from medley.v1 import check_pb2, collection_pb2, item_pb2, search_service_pb2, vector_pb2
from services.common.errors import ArgumentError
from services.common.vectors import Metric
from services.gateway.findings import FindingKind
from services.gateway.index import SearchMode
from services.gateway.items import ContentType, ItemField

Kind = TypeVar("Kind", bound=Enum)

METRICS = {kind: vector_pb2.Metric.Value(f"METRIC_{kind.name}") for kind in Metric}
CONTENT_TYPES = {kind: collection_pb2.ContentType.Value(f"CONTENT_TYPE_{kind.name}") for kind in ContentType}
FIELDS = {kind: item_pb2.ItemField.Value(f"ITEM_FIELD_{kind.name}") for kind in ItemField}
FINDING_KINDS = {kind: check_pb2.FindingKind.Value(f"FINDING_KIND_{kind.name}") for kind in FindingKind}
MODES = {kind: search_service_pb2.SearchMode.Value(f"SEARCH_MODE_{kind.name}") for kind in SearchMode}


def kind_of(field: str, number: int, numbers: Mapping[Kind, int]) -> Kind:
    """Return the kind whose number in the API is `number`; `field` names what holds it.

    Raises:
        ArgumentError: none has it.
    """
    for kind, known in numbers.items():
        if known == number:
            return kind
    raise ArgumentError(field, number, "is not known")
