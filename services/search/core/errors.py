"""Errors of search alone."""

from services.common.errors import DimensionError, PreconditionError, TokenError, UnavailableError, VectorError


class LeaseExpiredError(Exception):
    """A version that was held is held no more; whoever held it knows what that means to the caller."""


class VersionNotReachedError(UnavailableError):
    """The index did not get as far as asked in time."""

    reason = "VERSION_NOT_REACHED"

    def __init__(self, collection: str, wanted: str, applied: str) -> None:
        super().__init__(
            f"the index of {collection!r} is at version {applied or 'none'}, not yet at {wanted or 'any'}",
            wanted=wanted,
            applied=applied,
        )


class PageTokenError(TokenError):
    """A page token of another search than the one it came with."""

    def __init__(self, token: str, field: str) -> None:
        super().__init__(token)
        self.args = (f"page_token {token!r} is of a search with another {field}",)
        self.metadata["field"] = field


class BatchVectorError(VectorError):
    """A vector of a batch, by its place from 0, that cannot be compared."""

    def __init__(self, place: int, problem: str) -> None:
        super().__init__(f"{place} of the batch (from 0) {problem}")
        self.metadata |= {"place": str(place), "problem": problem}


class BatchDimensionError(DimensionError):
    """A vector of a batch, by its place from 0, whose length is not the space's."""

    def __init__(self, place: int, expected: int, actual: int) -> None:
        super().__init__(expected, actual)
        self.args = (f"vector {place} of the batch (from 0): expected {expected} dimensions, got {actual}",)
        self.metadata["place"] = str(place)


class IndexTooLargeError(PreconditionError):
    """An index does not fit the memory it is to lie in."""

    reason = "INDEX_TOO_LARGE"

    def __init__(self, where: str, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(
            f"the index needs {needed_bytes:,} bytes more on {where}, which has {available_bytes:,} left for it",
            needed_bytes=str(needed_bytes),
            available_bytes=str(available_bytes),
        )
        self._values = (where, needed_bytes, available_bytes)

    def anew(self) -> "IndexTooLargeError":
        """Return an equal error without a traceback, which would keep what did not fit from being freed."""
        return IndexTooLargeError(*self._values)
