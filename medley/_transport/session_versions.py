"""The newest version token seen of each collection, so that a client reads what it wrote."""

import threading

from medley._transport.encode import collection_name


class SessionVersions:
    """Tokens by collection. Safe to share between threads."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    def of(self, collection: str) -> str:
        """Return the newest token seen of `collection`, "" if none."""
        return self._tokens.get(collection_name(collection), "")

    def seen(self, collection: str, token: str) -> None:
        """Keep `token` unless a newer one of the same collection is kept, as answers may overtake each other."""
        name = collection_name(collection)
        with self._lock:
            if token and not _older(token, self._tokens.get(name, "")):
                self._tokens[name] = token

    def forget(self, collection: str, token: str | None = None) -> None:
        """Forget what is kept of `collection`, or only `token`."""
        name = collection_name(collection)
        with self._lock:
            if token is None or self._tokens.get(name) == token:
                self._tokens.pop(name, None)


def _older(token: str, kept: str) -> bool:
    """Whether `token` is of the same life of a collection as `kept` and counts fewer commits."""
    life, _, commits = token.rpartition(".")
    kept_life, _, kept_commits = kept.rpartition(".")
    return life == kept_life and commits.isdecimal() and kept_commits.isdecimal() and int(commits) < int(kept_commits)
