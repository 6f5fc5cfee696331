"""Requests and responses of each client method, written once for both clients.

An operation is a generator: it yields calls, is sent their responses (or thrown their errors), and returns the method's
result. The clients make the calls: see `Client._run` and `aio.Client._run`.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from medley._transport import decode, encode
from medley._transport.session_versions import SessionVersions
from medley.errors import Error, InvalidError, PreconditionError
from medley.indexes import IndexConfig
from medley.v1 import check_pb2, store_service_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.values import (
    Collection,
    Field,
    IngestResult,
    Item,
    Lookup,
    Page,
    Receipt,
    SearchResult,
    Space,
    Status,
    Tag,
    VectorLike,
    Where,
)

LOOKUPS_PER_CALL = 256
DELETIONS_PER_CALL = 10_000

Result = TypeVar("Result")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the API's method and its request."""

    method: str
    request: Any


Operation = Generator[Call, Any, Result]
PageOperation = Callable[[str], Operation[Page[Value]]]
"""The operation that gets the page of a token."""


def create_collection(name: str, spaces: Iterable[Space] | None) -> Operation[Collection]:
    """Create a collection."""
    request = pb.CreateCollectionRequest(collection=encode.collection(name, spaces or ()))
    response = yield Call("CreateCollection", request)
    return decode.collection(response.collection)


def collection(name: str) -> Operation[Collection]:
    """Get one collection."""
    response = yield Call("GetCollection", pb.GetCollectionRequest(name=encode.collection_name(name)))
    return decode.collection(response.collection)


def collections(page_size: int) -> PageOperation[Collection]:
    """List the collections."""

    def page(token: str) -> Operation[Page[Collection]]:
        response = yield Call("ListCollections", pb.ListCollectionsRequest(page_size=page_size, page_token=token))
        return Page(tuple(map(decode.collection, response.collections)), response.next_page_token)

    return page


def update_space(versions: SessionVersions, collection: str, space: str, index: IndexConfig) -> Operation[Collection]:
    """Change how a space is indexed."""
    name = encode.collection_name(collection)
    request = pb.UpdateSpaceRequest(collection=name, space=space, index=encode.index(index))
    response = yield Call("UpdateSpace", request)
    versions.record(collection, response.collection.version)
    return decode.collection(response.collection)


def drop_collection(versions: SessionVersions, name: str) -> Operation[None]:
    """Drop a collection."""
    yield Call("DropCollection", pb.DropCollectionRequest(name=encode.collection_name(name)))
    versions.forget(name)


def get(collection: str, item_id: str, fields: Sequence[Field], as_of: str = "") -> Operation[Item]:
    """Get one item."""
    (found,) = yield from get_many(collection, [item_id], fields, as_of)
    if found.item is None:
        raise found.error or Error(f"no answer about {item_id!r}")
    return found.item


def get_many(
    collection: str, ids: Iterable[str], fields: Sequence[Field], as_of: str = ""
) -> Operation[tuple[Lookup, ...]]:
    """Get items by id, some at a time."""
    lookups: list[Lookup] = []
    remaining = iter(encode.ids(ids))
    while batch := list(islice(remaining, LOOKUPS_PER_CALL)):
        request = pb.GetItemsRequest(
            collection=encode.collection_name(collection), ids=batch, fields=encode.fields(fields), as_of=as_of
        )
        response = yield Call("GetItems", request)
        lookups += [decode.lookup(*pair) for pair in zip(batch, response.lookups, strict=True)]
    return tuple(lookups)


def list_items(
    collection: str, where: Where | None, page_size: int, fields: Sequence[Field], as_of: str = ""
) -> PageOperation[Item]:
    """List items."""

    def page(token: str) -> Operation[Page[Item]]:
        request = pb.ListItemsRequest(
            collection=encode.collection_name(collection),
            where=encode.where(where),
            page_size=page_size,
            page_token=token,
            fields=encode.fields(fields),
            as_of=as_of,
        )
        response = yield Call("ListItems", request)
        return Page(tuple(map(decode.item, response.items)), response.next_page_token)

    return page


def count(collection: str, where: Where | None, as_of: str = "") -> Operation[int]:
    """Count items."""
    name = encode.collection_name(collection)
    request = pb.CountItemsRequest(collection=name, where=encode.where(where), as_of=as_of)
    response = yield Call("CountItems", request)
    counted: int = response.count
    return counted


def update(  # one parameter for each change
    versions: SessionVersions,
    collection: str,
    item_id: str,
    *,
    text: str | None,
    media: pb.MediaSource | None,
    remove_media: bool,
    metadata: Mapping[str, object] | None,
    merge: Mapping[str, object] | None,
    vectors: Mapping[str, VectorLike],
    expected_revision: int | None,
) -> Operation[Item]:
    """Change an item."""
    request = pb.UpdateItemRequest(
        collection=encode.collection_name(collection),
        id=item_id,
        text=text,
        media=media,
        remove_media=remove_media,
        metadata=encode.metadata_update(metadata, merge),
        vectors=encode.vectors(vectors),
        expected_revision=expected_revision,
    )
    response = yield Call("UpdateItem", request)
    versions.record(collection, response.version)
    return decode.item(response.item)


