"""Tags of versions, and reads of a collection as of a version or tag."""

from dataclasses import dataclass

from services.common.errors import VersionUnknownError
from services.common.names import validate_tag
from services.common.versions import Version
from services.store.core.collections import Collections
from services.store.core.errors import TagExistsError, TagNotFoundError
from services.store.core.table import Snapshot, Table


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version, which is kept until the tag is deleted."""

    name: str
    version: Version


class Tags:
    """Creates, lists and deletes tags, and opens snapshots of collections."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    async def create(self, collection: str, name: str, token: str) -> Tag:
        """Tag the version of `token`, the newest if it is empty; if the tag names that version already, do nothing.

        Raises:
            ArgumentError: the name is invalid.
            TagExistsError: the tag names another version.
            VersionExpiredError: the version is no longer kept.
            VersionUnknownError: the collection has had no such version.
            TokenError: the token cannot be read.
        """
        table = await self._collections.table(collection)
        number = _version_number(table, Version.parse(token)) if token else table.version
        await table.create_tag(validate_tag(name), number)
        tagged = (await table.tags()).get(name)
        if tagged != number:
            raise TagExistsError(name, str(Version(table.schema.uid, tagged or 0)))
        return Tag(name, Version(table.schema.uid, number))

    async def list_all(self, collection: str) -> list[Tag]:
        """Return the tags of a collection, by name."""
        table = await self._collections.table(collection)
        tags = await table.tags()
        return [Tag(name, Version(table.schema.uid, tags[name])) for name in sorted(tags)]

    async def delete(self, collection: str, name: str) -> None:
        """Delete a tag.

        Raises:
            TagNotFoundError: there is no such tag.
        """
        table = await self._collections.table(collection)
        if not await table.delete_tag(name):
            raise TagNotFoundError(name, sorted(await table.tags()))

    async def snapshot(self, collection: str, as_of: str) -> Snapshot:
        """Return the rows as of a version token or tag; as of now if `as_of` is empty.

        Raises:
            CollectionNotFoundError: no such collection.
            TagNotFoundError: no such tag.
            VersionExpiredError: the version is no longer kept.
            VersionUnknownError: the collection has had no such version.
            TokenError: `as_of` is neither a version nor a tag.
        """
        table = await self._collections.table(collection)
        return await _open_snapshot(table, as_of) if as_of else table


async def _open_snapshot(table: Table, as_of: str) -> Snapshot:
    if "." in as_of:
        return await table.as_of(_version_number(table, Version.parse(as_of)))
    tags = await table.tags()
    if as_of not in tags:
        raise TagNotFoundError(as_of, sorted(tags))
    return await table.as_of(tags[as_of])


def _version_number(table: Table, version: Version) -> int:
    if version.uid != table.schema.uid or not 1 <= version.number <= table.version:
        raise VersionUnknownError(table.schema.name, str(version))
    return version.number
