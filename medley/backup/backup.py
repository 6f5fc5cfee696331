"""Makes a backup."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from medley.backup.destination import Destination
from medley.backup.format import (
    MANIFEST,
    PROGRESS,
    BackupError,
    File,
    Progress,
    decode_items,
    encode_items,
    media_path,
    media_sizes,
    read_file,
    read_progress,
    write_manifest,
    write_progress,
)
from medley.client import Client
from medley.errors import NotFoundError
from medley.values import Collection, Field

ITEMS_PER_FILE = 500
FIELDS: tuple[Field, ...] = ("text", "metadata", "media", "vectors")


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A complete backup: its version, whether it resumed an earlier attempt, and its size."""

    collection: str
    version: str
    resumed: bool
    items: int
    media: int
    bytes: int


class Backup:
    """Copies a collection, as of one version, to a destination.

    A tag keeps the version until the backup is complete. An interrupted backup resumes with the same version.
    """

    def __init__(self, client: Client, destination: Destination, report: Callable[[int, int], None]) -> None:
        """Call `report` with the number of items saved and the total."""
        self._client = client
        self._destination = destination
        self._report = report

    def save(self, collection: str, as_of: str = "") -> BackupResult:
        """Make the backup, of a version or tag, the newest version for "".

        Raises:
            BackupError: the destination has a complete backup, or an unfinished one of something else.
            medley.Error: the version is no longer kept, or the server fails.
        """
        if self._destination.size(MANIFEST) is not None:
            raise BackupError("there is a complete backup already: choose another destination, or remove it")
        definition = self._client.collection(collection)
        earlier = read_progress(self._destination)
        progress = self._resume(earlier, definition, as_of) if earlier else self._start(definition, as_of)
        media = self._media_so_far(progress, definition)
        total = self._client.count(definition.name, as_of=progress.tag)
        while not progress.listed:
            self._report(_items(progress), total)
            media |= self._next_file(progress, definition)
        self._report(_items(progress), total)
        if _items(progress) != total:
            raise BackupError(f"the collection has {total} items, {_items(progress)} were read")
        manifest = write_manifest(self._destination, definition, progress, media)
        self._finish(progress)
        size = sum(file.size_bytes for file in manifest.files) + sum(media.values())
        return BackupResult(definition.name, progress.version, earlier is not None, manifest.items, len(media), size)

    def _start(self, definition: Collection, as_of: str) -> Progress:
        version = self._version(definition, as_of)
        tag = f"backup-{uuid4().hex[:12]}"
        progress = Progress(definition.name, version, tag)
        write_progress(self._destination, progress)  # before the tag, so that a crash leaves no unknown tag
        self._client.tag(definition.name, tag, version=version)
        return progress

    def _resume(self, progress: Progress, definition: Collection, as_of: str) -> Progress:
        if progress.collection != definition.name:
            raise BackupError(
                f"an unfinished backup of {progress.collection} is here: choose another destination, or remove it"
            )
        if as_of and self._version(definition, as_of) != progress.version:
            raise BackupError(f"an unfinished backup of version {progress.version} is here: choose another destination")
        self._client.tag(definition.name, progress.tag, version=progress.version)
        return progress

    def _version(self, definition: Collection, as_of: str) -> str:
        if not as_of or "." in as_of:
            return as_of or definition.version
        tagged = {tag.name: tag.version for tag in self._client.tags(definition.name)}
        if as_of not in tagged:
            raise NotFoundError(f"no tag {as_of!r}; there are {', '.join(tagged) or 'none'}", "TAG_NOT_FOUND")
        return tagged[as_of]

    def _media_so_far(self, progress: Progress, definition: Collection) -> dict[str, int]:
        media: dict[str, int] = {}
        for file in progress.files:
            media |= media_sizes(list(decode_items(read_file(self._destination, file), definition.spaces)))
        return media

    def _next_file(self, progress: Progress, definition: Collection) -> dict[str, int]:
        """Save the next items with their media; return the media."""
        page = self._client.list_page(
            definition.name,
            page_size=ITEMS_PER_FILE,
            page_token=progress.page_token,
            fields=FIELDS,
            as_of=progress.tag,
        )
        media = media_sizes(page.values)
        for sha256, size_bytes in media.items():
            if self._destination.size(media_path(sha256)) != size_bytes:
                self._destination.write(media_path(sha256), self._client.download_media(sha256))
        if page.values:
            content = encode_items(page.values, definition.spaces)
            path = f"items/{len(progress.files):06}.parquet"
            self._destination.write(path, [content])
            digest = hashlib.sha256(content).hexdigest()
            progress.files.append(File(path, digest, len(content), len(page.values)))
        progress.page_token, progress.listed = page.next_page_token, not page.next_page_token
        write_progress(self._destination, progress)
        return media

    def _finish(self, progress: Progress) -> None:
        self._destination.delete(PROGRESS)
        with suppress(NotFoundError):
            self._client.delete_tag(progress.collection, progress.tag)


def _items(progress: Progress) -> int:
    return sum(file.items for file in progress.files)
