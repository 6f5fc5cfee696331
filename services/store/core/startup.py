"""Why a store does not start."""


class CannotStartError(OSError):
    """What the settings name cannot be used as it is; the message says what is wrong and what helps."""
