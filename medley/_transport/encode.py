"""Plain values to messages, for both clients."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medley.indexes import ExactIndex, HnswIndex, IndexConfig, IvfIndex, VectorStorage
from medley.v1 import collection_pb2, filter_pb2, index_config_pb2, item_pb2, store_service_pb2, vector_pb2
from medley.v1 import gateway_service_pb2 as pb
from medley.values import Arm, Field, Item, Media, NewItem, Picture, Source, Space, VectorLike, Where

COLLECTIONS = "collections/"
CHUNK_BYTES = 2**18


def collection_name(name: str) -> str:
    """Return the full name of the collection that `name`, short or full, stands for."""
    return name if name.startswith(COLLECTIONS) else f"{COLLECTIONS}{name}"


def collection(name: str, spaces: Iterable[Space]) -> collection_pb2.Collection:
    """Return the collection to create."""
    return collection_pb2.Collection(name=collection_name(name), spaces=map(_space, spaces))


def index(config: IndexConfig) -> index_config_pb2.IndexConfig:
    """Return the message of an index's configuration.

    Raises:
        ValueError: there is no such storage.
    """
    match config:
        case ExactIndex(storage=storage):
            exact = index_config_pb2.ExactIndex(storage=_storage(storage))
            return index_config_pb2.IndexConfig(exact=exact)
        case HnswIndex():
            hnsw = index_config_pb2.HnswIndex(
                m=config.m,
                ef_construction=config.ef_construction,
                ef_search=config.ef_search,
                storage=_storage(config.storage),
            )
            return index_config_pb2.IndexConfig(
                hnsw=hnsw, exact_below_selectivity=config.exact_below_selectivity, recall_floor=config.recall_floor
            )
        case IvfIndex():
            ivf = index_config_pb2.IvfIndex(nlist=config.nlist, nprobe=config.nprobe)
            if config.product_bytes:
                ivf.product_bytes = config.product_bytes
            else:
                ivf.storage = _storage(config.storage)
            return index_config_pb2.IndexConfig(
                ivf=ivf, exact_below_selectivity=config.exact_below_selectivity, recall_floor=config.recall_floor
            )


def where(condition: Where | None) -> filter_pb2.Where | None:
    """Return the filter `condition` as JSON; None stays None."""
    if condition is None:
        return None
    return filter_pb2.Where(json=condition if isinstance(condition, str) else to_json(condition))


def fields(names: Iterable[Field]) -> list[item_pb2.ItemField.ValueType]:
    """Return the fields of an item by their names.

    Raises:
        ValueError: there is no such field.
    """
    return [enum_value(item_pb2.ItemField, name) for name in names]


def vector(components: VectorLike) -> vector_pb2.Vector:
    """Return `components` as little-endian float32."""
    return vector_pb2.Vector(float32_le=np.asarray(components, dtype="<f4").tobytes())


def vectors(by_space: Mapping[str, VectorLike]) -> dict[str, vector_pb2.Vector]:
    """Return vectors by space."""
    return {space: vector(components) for space, components in by_space.items()}


def file_bytes(source: Picture) -> bytes:
    """Return the bytes given, or those of the file at the path given."""
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def media(source: Source | None) -> pb.MediaSource | None:
    """Return media to send, reading the file if `source` is a path; None stays None."""
    match source:
        case None:
            return None
        case Media(sha256=sha256):
            return pb.MediaSource(sha256=sha256)
        case _:
            return pb.MediaSource(data=file_bytes(source))


def metadata_update(replace: Mapping[str, object] | None, merge: Mapping[str, object] | None) -> Any:
    """Return the change of metadata, None if there is none.

    Raises:
        ValueError: both are given.
    """
    if replace is not None and merge is not None:
        raise ValueError("give metadata to replace it all, or merge to change some of it, not both")
    if replace is not None:
        return store_service_pb2.MetadataUpdate(replace_json=to_json(replace))
    return None if merge is None else store_service_pb2.MetadataUpdate(merge_json=to_json(merge))


def arms(  # one parameter for each kind of query
    text: str | None,
    image: Picture | None,
    item: str | None,
    vector: VectorLike | None,
    explicit: Iterable[Arm],
    *,
    space: str,
    weights: Mapping[str, float],
) -> list[pb.Arm]:
    """Return an arm for each query given, in `space` and with its kind's weight, then the `explicit` ones.

    Raises:
        ValueError: a weight for a kind of query that is not given.
        OSError: a picture's file cannot be read.
    """
    queries = {"text": text, "image": image, "item": item, "vector": vector}
    given = {kind: query for kind, query in queries.items() if query is not None}
    if unknown := sorted(weights.keys() - given.keys()):
        raise ValueError(f"a weight for {', '.join(unknown)}, but the queries are {', '.join(given) or 'none'}")
    implicit = [
        Arm(**{kind: query}, space=space, weight=weights.get(kind, 1.0))  # type: ignore[arg-type]  # each its own kind
        for kind, query in given.items()
    ]
    return [_arm(arm) for arm in (*implicit, *explicit)]


def ids(given: Iterable[str]) -> Iterable[str]:
    """Return the ids given, a single string as one id."""
    return [given] if isinstance(given, str) else given


def ingest_target(collection: str) -> pb.IngestItemsRequest:
    """Return the first message of an ingest."""
    return pb.IngestItemsRequest(target=pb.IngestTarget(collection=collection_name(collection)))


def ingest_chunk(items: Iterable[pb.IngestItem]) -> pb.IngestItemsRequest:
    """Return the message of some items."""
    return pb.IngestItemsRequest(chunk=pb.IngestChunk(items=items))


def ingest_item(item: NewItem) -> pb.IngestItem:
    """Return the message of one item, reading the file if its media are a path.

    Raises:
        ValueError: its metadata or vectors cannot be encoded.
        OSError: its file cannot be read.
    """
    return pb.IngestItem(
        id=item.id,
        text=item.text,
        media=media(item.media),
        metadata_json=to_json(item.metadata) if item.metadata else "",
        vectors=vectors(item.vectors),
    )


def row(item: Item) -> store_service_pb2.Row:
    """Return a stored item as a row to restore, with its history."""
    message = store_service_pb2.Row(
        id=item.id,
        text=item.text,
        metadata_json=to_json(item.metadata) if item.metadata else "",
        vectors=vectors(item.vectors),
        history=store_service_pb2.RowHistory(revision=item.revision),
    )
    if item.create_time and item.update_time:
        message.history.create_time.FromDatetime(item.create_time)
        message.history.update_time.FromDatetime(item.update_time)
    if item.media is not None:
        media = item.media
        message.media.CopyFrom(
            item_pb2.Media(
                sha256=media.sha256,
                mime_type=media.mime_type,
                size_bytes=media.size_bytes,
                width=media.width,
                height=media.height,
            )
        )
        if item.content_type:
            message.media_type = enum_value(collection_pb2.ContentType, item.content_type)
    return message


def upload_header(source: object, mime_type: str) -> pb.UploadMediaRequest:
    """Return the first message of an upload, with the size if `source` is bytes or a path."""
    header = store_service_pb2.MediaHeader(mime_type=mime_type)
    match source:
        case bytes():
            header.size_bytes = len(source)
        case str() | os.PathLike():
            header.size_bytes = Path(source).stat().st_size
    return pb.UploadMediaRequest(header=header)


def blocks(source: Picture | Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of `source`: bytes, the path of a file, or an iterable of bytes."""
    match source:
        case bytes():
            yield source
        case str() | os.PathLike():
            with Path(source).open("rb") as file:
                while block := file.read(CHUNK_BYTES):
                    yield block
        case _:
            yield from source


