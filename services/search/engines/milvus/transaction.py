"""Writing a round of a collection into Milvus: the parts of one change."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Self
from uuid import uuid4

from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space
from services.search.engines.milvus.client import Milvus
from services.search.engines.milvus.ranking import max_length
from services.search.engines.milvus.row_changes import encode_changes
from services.search.engines.milvus.schema import name_prefix, new_name
from services.search.engines.milvus.space import MilvusSpace, visible
from services.search.engines.milvus.version_pointer import StoredSpace, VersionPointer

log = logging.getLogger(__name__)


class Transaction:
    """The round to come, which nobody sees before the marker that `prepare_commit` returns is written."""

    def __init__(
        self, milvus: Milvus, before: VersionPointer, spaces: Mapping[str, MilvusSpace], *, first: bool
    ) -> None:
        self._milvus = milvus
        self._before = before
        self._spaces = spaces
        self._first = first
        self._number = before.round_number + 1
        self._longest = {name: stored.longest for name, stored in before.spaces.items()}
        self._written = dict.fromkeys(spaces, 0)
        self._parts = 0

    @classmethod
    def first(cls, milvus: Milvus, collection: str, uid: str, writer: str, spaces: Mapping[str, Space]) -> Self:
        """Begin a building of its own, beside any that is there."""
        made = {
            name: MilvusSpace(milvus, new_name(milvus.options.prefix, uid, name), space)
            for name, space in spaces.items()
        }
        for space in made.values():
            space.create()
        stored = {name: StoredSpace.of(space.name, space.space, 0, 0.0) for name, space in made.items()}
        return cls(milvus, VersionPointer(uid, collection, 0, 0, uuid4().hex, writer, stored), made, first=True)

    @classmethod
    def next(cls, milvus: Milvus, pointer: VersionPointer, spaces: Mapping[str, MilvusSpace]) -> Self:
        """Go on from the round that `view` names."""
        return cls(milvus, pointer, spaces, first=False)

    def write(self, batch: ChangeBatch) -> None:
        """Take in a part of the change."""
        spaces = [space.space for space in self._spaces.values()]
        changed = encode_changes(batch, spaces, self._number)
        for name, space in self._spaces.items():
            rows = changed.rows[name]
            if not self._first:
                space.retire(changed.items, self._number)
            if self._parts:  # an earlier one may have written it
                space.end(changed.absent[name], self._number)
            space.write(rows)
            self._written[name] += len(rows)
            self._longest[name] = max(self._longest[name], max_length([row["vector"][None] for row in rows]))
        self._parts += 1

    def prepare_commit(self, version: Version, wanted: Mapping[str, Space]) -> VersionPointer:
        """See to it that the round can be searched as `wanted` says; return the marker that shows it as `version`."""
        stored = {name: self._index(name, space, wanted[name]) for name, space in self._spaces.items()}
        return replace(self._before, number=version.number, round_number=self._number, spaces=stored)

    def _index(self, name: str, space: MilvusSpace, wanted: Space) -> StoredSpace:
        before = self._before.spaces[name]
        if self._first:
            made = MilvusSpace(self._milvus, space.name, wanted)
            made.index(self._written[name])
            return StoredSpace.of(made.name, wanted, self._written[name], self._longest[name])
        if before.config != wanted.config:
            return self._copy(name, space, wanted)
        return replace(before, longest=self._longest[name])

    def _copy(self, name: str, space: MilvusSpace, wanted: Space) -> StoredSpace:
        """Build another index beside the one that answers, of what the round shows."""
        log.info("%s of %s is indexed anew", name, self._before.collection)
        other = MilvusSpace(self._milvus, new_name(self._milvus.options.prefix, self._before.uid, name), wanted)
        other.create()
        space.copy_to(other, self._number)
        count = space.count(visible(self._number))
        other.index(count)
        return StoredSpace.of(other.name, wanted, count, self._longest[name])


def drop_orphans(milvus: Milvus, uid: str, stored: VersionPointer | None) -> None:
    """Remove what there is of a collection in Milvus that `restore` does not name: left by what was never completed."""
    named = {space.name for space in stored.spaces.values()} if stored else set()
    for name in milvus.names():
        if name.startswith(name_prefix(milvus.options.prefix, uid)) and name not in named:
            log.info("%s is no longer needed in Milvus", name)
            milvus.drop(name)
