"""The service as its callers see it: over gRPC, from a process of its own."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix
from benchmarks.search.truth import TOP_K
from medley.v1 import (
    collection_pb2,
    filter_pb2,
    index_config_pb2,
    item_pb2,
    search_service_pb2,
    search_service_pb2_grpc,
    store_service_pb2,
    store_service_pb2_grpc,
    vector_pb2,
)

NAME, SPACE = "bench", "name"
COLLECTION = f"collections/{NAME}"
ROWS_A_WRITE = 2000
VECTORS_A_MESSAGE = 1000
WRITERS = 2
TIMEOUT_SECONDS = 300.0
BUILD_SECONDS = 1800.0
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_LIMITS = [(f"grpc.max_{way}_message_length", 256 * 2**20) for way in ("send", "receive")]


class Search:
    """A search service and what is asked of it; items are known by their numbers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = search_service_pb2_grpc.SearchServiceStub(channel)

    def search(self, query: Matrix, condition: Condition | None = None) -> list[int]:
        """Return the ten best items."""
        return rows(self._stub.SearchIndex(request(query, condition)))

    def mode(self, query: Matrix) -> str:
        """Return how the ten best items are found."""
        return search_service_pb2.SearchMode.Name(self._stub.SearchIndex(request(query)).mode)

    def batch(self, queries: Matrix) -> list[list[int]]:
        """Return the ten best items for each of `queries`, asked in one call."""
        answers = self._stub.SearchIndexBatch(_batch(queries))
        return [[int(each) for each in ranking.ids] for answer in answers for ranking in answer.rankings]

    def reached(self, query: Matrix, version: str) -> None:
        """Return once a search holds for `version`."""
        asked = request(query)
        asked.version = version
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                self._stub.SearchIndex(asked)
            except grpc.RpcError as error:
                if error.code() not in _NOT_YET or time.monotonic() > give_up:
                    raise
                time.sleep(0.05)
            else:
                return

    def state(self) -> search_service_pb2.Index:
        """Return the state of the index."""
        (index,) = self._stub.ListIndexes(search_service_pb2.ListIndexesRequest()).indexes
        return index  # type: ignore[no-any-return]

    def ready(self, kind: str) -> search_service_pb2.Index:
        """Return the state of the index once it is configured as `kind`, and ready."""
        give_up = time.monotonic() + BUILD_SECONDS
        while True:
            index = self.state()
            if index.config.WhichOneof("kind") == kind and index.state == search_service_pb2.INDEX_STATE_READY:
                return index
            if time.monotonic() > give_up or index.state == search_service_pb2.INDEX_STATE_FAILED:
                raise RuntimeError(f"the index is not ready: {index}")
            time.sleep(0.1)


class Store:
    """A store and the collection that is written to it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = store_service_pb2_grpc.StoreServiceStub(channel)

    def create(self, dimensions: int) -> None:
        """Make the collection, indexed as it is by default."""
        space = collection_pb2.Space(name=SPACE, dimensions=dimensions, metric=vector_pb2.METRIC_COSINE)
        collection = collection_pb2.Collection(name=COLLECTION, spaces=[space])
        self._stub.CreateTable(store_service_pb2.CreateTableRequest(collection=collection))

    def fill(self, corpus: Corpus, begin: int = 0) -> str:
        """Write all items from `begin` on; return the version that holds them."""
        begins = range(begin, len(corpus.vectors), ROWS_A_WRITE)
        with ThreadPoolExecutor(WRITERS) as pool:
            written = list(pool.map(lambda begin: self.write(changes(corpus, begin, begin + ROWS_A_WRITE)), begins))
        return max(written, key=lambda version: int(version.rpartition(".")[2]))

    def write(self, request: store_service_pb2.UpsertRowsRequest) -> str:
        """Write rows; return the version that holds them."""
        results = self._stub.UpsertRows(request).results
        refused = [result.error for result in results if result.WhichOneof("outcome") == "error"]
        if refused:
            raise RuntimeError(f"{len(refused)} rows refused, the first for {refused[0]}")
        return str(results[-1].written.version)

    def metadata(self, items: Sequence[int]) -> list[str]:
        """Return the metadata of `items`, as JSON."""
        fields = [item_pb2.ITEM_FIELD_METADATA]
        ids = list(map(str, items))
        asked = store_service_pb2.GetRowsRequest(collection=COLLECTION, ids=ids, fields=fields)
        return [lookup.item.metadata_json for lookup in self._stub.GetRows(asked).lookups]

    def index(self, config: index_config_pb2.IndexConfig) -> None:
        """Choose how the space is indexed."""
        self._stub.UpdateTableSpace(
            store_service_pb2.UpdateTableSpaceRequest(collection=COLLECTION, space=SPACE, index=config)
        )


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """Give a channel to `address`, which answers."""
    with grpc.insecure_channel(address, options=_LIMITS) as opened:
        grpc.channel_ready_future(opened).result(60)
        yield opened


def request(query: Matrix, condition: Condition | None = None) -> search_service_pb2.SearchIndexRequest:
    """Return the request for the ten best items."""
    return search_service_pb2.SearchIndexRequest(
        collection=COLLECTION,
        space=SPACE,
        vector=vector_pb2.Vector(float32_le=query.tobytes()),
        top_k=TOP_K,
        filter=_filter(condition) if condition else None,
    )


def rows(answer: search_service_pb2.SearchIndexResponse) -> list[int]:
    """Return the numbers of the items found."""
    return [int(hit.id) for hit in answer.hits]


def changes(corpus: Corpus, begin: int, end: int) -> store_service_pb2.UpsertRowsRequest:
    """Return the request that writes the items from `begin` up to `end`."""
    metadata = corpus.metadata(begin, min(end, len(corpus.vectors)))
    written = [
        store_service_pb2.Row(
            id=str(row),
            metadata_json=json.dumps(fields),
            vectors={SPACE: vector_pb2.Vector(float32_le=corpus.vectors[row].tobytes())},
        )
        for row, fields in enumerate(metadata, start=begin)
    ]
    return store_service_pb2.UpsertRowsRequest(collection=COLLECTION, rows=written)


def _batch(queries: Matrix) -> Iterator[search_service_pb2.SearchIndexBatchRequest]:
    options = search_service_pb2.SearchIndexBatchOptions(collection=COLLECTION, space=SPACE, top_k=TOP_K)
    yield search_service_pb2.SearchIndexBatchRequest(options=options)
    for part in np.split(queries, range(VECTORS_A_MESSAGE, len(queries), VECTORS_A_MESSAGE)):
        vectors = search_service_pb2.VectorBatch(float32_le=part.tobytes())
        yield search_service_pb2.SearchIndexBatchRequest(vectors=vectors)


def _filter(condition: Condition) -> filter_pb2.Filter:
    return filter_pb2.Filter(
        comparison=filter_pb2.Comparison(
            path=[condition.field],
            operator=filter_pb2.OPERATOR_EQUAL,
            operands=[filter_pb2.Scalar(string=condition.value)],
        )
    )
