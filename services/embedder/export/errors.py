"""Why a model could not be built, in words for whoever asked for it."""


class ExportError(Exception):
    """A model that cannot be built; the message says what to do about it."""


class AccuracyError(ExportError):
    """A model whose vectors, as exported, are too far from those of the original."""


def first_line(error: BaseException) -> str:
    """Return what `error` says, on one line and not too long."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:299]}…"
