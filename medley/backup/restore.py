"""Restores a backup."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from medley.backup.destination import Destination
from medley.backup.format import BackupError, Manifest, decode_items, media_blocks, read_file, read_manifest
from medley.client import Client
from medley.errors import NotFoundError
from medley.indexes import IvfIndex
from medley.values import IngestResult, Item, NewItem, Space

ITEMS_PER_CALL = 256
BYTES_PER_CALL = 4 * 2**20


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored, and whether items were embedded again."""

    collection: str
    items: int
    media: int
    re_embedded: bool


class Restore:
    """Writes the items of a backup into a collection."""

    def __init__(self, client: Client, destination: Destination, report: Callable[[str, int, int], None]) -> None:
        """Call `report` with the current step, the number done and the total."""
        self._client = client
        self._destination = destination
        self._report = report

    def restore(self, name: str = "", *, re_embed: bool = False, into_existing: bool = False) -> RestoreResult:
        """Restore the backup as the collection `name`, "" for the name it had.

        All files are compared with their hashes before anything is written. With `into_existing` the collection may
        have items, which is how to continue after an interruption.

        Raises:
            BackupError: the backup is missing, incomplete or damaged; its vectors have another fingerprint; or the
                collection has items.
            medley.Error: the server fails.
        """
        manifest = read_manifest(self._destination)
        if manifest is None:
            raise BackupError("there is no complete backup here")
        name = name or manifest.collection
        self._verify(manifest)
        if not re_embed:
            self._check_fingerprints(manifest)
        self._create_collection(name, manifest, re_embed=re_embed, into_existing=into_existing)
        self._upload(manifest)
        self._write(name, manifest, re_embed=re_embed)
        self._check_count(name, manifest, into_existing=into_existing)
        return RestoreResult(name, manifest.items, len(manifest.media), re_embed)

    def _verify(self, manifest: Manifest) -> None:
        items = 0
        referred: set[str] = set()
        for number, file in enumerate(manifest.files):
            self._report("Verifying items", number, len(manifest.files))
            for item in decode_items(read_file(self._destination, file), manifest.spaces):
                items += 1
                referred |= {item.media.sha256} if item.media else set()
        if items != manifest.items or referred != manifest.media.keys():
            raise BackupError("the manifest does not match the files")
        for number, sha256 in enumerate(manifest.media):
            self._report("Verifying media", number, len(manifest.media))
            for _ in media_blocks(self._destination, sha256):
                pass

    def _check_fingerprints(self, manifest: Manifest) -> None:
        fingerprints = {model.name: model.fingerprint for model in self._client.status().models}
        for space in manifest.spaces:
            if space.model and fingerprints.get(space.model) != space.fingerprint:
                raise BackupError(
                    f"the vectors of {space.name} were made by {space.model} "
                    f"under the fingerprint {space.fingerprint!r}, "
                    f"the server has {fingerprints.get(space.model)!r}: --re-embed embeds the items again"
                )

    def _create_collection(self, name: str, manifest: Manifest, *, re_embed: bool, into_existing: bool) -> None:
        try:
            items = self._client.count(name)
        except NotFoundError:
            items = 0
        if items and not into_existing:
            raise BackupError(f"collection {name} has {items} items: --as another name, or --into-existing")
        self._client.create_collection(name, [_space_to_create(space, re_embed=re_embed) for space in manifest.spaces])

    def _upload(self, manifest: Manifest) -> None:
        for number, sha256 in enumerate(manifest.media):
            self._report("Uploading media", number, len(manifest.media))
            self._client.upload_media(media_blocks(self._destination, sha256))

    def _write(self, name: str, manifest: Manifest, *, re_embed: bool) -> None:
        fingerprints = {space.name: space.fingerprint for space in manifest.spaces if space.model}
        own = {space.name for space in manifest.spaces if not space.model}
        done = 0
        for batch in self._batches(manifest):
            self._report("Restoring items", done, manifest.items)
            if re_embed:
                _raise_first_error(list(self._client.ingest(name, [_to_new_item(item, own) for item in batch])))
            else:
                _raise_first_error(self._client.restore(name, batch, fingerprints))
            done += len(batch)
        self._report("Restoring items", done, manifest.items)

    def _batches(self, manifest: Manifest) -> Iterator[list[Item]]:
        batch: list[Item] = []
        size = 0
        for file in manifest.files:
            for item in decode_items(read_file(self._destination, file), manifest.spaces):
                weight = _size(item)
                if batch and (len(batch) == ITEMS_PER_CALL or size + weight > BYTES_PER_CALL):
                    yield batch
                    batch, size = [], 0
                batch.append(item)
                size += weight
        if batch:
            yield batch

    def _check_count(self, name: str, manifest: Manifest, *, into_existing: bool) -> None:
        items = self._client.count(name)
        if items < manifest.items or (items > manifest.items and not into_existing):
            raise BackupError(f"the backup has {manifest.items} items, the collection {name} now {items}")


def _space_to_create(space: Space, *, re_embed: bool) -> Space:
    """Return the space to create; embedding again may change dimensions, which `product_bytes` may not divide."""
    re_embedded = re_embed and bool(space.model)
    index = replace(space.index, product_bytes=0) if re_embedded and isinstance(space.index, IvfIndex) else space.index
    return replace(space, fingerprint="", dimensions=0 if re_embedded else space.dimensions, index=index)


def _to_new_item(item: Item, own: set[str]) -> NewItem:
    vectors = {name: vector for name, vector in item.vectors.items() if name in own}
    return NewItem(item.id, item.text, item.media, item.metadata or {}, vectors)


def _size(item: Item) -> int:
    return len(item.text or "") + len(str(item.metadata or "")) + sum(each.nbytes for each in item.vectors.values())


def _raise_first_error(results: Sequence[IngestResult]) -> None:
    for result in results:
        if result.error is not None:
            raise result.error
