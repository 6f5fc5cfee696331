"""Version tokens: a commit of a collection."""

from dataclasses import dataclass
from typing import Self

from services.common.errors import TokenError


@dataclass(frozen=True, slots=True)
class Version:
    """Commit `number` of the collection created with `uid`; only versions with the same `uid` are comparable."""

    uid: str
    number: int

    @classmethod
    def parse(cls, token: str) -> Self:
        """Parse `token`.

        Raises:
            TokenError: it is not a version token.
        """
        uid, dot, number = token.partition(".")
        if not (dot and uid.isalnum() and number.isascii() and number.isdigit()):
            raise TokenError(token)
        return cls(uid, int(number))

    def __str__(self) -> str:
        return f"{self.uid}.{self.number}"
