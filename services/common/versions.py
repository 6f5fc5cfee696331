"""Version tokens: which commit of which collection."""

from dataclasses import dataclass
from typing import Self

from services.common.errors import TokenError


@dataclass(frozen=True, slots=True)
class Version:
    """Commit `number` of the collection whose creation was given `uid`; only versions of one `uid` compare."""

    uid: str
    number: int

    @classmethod
    def parse(cls, token: str) -> Self:
        """Return the version that `token` spells.

        Raises:
            TokenError: it spells none.
        """
        uid, dot, number = token.partition(".")
        if not (dot and uid.isalnum() and number.isascii() and number.isdigit()):
            raise TokenError(token)
        return cls(uid, int(number))

    def __str__(self) -> str:
        return f"{self.uid}.{self.number}"
