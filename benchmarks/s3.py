"""`python -m benchmarks.s3`: a store with its data in a MinIO bucket on this machine, beside one with a folder.

Rows with a small picture and a vector are written through the store's own API. Both stores take turns, round by round.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.machine import description
from benchmarks.timing import seconds
from medley.v1 import collection_pb2, item_pb2, vector_pb2
from medley.v1 import store_service_pb2 as pb
from medley.v1 import store_service_pb2_grpc as pb_grpc
from tests.integration.s3_endpoint import minio_server, store_settings
from tests.integration.suite import free_address

COLLECTION = "collections/bench"
DIMENSIONS = 384
PICTURE_BYTES = 20_000
BATCH_ROWS = 50
CALLERS = 4
POINT_READS = 200
LARGE_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
TARGET = 0.7


@dataclass
class Store:
    """A running store, and its figures, round by round."""

    stub: Any
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, figure: float) -> None:
        """Add a figure."""
        self.figures.setdefault(what, []).append(figure)

    def median(self, what: str) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.figures[what])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=2000, help="rows written per round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        stores = {
            "folder": stack.enter_context(_store({"STORE_DATA_DIR": str(folder / "data")})),
            "MinIO": stack.enter_context(_store(stack.enter_context(_minio_settings(folder)))),
        }
        for number in range(options.rounds):
            for store in stores.values():
                _measure(store, number, options.rows)
        print(f"{description()}.\n\n{_table(stores['folder'], stores['MinIO'])}")


def _measure(store: Store, number: int, rows: int) -> None:
    batches = list(_batches(number, rows))
    with ThreadPoolExecutor(CALLERS) as callers:
        hashes: list[list[str]] = []
        taken = seconds(lambda: hashes.extend(callers.map(partial(_write, store.stub), batches)))
        store.note("ingest, rows/s", rows / taken)
        flat = [sha256 for each in hashes for sha256 in each]
        taken = seconds(lambda: list(callers.map(partial(_read, store.stub), flat)))
        store.note("small media read, MB/s", rows * PICTURE_BYTES / 1e6 / taken)
    ids = random.Random(number).sample([row.id for batch in batches for row in batch], POINT_READS)
    store.note(
        "point read p50, ms", 1e3 * statistics.median(seconds(partial(_point, store.stub, each)) for each in ids)
    )
    content = os.urandom(LARGE_BYTES)
    uploaded: list[str] = []
    taken = seconds(lambda: uploaded.append(store.stub.PutMedia(_upload(content)).media.sha256))
    store.note("large media put, MB/s", LARGE_BYTES / 1e6 / taken)
    store.note("large media read, MB/s", LARGE_BYTES / 1e6 / seconds(lambda: _read(store.stub, uploaded[0])))


def _batches(number: int, rows: int) -> Iterator[list[pb.Row]]:
    dice = np.random.default_rng(number)
    for start in range(0, rows, BATCH_ROWS):
        yield [_row(f"{number}-{start + i}", dice) for i in range(BATCH_ROWS)]


def _row(row_id: str, dice: np.random.Generator) -> pb.Row:
    vector = vector_pb2.Vector(float32_le=dice.standard_normal(DIMENSIONS).astype("<f4").tobytes())
    media = item_pb2.Media(data=b"\xff\xd8\xff" + dice.bytes(PICTURE_BYTES - 3), mime_type="image/jpeg")
    return pb.Row(id=row_id, text="a product", metadata_json='{"price": 12}', media=media, vectors={"clip": vector})


def _write(stub: Any, rows: Sequence[pb.Row]) -> list[str]:
    answer = stub.UpsertRows(pb.UpsertRowsRequest(collection=COLLECTION, rows=rows))
    ids = [result.written.id for result in answer.results]
    fields = [item_pb2.ITEM_FIELD_MEDIA]
    lookups = stub.GetRows(pb.GetRowsRequest(collection=COLLECTION, ids=ids, fields=fields)).lookups
    return [lookup.item.media.sha256 for lookup in lookups]


def _read(stub: Any, sha256: str) -> None:
    for _ in stub.ReadMedia(pb.ReadMediaRequest(sha256=sha256)):
        pass


def _point(stub: Any, row_id: str) -> None:
    (lookup,) = stub.GetRows(pb.GetRowsRequest(collection=COLLECTION, ids=[row_id])).lookups
    if not lookup.HasField("item"):
        raise LookupError(row_id)


def _upload(content: bytes) -> Iterator[pb.PutMediaRequest]:
    yield pb.PutMediaRequest(header=pb.MediaHeader(mime_type="video/mp4"))
    for start in range(0, len(content), CHUNK_BYTES):
        yield pb.PutMediaRequest(chunk=content[start : start + CHUNK_BYTES])


@contextmanager
def _minio_settings(folder: Path) -> Iterator[Mapping[str, str]]:
    server = minio_server(folder / "minio")
    server.start()
    try:
        yield {**store_settings(server.options), "STORE_S3_CREATE_BUCKET": "true"}
    finally:
        server.kill()


@contextmanager
def _store(environment: Mapping[str, str]) -> Iterator[Store]:
    address = free_address()
    settings = {**os.environ, **environment, "STORE_LISTEN": address}
    process = subprocess.Popen([sys.executable, "-m", "services.store"], env=settings, stderr=subprocess.DEVNULL)
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(60)
            stub: Any = pb_grpc.StoreServiceStub(channel)
            stub.CreateTable(pb.CreateTableRequest(collection=_collection()))
            yield Store(stub)
    finally:
        process.terminate()
        process.wait(30)


def _collection() -> collection_pb2.Collection:
    space = collection_pb2.Space(name="clip", dimensions=DIMENSIONS, sources=[collection_pb2.CONTENT_TYPE_IMAGE])
    return collection_pb2.Collection(name=COLLECTION, spaces=[space])


def _table(folder: Store, bucket: Store) -> str:
    lines = ["| | folder | MinIO | MinIO ÷ folder |", "|---|---|---|---|"]
    for what in folder.figures:
        one, other = folder.median(what), bucket.median(what)
        target = f" (target ≥ {TARGET})" if what.startswith("ingest") else ""
        lines.append(f"| {what} | {one:,.1f} | {other:,.1f} | {other / one:.2f}{target} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
