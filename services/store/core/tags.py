"""A collection as it was: versions and the tags that keep them."""

from dataclasses import dataclass

from services.common.errors import VersionUnknownError
from services.common.names import validate_tag
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.errors import TagExistsError, TagNotFoundError
from services.store.core.table import Snapshot, Table


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version, which is kept as long as the name is."""

    name: str
    version: Version


class Tags:
    """Names versions of collections, and finds the rows of then."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    async def tag(self, collection: str, name: str, token: str) -> Tag:
        """Name the version that `token` spells, the newest for an empty one; the same tag again is left as it is.

        Raises:
            ArgumentError: a bad name.
            TagExistsError: it names another version.
            VersionExpiredError: the version is no longer kept.
            VersionUnknownError: it is of a collection since dropped, or none yet.
            TokenError: the token cannot be read.
        """
        table = await self._collections.table(collection)
        number = _number(table, Version.parse(token)) if token else table.version
        await table.tag(validate_tag(name), number)
        tagged = (await table.tags()).get(name)
        if tagged != number:
            raise TagExistsError(name, str(Version(table.definition.uid, tagged or 0)))
        return Tag(name, Version(table.definition.uid, number))

    async def tags(self, collection: str) -> list[Tag]:
        """Return the tags of a collection, by name."""
        table = await self._collections.table(collection)
        tags = await table.tags()
        return [Tag(name, Version(table.definition.uid, tags[name])) for name in sorted(tags)]

    async def delete(self, collection: str, name: str) -> None:
        """Delete a tag.

        Raises:
            TagNotFoundError: there is none of the name.
        """
        table = await self._collections.table(collection)
        if not await table.untag(name):
            raise TagNotFoundError(name, sorted(await table.tags()))

    async def snapshot(self, collection: str, as_of: str) -> Snapshot:
        """Return the rows as of the version or tag that `as_of` names, as of now for an empty one.

        Raises:
            CollectionNotFoundError: no such collection.
            TagNotFoundError: no such tag.
            VersionExpiredError: the version is no longer kept.
            VersionUnknownError: it is of a collection since dropped, or none yet.
            TokenError: `as_of` is neither a version nor a tag.
        """
        table = await self._collections.table(collection)
        return await snapshot_of(table, as_of) if as_of else table


async def snapshot_of(table: Table, as_of: str) -> Snapshot:
    """Return the rows of `table` as of a version or tag; raises as `Tags.snapshot` does."""
    if "." in as_of:
        return await table.as_of(_number(table, Version.parse(as_of)))
    tags = await table.tags()
    if as_of not in tags:
        raise TagNotFoundError(as_of, sorted(tags))
    return await table.as_of(tags[as_of])


def _number(table: Table, version: Version) -> int:
    if version.uid != table.definition.uid or not 1 <= version.number <= table.version:
        raise VersionUnknownError(table.definition.name, str(version))
    return version.number
