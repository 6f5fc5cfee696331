"""Errors that are part of the API. Free of gRPC: `rpc.statuses` maps each kind to a status."""

from services.common.content import ContentType


class ServiceError(Exception):
    """Base class of every error that is part of the API.

    `reason` is the machine-readable name a client may branch on, a value of `medley.v1.ErrorReason`; `metadata` names
    the values involved.
    """

    reason: str

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata


class NotFoundError(ServiceError):
    """The named thing does not exist."""


class InvalidError(ServiceError):
    """The request is invalid, whatever the state of the system."""


class AlreadyExistsError(ServiceError):
    """The thing to create exists already."""


class PreconditionError(ServiceError):
    """The system is not in the state that the request needs; a retry does not help."""


class ConflictError(ServiceError):
    """A concurrent write came first; reading again and retrying helps."""


class OverloadedError(ServiceError):
    """A limit is reached; fewer, smaller or later requests help."""

    reason = "OVERLOADED"


class UnavailableError(ServiceError):
    """A backend cannot answer now; the same call may succeed later."""


class CorruptError(ServiceError):
    """Stored data is damaged or missing; only a backup helps."""


class DeadlineError(ServiceError):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class CollectionNotFoundError(NotFoundError):
    """No collection has the name."""

    reason = "COLLECTION_NOT_FOUND"

    def __init__(self, collection: str) -> None:
        super().__init__(f"no collection {collection!r}", collection=collection)


class SpaceNotFoundError(NotFoundError):
    """The collection has no space of the name."""

    reason = "SPACE_NOT_FOUND"

    def __init__(self, space: str, known: list[str]) -> None:
        super().__init__(f"no space {space!r}; there are {', '.join(known)}", space=space, known=",".join(known))


class ItemNotFoundError(NotFoundError):
    """No item has the id."""

    reason = "ITEM_NOT_FOUND"

    def __init__(self, item_id: str) -> None:
        super().__init__(f"no item {item_id!r}", id=item_id)


class ArgumentError(InvalidError):
    """A name, size, range or choice is not allowed."""

    reason = "ARGUMENT_INVALID"

    def __init__(self, field: str, value: object, problem: str) -> None:
        super().__init__(f"{field} {value!r}: {problem}", field=field, value=str(value), problem=problem)


class IdError(InvalidError):
    """An invalid item id."""

    reason = "ID_INVALID"

    def __init__(self, item_id: str, problem: str) -> None:
        shown = item_id if len(item_id) <= 64 else f"{item_id[:64]}…"
        super().__init__(f"id {shown!r} {problem}", id=shown, problem=problem)


class DuplicateIdError(InvalidError):
    """An id that occurs twice in a batch."""

    reason = "ID_DUPLICATE"

    def __init__(self, item_id: str) -> None:
        super().__init__(f"id {item_id!r} came before in this batch", id=item_id)


class DimensionError(InvalidError):
    """A vector's length is not its space's."""

    reason = "DIMENSION_MISMATCH"

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"expected {expected} dimensions, got {actual}", expected=str(expected), actual=str(actual))


class VectorError(InvalidError):
    """A vector that no metric can compare."""

    reason = "VECTOR_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"vector {problem}", problem=problem)


class FingerprintError(PreconditionError):
    """Vectors of another model, runtime or preprocessing."""

    reason = "FINGERPRINT_MISMATCH"

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(
            f"vectors have fingerprint {actual!r}, the space has {expected!r}", expected=expected, actual=actual
        )


class FilterError(InvalidError):
    """A filter with an unknown operator, or an operand that cannot be compared."""

    reason = "FILTER_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"filter: {problem}", problem=problem)


class TokenError(InvalidError):
    """An invalid page token or version token."""

    reason = "TOKEN_INVALID"

    def __init__(self, token: str) -> None:
        super().__init__(f"token {token!r} cannot be read", token=token)


class TextError(InvalidError):
    """A text that is empty, too long, or not valid Unicode."""

    reason = "TEXT_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"text {problem}", problem=problem)


class MediaError(InvalidError):
    """Bytes that are not a media file of a supported format."""

    reason = "MEDIA_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"media {problem}", problem=problem)


class ItemEmptyError(InvalidError):
    """An item without text, media and vectors."""

    reason = "ITEM_EMPTY"

    def __init__(self, item_id: str) -> None:
        super().__init__(f"item {item_id!r} has no text, no media and no vector", id=item_id)


class InputNotSupportedError(InvalidError):
    """A kind of content that a model or space does not accept."""

    reason = "INPUT_NOT_SUPPORTED"

    def __init__(self, refusal: str, model: str, content_type: ContentType) -> None:
        """`refusal` begins the message, such as "model 'clip' does not take"."""
        super().__init__(f"{refusal} {content_type.value}", model=model, content_type=content_type.value)


class MetadataError(InvalidError):
    """Metadata that is not a JSON object, or too large or too deep."""

    reason = "METADATA_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"metadata {problem}", problem=problem)


class VersionUnknownError(PreconditionError):
    """A version token of a collection that was dropped since."""

    reason = "VERSION_UNKNOWN"

    def __init__(self, collection: str, version: str) -> None:
        super().__init__(
            f"version {version!r} is not one of {collection!r}: was it dropped and made again?",
            collection=collection,
            version=version,
        )


class VersionExpiredError(PreconditionError):
    """A version, of a collection or held for a search, that has been garbage-collected."""

    reason = "VERSION_EXPIRED"

    def __init__(self, collection: str, version: str) -> None:
        super().__init__(
            f"version {version!r} of {collection!r} is no longer kept: start again from the newest; tags keep versions",
            collection=collection,
            version=version,
        )


class RevisionError(ConflictError):
    """The row was changed by a concurrent write."""

    reason = "REVISION_MISMATCH"

    def __init__(self, item_id: str, expected: int, actual: int) -> None:
        super().__init__(
            f"item {item_id!r} has revision {actual}, not {expected}",
            id=item_id,
            expected=str(expected),
            actual=str(actual),
        )


class ServiceUnavailableError(UnavailableError):
    """A service or backend does not answer."""

    reason = "SERVICE_UNAVAILABLE"

    def __init__(self, service: str, problem: str = "does not answer") -> None:
        super().__init__(f"{service} {problem}", service=service)


class MessageTooLargeError(OverloadedError):
    """A message, file or response with too many bytes; smaller ones, or fewer at a time, help."""

    reason = "MESSAGE_TOO_LARGE"


class StorageFullError(OverloadedError):
    """The disk or bucket is full."""

    reason = "STORAGE_FULL"

    def __init__(self, path: str) -> None:
        super().__init__(f"no space left at {path}", path=path)
