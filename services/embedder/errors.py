"""What the embedder refuses, beside what every service refuses."""

from collections.abc import Iterable

from services.common.errors import InvalidError, NotFoundError, OverloadedError, ServiceUnavailableError


class ModelNotFoundError(NotFoundError):
    """The catalogue has no model of the name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        names = list(known)
        super().__init__(f"no model {model!r}; there are {', '.join(names)}", model=model, known=",".join(names))


class ModelFileError(ServiceUnavailableError):
    """A model's file is missing, altered, or not what its `model.json` says."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__("embedder", f"cannot use {path}: {problem}")


class TextError(InvalidError):
    """A text with nothing to embed, or too long."""

    reason = "TEXT_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"text {problem}", problem=problem)


class MediaError(InvalidError):
    """Bytes that are no picture we can show."""

    reason = "MEDIA_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"picture {problem}", problem=problem)


class TooManyPixelsError(OverloadedError):
    """A picture with more pixels than are decoded here."""

    reason = "MEDIA_TOO_LARGE"

    def __init__(self, pixels: int, limit: int) -> None:
        super().__init__(f"picture has {pixels} pixels, {limit} at most", pixels=str(pixels), limit=str(limit))


class TooManyBytesError(OverloadedError):
    """A picture file larger than is read here."""

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"picture has {size} bytes, {limit} at most", size=str(size), limit=str(limit))


class InputNotSupportedError(InvalidError):
    """The model does not embed this kind of content."""

    reason = "INPUT_NOT_SUPPORTED"

    def __init__(self, model: str, content_type: str) -> None:
        super().__init__(f"model {model!r} embeds no {content_type}", model=model, content_type=content_type)
