"""Writing and reading the files of one snapshot, several at a time, without ever holding more than these in memory."""

import contextvars
import io
import logging
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from functools import partial
from math import isfinite
from typing import BinaryIO, TypeVar, cast

import numpy as np

from services.common.deadlines import deadline_in
from services.search.core.change_feed import ChangeBatch
from services.search.core.portable_index import AnnExport, CollectionExport, PortableIndex, SpaceExport
from services.search.core.vector_index import Numbers
from services.search.snapshots.catalog import Folder
from services.search.snapshots.format import (
    Rows,
    decode_rows,
    decode_slots,
    decode_vectors,
    encode_rows,
    encode_slots,
    encode_vectors,
    row_chunks,
    slot_chunks,
)
from services.search.snapshots.manifest import (
    Manifest,
    SavedAnnIndex,
    SavedSpace,
    SnapshotFile,
    UnusableSnapshotError,
    encode_kind,
)
from services.search.snapshots.streams import PartsReader, PartsWriter

MAX_IN_FLIGHT = 3
SLOTS_PER_FILE = 2**22

log = logging.getLogger(__name__)

TimeBudget = Callable[[], float]
"""Tells at any time how many seconds more may pass; infinite for no limit."""

Result = TypeVar("Result")
Element = TypeVar("Element")


class SnapshotWriter:
    """Writes the files of a snapshot into a folder."""

    def __init__(self, folder: Folder, pool: Executor, time_budget: TimeBudget) -> None:
        self._folder = folder
        self._pool = pool
        self._time_budget = time_budget

    def write(self, collection: str, content: CollectionExport) -> Manifest:
        """Write everything but the manifest; return that.

        Raises:
            TimeoutError: no time was left.
            ServiceError: a file cannot be written.
        """
        rows = self._all(self._rows, enumerate(row_chunks(content)))
        spaces = [self._space(space) for space in content.spaces]
        return Manifest(collection, content.version, content.items, rows, spaces)

    def _space(self, content: SpaceExport) -> SavedSpace:
        space = content.space
        parts = self._all(partial(self._vectors, content), enumerate(slot_chunks(content)))
        ann = self._write_ann_index(space.name, content.ann) if content.ann else None
        return SavedSpace(space.name, space.dimensions, space.metric.value, space.fingerprint, parts, ann)

    def _write_ann_index(self, name: str, ann: AnnExport) -> SavedAnnIndex:
        current = [
            self._put(f"{name}-{begin:010d}.slots", encode_slots(slots), len(slots))
            for begin, slots in _split(ann.current)
        ]
        parts: list[SnapshotFile] = []
        file = PartsWriter(lambda content: parts.append(self._put(f"{name}-{len(parts):05d}.index", content, 1)))
        ann.save(cast(BinaryIO, file))
        file.finish()
        return SavedAnnIndex(encode_kind(ann.kind), current, parts)

    def _all(self, work: Callable[[Element], SnapshotFile], chunks: Iterable[Element]) -> list[SnapshotFile]:
        return list(_map_ordered(self._pool, work, chunks))

    def _rows(self, numbered: tuple[int, Rows]) -> SnapshotFile:
        number, rows = numbered
        return self._put(f"rows-{number:05d}.arrow", encode_rows(rows), len(rows[0]))

    def _vectors(self, content: SpaceExport, numbered: tuple[int, slice]) -> SnapshotFile:
        number, chunk = numbered
        encoded = encode_vectors(content, chunk)
        return self._put(f"{content.space.name}-{number:05d}.f32", encoded, chunk.stop - chunk.start)

    def _put(self, name: str, content: bytes, count: int) -> SnapshotFile:
        seconds = _check_time(self._time_budget)
        with deadline_in(seconds if isfinite(seconds) else None):
            self._folder.put(name, content)
        return SnapshotFile(name, count, len(content), zlib.crc32(content))


class SnapshotReader:
    """Reads the files of a snapshot from a folder."""

    def __init__(self, folder: Folder, pool: Executor, time_budget: TimeBudget) -> None:
        self._folder = folder
        self._pool = pool
        self._time_budget = time_budget

    def read(self, manifest: Manifest, index: PortableIndex) -> None:
        """Fill `index`, which holds nothing, with all that the manifest names.

        Raises:
            UnusableError: a file is damaged.
            MissingFileError: one is gone.
            TimeoutError: no time was left.
            ServiceError: one cannot be read.
        """
        for part, content in self._all(manifest.rows):
            ids, metadata = decode_rows(content, part.count)
            index.write(ChangeBatch(ids, metadata))
        for space in manifest.spaces:
            self._load_vectors(space, index)
        index.publish(manifest.version)

    def _load_vectors(self, space: SavedSpace, index: PortableIndex) -> None:
        """Put the vectors into the slots they had, if an approximate index refers to them; else into the first."""
        ann = space.ann_index_for(index.space(space.name).config)
        placed = 0
        for part, content in self._all(space.parts):
            items, slots, vectors = decode_vectors(content, part.count, space.dimensions)
            index.load_vectors(space.name, items, slots if ann else np.arange(placed, placed + part.count), vectors)
            placed += part.count
        if ann:
            self._load_ann_index(space.name, ann, index)

    def _load_ann_index(self, name: str, ann: SavedAnnIndex, index: PortableIndex) -> None:
        slots = [decode_slots(content, part.count) for part, content in self._all(ann.current)]
        parts = (content for _, content in self._all(ann.parts))
        with io.BufferedReader(PartsReader(parts)) as file:
            try:
                index.load_ann_index(name, file, np.concatenate([np.empty(0, np.int64), *slots]))
            except ValueError as error:
                log.warning("the approximate index of %s is built anew: %s", name, error)

    def _all(self, parts: Iterable[SnapshotFile]) -> Iterator[tuple[SnapshotFile, bytes]]:
        return _map_ordered(self._pool, self._read_verified, parts)

    def _read_verified(self, part: SnapshotFile) -> tuple[SnapshotFile, bytes]:
        _check_time(self._time_budget)
        content = self._folder.get(part.file)
        if len(content) != part.size_bytes:
            raise UnusableSnapshotError(f"{part.file} has {len(content)} bytes, not {part.size_bytes}")
        if zlib.crc32(content) != part.crc32:
            raise UnusableSnapshotError(f"{part.file} is damaged: its CRC-32 is another")
        return part, content


def _split(slots: Numbers) -> Iterator[tuple[int, Numbers]]:
    return ((begin, slots[begin : begin + SLOTS_PER_FILE]) for begin in range(0, len(slots), SLOTS_PER_FILE))


def _check_time(time_budget: TimeBudget) -> float:
    seconds = time_budget()
    if seconds <= 0:
        raise TimeoutError("no time is left")
    return seconds


def _map_ordered(pool: Executor, work: Callable[[Element], Result], elements: Iterable[Element]) -> Iterator[Result]:
    """Yield what `work` makes of `elements`, in order, a few of them under way; none is when this ends."""
    waiting: deque[Future[Result]] = deque()
    try:
        for element in elements:
            waiting.append(pool.submit(contextvars.copy_context().run, work, element))
            if len(waiting) == MAX_IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for each in waiting:
            each.cancel()
        wait(waiting)
