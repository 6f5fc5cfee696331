"""Errors of the embedder, besides those common to all services."""

from collections.abc import Iterable

from services.common.errors import NotFoundError, OverloadedError, ServiceUnavailableError


class ModelNotFoundError(NotFoundError):
    """The catalog has no model of the name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        names = list(known)
        super().__init__(f"no model {model!r}; there are {', '.join(names)}", model=model, known=",".join(names))


class ModelFileError(ServiceUnavailableError):
    """A model's file is missing, altered, or not what its `model.json` says."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__("embedder", f"cannot use {path}: {problem}")


class TooManyPixelsError(OverloadedError):
    """A picture with more pixels than the limit."""

    reason = "MEDIA_TOO_LARGE"

    def __init__(self, pixels: int, limit: int) -> None:
        super().__init__(f"picture has {pixels} pixels, {limit} at most", pixels=str(pixels), limit=str(limit))
