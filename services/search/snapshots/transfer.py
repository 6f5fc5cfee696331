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
from services.search.core.portable_index import BuiltIndex, Content, PortableIndex, SpaceContent
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
    row_portions,
    slot_portions,
)
from services.search.snapshots.manifest import Manifest, Part, SavedBuild, SavedSpace, UnusableError, spelt_kind
from services.search.snapshots.streams import PartsReader, PartsWriter

AT_A_TIME = 3
SLOTS_AT_A_TIME = 2**22

log = logging.getLogger(__name__)

TimeBudget = Callable[[], float]
"""Tells at any time how many seconds more may pass; infinite for no limit."""

T = TypeVar("T")
E = TypeVar("E")


class SnapshotWriter:
    """Writes the files of a snapshot into a folder."""

    def __init__(self, folder: Folder, pool: Executor, patience: TimeBudget) -> None:
        self._folder = folder
        self._pool = pool
        self._patience = patience

    def write(self, collection: str, content: Content) -> Manifest:
        """Write everything but the manifest; return that.

        Raises:
            TimeoutError: no time was left.
            ServiceError: a file cannot be written.
        """
        rows = self._all(self._rows, enumerate(row_portions(content)))
        spaces = [self._space(space) for space in content.spaces]
        return Manifest(collection, content.version, content.items, rows, spaces)

    def _space(self, content: SpaceContent) -> SavedSpace:
        space = content.space
        parts = self._all(partial(self._vectors, content), enumerate(slot_portions(content)))
        built = self._built(space.name, content.built) if content.built else None
        return SavedSpace(space.name, space.dimensions, space.metric.value, space.fingerprint, parts, built)

    def _built(self, name: str, built: BuiltIndex) -> SavedBuild:
        current = [
            self._put(f"{name}-{begin:010d}.slots", encode_slots(slots), len(slots))
            for begin, slots in _cut(built.current)
        ]
        parts: list[Part] = []
        file = PartsWriter(lambda content: parts.append(self._put(f"{name}-{len(parts):05d}.index", content, 1)))
        built.save(cast(BinaryIO, file))
        file.finish()
        return SavedBuild(spelt_kind(built.kind), current, parts)

    def _all(self, work: Callable[[E], Part], portions: Iterable[E]) -> list[Part]:
        return list(_in_order(self._pool, work, portions))

    def _rows(self, numbered: tuple[int, Rows]) -> Part:
        number, rows = numbered
        return self._put(f"rows-{number:05d}.arrow", encode_rows(rows), len(rows[0]))

    def _vectors(self, content: SpaceContent, numbered: tuple[int, slice]) -> Part:
        number, portion = numbered
        encoded = encode_vectors(content, portion)
        return self._put(f"{content.space.name}-{number:05d}.f32", encoded, portion.stop - portion.start)

    def _put(self, name: str, content: bytes, count: int) -> Part:
        seconds = _check_time(self._patience)
        with deadline_in(seconds if isfinite(seconds) else None):
            self._folder.put(name, content)
        return Part(name, count, len(content), zlib.crc32(content))


class SnapshotReader:
    """Reads the files of a snapshot from a folder."""

    def __init__(self, folder: Folder, pool: Executor, patience: TimeBudget) -> None:
        self._folder = folder
        self._pool = pool
        self._patience = patience

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
            self._place(space, index)
        index.publish(manifest.version)

    def _place(self, space: SavedSpace, index: PortableIndex) -> None:
        """Put the vectors into the slots they had, if an approximate index refers to them; else into the first."""
        built = space.built_for(index.space(space.name).config)
        placed = 0
        for part, content in self._all(space.parts):
            items, slots, vectors = decode_vectors(content, part.count, space.dimensions)
            index.place(space.name, items, slots if built else np.arange(placed, placed + part.count), vectors)
            placed += part.count
        if built:
            self._adopt(space.name, built, index)

    def _adopt(self, name: str, built: SavedBuild, index: PortableIndex) -> None:
        slots = [decode_slots(content, part.count) for part, content in self._all(built.current)]
        parts = (content for _, content in self._all(built.parts))
        with io.BufferedReader(PartsReader(parts)) as file:
            try:
                index.adopt(name, file, np.concatenate([np.empty(0, np.int64), *slots]))
            except ValueError as error:
                log.warning("the approximate index of %s is built anew: %s", name, error)

    def _all(self, parts: Iterable[Part]) -> Iterator[tuple[Part, bytes]]:
        return _in_order(self._pool, self._checked, parts)

    def _checked(self, part: Part) -> tuple[Part, bytes]:
        _check_time(self._patience)
        content = self._folder.get(part.file)
        if len(content) != part.size_bytes:
            raise UnusableError(f"{part.file} has {len(content)} bytes, not {part.size_bytes}")
        if zlib.crc32(content) != part.crc32:
            raise UnusableError(f"{part.file} is damaged: its CRC-32 is another")
        return part, content


def _cut(slots: Numbers) -> Iterator[tuple[int, Numbers]]:
    return ((begin, slots[begin : begin + SLOTS_AT_A_TIME]) for begin in range(0, len(slots), SLOTS_AT_A_TIME))


def _check_time(patience: TimeBudget) -> float:
    seconds = patience()
    if seconds <= 0:
        raise TimeoutError("no time is left")
    return seconds


def _in_order(pool: Executor, work: Callable[[E], T], elements: Iterable[E]) -> Iterator[T]:
    """Yield what `work` makes of `elements`, in order, a few of them under way; none is when this ends."""
    waiting: deque[Future[T]] = deque()
    try:
        for element in elements:
            waiting.append(pool.submit(contextvars.copy_context().run, work, element))
            if len(waiting) == AT_A_TIME:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for each in waiting:
            each.cancel()
        wait(waiting)
