"""The change feed of the store service."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

import numpy as np
import pyarrow

from medley.v1 import collection_pb2
from medley.v1 import store_service_pb2 as pb
from services.common import index_config_codec
from services.common.enum_codec import METRICS, from_proto
from services.common.errors import CollectionNotFoundError, NotFoundError
from services.common.rpc.client import call, stream
from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table

LIST_PAGE_SIZE = 1000
_SERVICE = "store"
_VECTORS = "vector."


class StoreChangeFeed:
    """`ChangeFeed` over a stub of StoreService, remote or in this process."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def tables(self) -> list[Table]:
        tables: list[Table] = []
        token = ""
        while True:
            request = pb.ListTablesRequest(page_size=LIST_PAGE_SIZE, page_token=token)
            page: pb.ListTablesResponse = await call(_SERVICE, self._stub.ListTables, request)
            tables += map(_table, page.collections)
            token = page.next_page_token
            if not token:
                return tables

    async def table(self, collection: str) -> Table:
        with _store_errors(collection):
            answer: pb.GetTableResponse = await call(_SERVICE, self._stub.GetTable, pb.GetTableRequest(name=collection))
        return _table(answer.collection)

    async def changes(self, collection: str, after: Version | None) -> AsyncIterator[ChangeBatch]:
        request = pb.WatchChangesRequest(collection=collection, after=str(after) if after else "")
        with _store_errors(collection):
            async with aclosing(cast(Any, stream(_SERVICE, self._stub.WatchChanges, request))) as messages:
                async for message in messages:
                    yield await asyncio.to_thread(_part, message)


@contextmanager
def _store_errors(collection: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        if error.reason == CollectionNotFoundError.reason:
            raise CollectionNotFoundError(collection) from error
        raise


def _table(message: collection_pb2.Collection) -> Table:
    return Table(message.name, tuple(map(_space, message.spaces)), Version.parse(message.version))


def _space(message: collection_pb2.Space) -> Space:
    config = index_config_codec.from_message(message.index)
    metric = from_proto("metric", message.metric, METRICS)
    return Space(message.name, message.dimensions, metric, message.fingerprint, config)


def _part(message: pb.WatchChangesResponse) -> ChangeBatch:
    version = Version.parse(message.version) if message.version else None
    deleted_ids, spaces = list(message.deleted_ids), tuple(map(_space, message.spaces))
    if not message.rows_arrow_ipc:
        return ChangeBatch(deleted_ids=deleted_ids, reset=message.reset, version=version, spaces=spaces)
    rows = pyarrow.ipc.open_stream(message.rows_arrow_ipc).read_all()
    return ChangeBatch(
        ids=rows["id"].to_pylist(),
        metadata=rows["metadata"].to_pylist(),
        vectors={
            name.removeprefix(_VECTORS): _vectors(rows[name]) for name in rows.column_names if name.startswith(_VECTORS)
        },
        deleted_ids=deleted_ids,
        reset=message.reset,
        version=version,
        spaces=spaces,
    )


def _vectors(column: Any) -> SpaceVectors:
    present = column.is_valid().to_numpy(zero_copy_only=False) if len(column) else np.empty(0, np.bool_)
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)  # the vectors that are there, end to end
    return SpaceVectors(np.flatnonzero(present), flat.reshape(-1, column.type.list_size))
