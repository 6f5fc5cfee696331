"""The gateway's enums and their numbers in the API."""

from medley.v1 import check_pb2, item_pb2, search_service_pb2
from services.gateway.core.findings import FindingKind
from services.gateway.core.index import SearchMode
from services.gateway.core.items import ItemField

FIELDS = {kind: item_pb2.ItemField.Value(f"ITEM_FIELD_{kind.name}") for kind in ItemField}
FINDING_KINDS = {kind: check_pb2.FindingKind.Value(f"FINDING_KIND_{kind.name}") for kind in FindingKind}
MODES = {kind: search_service_pb2.SearchMode.Value(f"SEARCH_MODE_{kind.name}") for kind in SearchMode}
