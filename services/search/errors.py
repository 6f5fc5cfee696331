"""Errors of search alone."""

from services.common.errors import UnavailableError


class VersionNotReachedError(UnavailableError):
    """The index did not get as far as asked in time."""

    reason = "VERSION_NOT_REACHED"

    def __init__(self, collection: str, wanted: str, applied: str) -> None:
        super().__init__(
            f"the index of {collection!r} is at version {applied or 'none'}, not yet at {wanted or 'any'}",
            wanted=wanted,
            applied=applied,
        )
