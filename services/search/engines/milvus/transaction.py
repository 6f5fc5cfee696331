"""Writing a round of a collection into Milvus: the parts of one change."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Self
from uuid import uuid4

from services.common.versions import Version
from services.search.core.change_feed import ChangeBatch, Space
from services.search.engines.milvus.client import Milvus
from services.search.engines.milvus.ranking import longest_of
from services.search.engines.milvus.schema import fresh_name, names_of
from services.search.engines.milvus.space import MilvusSpace, visible
from services.search.engines.milvus.version_pointer import KeptSpace, VersionPointer
from services.search.engines.milvus.writing import rewritten

log = logging.getLogger(__name__)


class Transaction:
    """The round to come, which nobody sees before the marker that `completed` returns is written."""

    def __init__(
        self, milvus: Milvus, before: VersionPointer, spaces: Mapping[str, MilvusSpace], *, first: bool
    ) -> None:
        self._milvus = milvus
        self._before = before
        self._spaces = spaces
        self._first = first
        self._number = before.round_number + 1
        self._longest = {name: kept.longest for name, kept in before.spaces.items()}
        self._written = dict.fromkeys(spaces, 0)
        self._parts = 0

    @classmethod
    def first(cls, milvus: Milvus, collection: str, uid: str, writer: str, spaces: Mapping[str, Space]) -> Self:
        """Begin a building of its own, beside any that is there."""
        made = {
            name: MilvusSpace(milvus, fresh_name(milvus.options.prefix, uid, name), space)
            for name, space in spaces.items()
        }
        for space in made.values():
            space.create()
        kept = {name: KeptSpace.of(space.name, space.space, 0, 0.0) for name, space in made.items()}
        return cls(milvus, VersionPointer(uid, collection, 0, 0, uuid4().hex, writer, kept), made, first=True)

    @classmethod
    def next(cls, milvus: Milvus, shown: VersionPointer, spaces: Mapping[str, MilvusSpace]) -> Self:
        """Go on from the round that `shown` names."""
        return cls(milvus, shown, spaces, first=False)

    def write(self, part: ChangeBatch) -> None:
        """Take in a part of the change."""
        spaces = [space.space for space in self._spaces.values()]
        changed = rewritten(part, spaces, self._number)
        for name, space in self._spaces.items():
            rows = changed.rows[name]
            if not self._first:
                space.retire(changed.items, self._number)
            if self._parts:  # an earlier one may have written it
                space.end(changed.absent[name], self._number)
            space.write(rows)
            self._written[name] += len(rows)
            self._longest[name] = max(self._longest[name], longest_of([row["vector"][None] for row in rows]))
        self._parts += 1

    def completed(self, version: Version, wanted: Mapping[str, Space]) -> VersionPointer:
        """See to it that the round can be searched as `wanted` says; return the marker that shows it as `version`."""
        kept = {name: self._indexed(name, space, wanted[name]) for name, space in self._spaces.items()}
        return replace(self._before, number=version.number, round_number=self._number, spaces=kept)

    def _indexed(self, name: str, space: MilvusSpace, wanted: Space) -> KeptSpace:
        before = self._before.spaces[name]
        if self._first:
            made = MilvusSpace(self._milvus, space.name, wanted)
            made.index(self._written[name])
            return KeptSpace.of(made.name, wanted, self._written[name], self._longest[name])
        if before.config != wanted.config:
            return self._copied(name, space, wanted)
        return replace(before, longest=self._longest[name])

    def _copied(self, name: str, space: MilvusSpace, wanted: Space) -> KeptSpace:
        """Build another index beside the one that answers, of what the round shows."""
        log.info("%s of %s is indexed anew", name, self._before.collection)
        other = MilvusSpace(self._milvus, fresh_name(self._milvus.options.prefix, self._before.uid, name), wanted)
        other.create()
        space.copy_to(other, self._number)
        count = space.count(visible(self._number))
        other.index(count)
        return KeptSpace.of(other.name, wanted, count, self._longest[name])


def sweep(milvus: Milvus, uid: str, kept: VersionPointer | None) -> None:
    """Remove what there is of a collection in Milvus that `kept` does not name: left by what was never completed."""
    named = {space.name for space in kept.spaces.values()} if kept else set()
    for name in milvus.names():
        if name.startswith(names_of(milvus.options.prefix, uid)) and name not in named:
            log.info("%s is no longer needed in Milvus", name)
            milvus.drop(name)
