"""Stubs of the services that the gateway calls."""

from dataclasses import dataclass
from typing import TypeAlias

from medley.v1 import embedder_service_pb2_grpc, search_service_pb2_grpc, store_service_pb2_grpc
from services.common.rpc.client import InProcessStub

EmbedderStub: TypeAlias = "embedder_service_pb2_grpc.EmbedderServiceAsyncStub | InProcessStub"
StoreStub: TypeAlias = "store_service_pb2_grpc.StoreServiceAsyncStub | InProcessStub"
SearchStub: TypeAlias = "search_service_pb2_grpc.SearchServiceAsyncStub | InProcessStub"


@dataclass(frozen=True, slots=True)
class Peers:
    """The services the gateway calls: stubs over a channel, or `InProcessStub`s in one process."""

    embedder: EmbedderStub
    store: StoreStub
    search: SearchStub
