"""Errors that only the store raises."""

from services.common.errors import (
    AlreadyExistsError,
    CorruptError,
    InvalidError,
    NotFoundError,
    PreconditionError,
)


class CollectionExistsError(AlreadyExistsError):
    """The name is taken by a collection with other spaces."""

    reason = "COLLECTION_EXISTS"

    def __init__(self, collection: str) -> None:
        super().__init__(f"collection {collection!r} exists with other spaces", collection=collection)


class MediaNotFoundError(NotFoundError):
    """No stored object has the hash."""

    reason = "MEDIA_NOT_FOUND"

    def __init__(self, sha256: str) -> None:
        super().__init__(f"no media {sha256!r}", sha256=sha256)


class MediaCorruptError(CorruptError):
    """An object's bytes have another hash than its name says."""

    reason = "MEDIA_CORRUPT"

    def __init__(self, sha256: str) -> None:
        super().__init__(f"media {sha256!r} are not the bytes that were stored", sha256=sha256)


class MediaWithoutUrlError(PreconditionError):
    """The media store has no URLs."""

    reason = "MEDIA_WITHOUT_URL"

    def __init__(self) -> None:
        super().__init__("media have URLs only where the store keeps them in an S3 bucket: download them instead")


class UploadIncompleteError(InvalidError):
    """Bytes of another size or hash than announced."""

    reason = "UPLOAD_INCOMPLETE"

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"announced {expected}, got {actual}", expected=expected, actual=actual)


class TagNotFoundError(NotFoundError):
    """The collection has no such tag."""

    reason = "TAG_NOT_FOUND"

    def __init__(self, tag: str, known: list[str]) -> None:
        tags = f"the tags are {', '.join(known)}" if known else "the collection has no tags"
        super().__init__(f"no tag {tag!r}: {tags}", tag=tag, known=",".join(known))


class TagExistsError(AlreadyExistsError):
    """The tag names another version."""

    reason = "TAG_EXISTS"

    def __init__(self, tag: str, version: str) -> None:
        super().__init__(f"tag {tag!r} names version {version!r} already: delete it first", tag=tag, version=version)


class RowsCorruptError(CorruptError):
    """Files of a collection's rows are missing."""

    reason = "ROWS_CORRUPT"

    def __init__(self, collection: str) -> None:
        super().__init__(f"files of the rows of {collection!r} are missing", collection=collection)


class StartupError(OSError):
    """The storage in the settings cannot be used; the message says why, and what to change."""