def delete(
    versions: SessionVersions, collection: str, ids: Iterable[str] | None, where: Where | None
) -> Operation[int]:
    """Delete items by id or by filter."""
    deleted = 0
    for selection in _selections(ids, where):
        request = pb.DeleteItemsRequest(collection=encode.collection_name(collection), **selection)
        response = yield Call("DeleteItems", request)
        versions.record(collection, response.version)
        deleted += response.deleted
    return deleted


def search(
    versions: SessionVersions,
    collection: str,
    arms: Sequence[pb.Arm],
    *,
    where: Where | None,
    top_k: int,
    k: float | None,
    depth: int,
    fields: Sequence[Field],
    version: str | None,
    exact: bool,
) -> Operation[SearchResult]:
    """Search; if the session's token is of a dropped collection, forget it and search again without it."""
    request = pb.SearchRequest(
        collection=encode.collection_name(collection),
        arms=arms,
        where=encode.where(where),
        top_k=top_k,
        depth=depth,
        fields=encode.fields(fields),
        version=versions.get(collection) if version is None else version,
        exact=exact,
    )
    if k is not None:
        request.fusion.rrf.k = k
    try:
        response = yield Call("Search", request)
    except PreconditionError as error:
        if error.reason != "VERSION_UNKNOWN" or version is not None:
            raise
        versions.forget(collection, request.version)
        request.version = ""
        response = yield Call("Search", request)
    versions.record(collection, response.version)
    return decode.search_result(response)


def status() -> Operation[Status]:
    """Get the status of the services."""
    response = yield Call("GetStatus", pb.GetStatusRequest())
    return decode.status(response)


def erase(
    versions: SessionVersions, collection: str, ids: Iterable[str], media: Iterable[str]
) -> Operation[tuple[Receipt, ...]]:
    """Delete items for good."""
    name = encode.collection_name(collection)
    request = pb.EraseItemsRequest(collection=name, ids=encode.ids(ids), sha256s=media)
    response = yield Call("EraseItems", request)
    for each in response.receipts:
        versions.record(collection, each.purged_version)
    return tuple(map(decode.receipt, response.receipts))


def restore(
    versions: SessionVersions, collection: str, items: Iterable[Item], fingerprints: Mapping[str, str]
) -> Operation[tuple[IngestResult, ...]]:
    """Write items as they were."""
    rows = [encode.row(item) for item in items]
    spaces = {space for row in rows for space in row.vectors} & fingerprints.keys()
    request = pb.RestoreItemsRequest(
        collection=encode.collection_name(collection),
        rows=rows,
        fingerprints={space: fingerprints[space] for space in spaces},
    )
    response = yield Call("RestoreItems", request)
    pairs = enumerate(zip(rows, response.results, strict=True))
    results = tuple(decode.item_result(row.id, number, result) for number, (row, result) in pairs)
    for result in results:
        versions.record(collection, result.version)
    return results


def tag(collection: str, name: str, version: str) -> Operation[Tag]:
    """Name a version."""
    request = pb.TagCollectionRequest(collection=encode.collection_name(collection), tag=name, version=version)
    response = yield Call("TagCollection", request)
    return decode.tag(response.tag)


def tags(collection: str) -> Operation[tuple[Tag, ...]]:
    """List the tags."""
    response = yield Call("ListTags", pb.ListTagsRequest(collection=encode.collection_name(collection)))
    return tuple(map(decode.tag, response.tags))


def delete_tag(collection: str, name: str) -> Operation[None]:
    """Delete a tag."""
    yield Call("DeleteTag", pb.DeleteTagRequest(collection=encode.collection_name(collection), tag=name))


def check_request(  # one parameter for each option of a check
    collection: str | None,
    *,
    media_sample: int | None,
    vector_sample: int,
    repair: bool,
    drop_lost_media: bool,
) -> pb.CheckCollectionsRequest:
    """Return the request for a check."""
    return pb.CheckCollectionsRequest(
        collection=encode.collection_name(collection) if collection is not None else "",
        media=check_pb2.MediaSample(objects=media_sample or 0, all=media_sample is None),
        vector_sample=vector_sample,
        repair=repair,
        drop_lost_media=drop_lost_media,
    )


def media_url(sha256: str, seconds: int, mime_type: str) -> Operation[str]:
    """Get the URL of an object."""
    request = pb.GetMediaUrlRequest(sha256=sha256, expires_seconds=seconds, mime_type=mime_type)
    response = yield Call("GetMediaUrl", request)
    url: str = response.url
    return url


def download_request(sha256: str, offset: int, length: int | None) -> pb.DownloadMediaRequest:
    """Return the request for a stored object, or `length` bytes of it from `offset` on.

    Raises:
        InvalidError: `offset` is negative, or `length` is not positive.
    """
    if offset < 0 or (length is not None and length <= 0):
        raise InvalidError(f"range {offset}, {length}: offset must be 0 or more, length over 0", "ARGUMENT_INVALID")
    if offset == 0 and length is None:
        return pb.DownloadMediaRequest(sha256=sha256)
    return pb.DownloadMediaRequest(sha256=sha256, range=store_service_pb2.ByteRange(offset=offset, length=length or 0))


def _selections(ids: Iterable[str] | None, where: Where | None) -> Iterable[dict[str, Any]]:
    if (ids is None) == (where is None):
        raise ValueError("give either ids or where")
    if ids is None:
        yield {"where": encode.where(where)}
        return
    remaining = iter(encode.ids(ids))
    while batch := list(islice(remaining, DELETIONS_PER_CALL)):
        yield {"ids": store_service_pb2.ItemIds(ids=batch)}
