"""Errors of building models, with messages for users."""


class ExportError(Exception):
    """A model cannot be built; the message says what to do."""


class AccuracyError(ExportError):
    """The vectors of an exported model differ too much from the original's."""


def first_line(error: BaseException) -> str:
    """Return the message of `error` on one line, truncated."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:299]}…"