def upload_chunks(block: bytes) -> Iterator[pb.UploadMediaRequest]:
    """Yield `block` in messages no larger than the server takes."""
    for start in range(0, len(block), CHUNK_BYTES):
        yield pb.UploadMediaRequest(chunk=block[start : start + CHUNK_BYTES])


def to_json(value: Mapping[str, object]) -> str:
    """Return `value` as JSON.

    Raises:
        ValueError: it holds NaN or infinity.
        TypeError: it holds a value that JSON has no form for.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def enum_value(enum: Any, word: str) -> Any:
    """Return the value of the generated `enum` with the name `word`: in lower case, without the enum's prefix.

    Raises:
        ValueError: there is none.
    """
    prefix = enum_prefix(enum)
    known = [name.removeprefix(prefix).lower() for name in enum.keys()[1:]]
    if word not in known:
        raise ValueError(
            f"unknown {prefix.rstrip('_').replace('_', ' ').lower()} {word!r}; there are {', '.join(known)}"
        )
    return enum.Value(prefix + word.upper())


def enum_prefix(enum: Any) -> str:
    """Return the common prefix of the generated `enum`'s names."""
    first: str = enum.keys()[0]
    return first.removesuffix("UNSPECIFIED")


def _space(space: Space) -> collection_pb2.Space:
    return collection_pb2.Space(
        name=space.name,
        model=space.model,
        dimensions=space.dimensions,
        metric=enum_value(vector_pb2.Metric, space.metric) if space.metric else vector_pb2.METRIC_UNSPECIFIED,
        sources=[enum_value(collection_pb2.ContentType, source) for source in space.sources],
        fingerprint=space.fingerprint,
        index=index(space.index) if space.index else None,
    )


def _storage(storage: VectorStorage | None) -> Any:
    return (
        enum_value(index_config_pb2.VectorStorage, storage) if storage else index_config_pb2.VECTOR_STORAGE_UNSPECIFIED
    )


def _arm(arm: Arm) -> pb.Arm:
    message = pb.Arm(space=arm.space, weight=arm.weight)
    if arm.text is not None:
        message.text = arm.text
    if arm.image is not None:
        message.image = file_bytes(arm.image)
    if arm.item is not None:
        message.item_id = arm.item
    if arm.vector is not None:
        message.vector.CopyFrom(vector(arm.vector))
    return message
