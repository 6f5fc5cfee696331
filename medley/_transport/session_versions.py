"""The newest version token seen of each collection, for read-your-writes."""

import threading

from medley._transport.encode import collection_name


class SessionVersions:
    """Tokens by collection. Safe to share between threads."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, collection: str) -> str:
        """Return the newest token recorded for `collection`, "" if none."""
        return self._tokens.get(collection_name(collection), "")

    def record(self, collection: str, token: str) -> None:
        """Keep `token` unless a newer one of the same collection is kept: responses may arrive out of order."""
        name = collection_name(collection)
        with self._lock:
            if token and not _older(token, self._tokens.get(name, "")):
                self._tokens[name] = token

    def forget(self, collection: str, token: str | None = None) -> None:
        """Forget the token of `collection`; with `token`, only if it is the one kept."""
        name = collection_name(collection)
        with self._lock:
            if token is None or self._tokens.get(name) == token:
                self._tokens.pop(name, None)


def _older(token: str, kept: str) -> bool:
    """Whether `token` has the same uid as `kept`, that is, is of the same incarnation, and counts fewer commits."""
    uid, _, commits = token.rpartition(".")
    kept_uid, _, kept_commits = kept.rpartition(".")
    return uid == kept_uid and commits.isdecimal() and kept_commits.isdecimal() and int(commits) < int(kept_commits)
