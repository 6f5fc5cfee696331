"""How far an index is behind what is known of the store."""

import time
from collections.abc import Callable

from services.common.versions import Version


class Lag:
    """For how long the store has been known to hold a version that is not applied yet.

    Such a version shows in two ways: its changes begin to come, or the store names it as its newest. Of the named ones
    only the first is remembered, so that after it is applied the lag may be told too short until the next is named.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._applied: Version | None = None
        self._change_since: float | None = None
        self._observed: tuple[Version, float] | None = None

    @property
    def seconds(self) -> float:
        """The time since then; 0 where the newest version known is applied."""
        observed_since = self._observed[1] if self._observed else None
        known = [since for since in (self._change_since, observed_since) if since is not None]
        return self._clock() - min(known) if known else 0.0

    def change_started(self) -> None:
        """A part of a change has come that is not applied yet."""
        if self._change_since is None:
            self._change_since = self._clock()

    def observe(self, newest: Version) -> None:
        """The store says that `newest` is its newest version."""
        if self._observed and self._observed[0].uid != newest.uid:
            self._observed = None  # of a collection dropped since, or of one not made yet when this was said
        if self._observed is None and not self._holds(newest):
            self._observed = newest, self._clock()

    def applied(self, version: Version) -> None:
        """The index holds `version`, and all that has come."""
        self._applied, self._change_since = version, None
        if self._observed and (self._observed[0].uid != version.uid or self._holds(self._observed[0])):
            self._observed = None

    def _holds(self, version: Version) -> bool:
        applied = self._applied
        return applied is not None and applied.uid == version.uid and applied.number >= version.number
