"""Page sizes and page tokens of lists ordered by a string key."""

import base64
import binascii

from services.common.errors import ArgumentError, TokenError

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def validate_page_size(requested: int) -> int:
    """Return the page size for a request's `page_size`; 0 means the default.

    Raises:
        ArgumentError: it is negative or over `MAX_PAGE_SIZE`.
    """
    if not 0 <= requested <= MAX_PAGE_SIZE:
        raise ArgumentError("page_size", requested, f"must be 0 to {MAX_PAGE_SIZE}")
    return requested or DEFAULT_PAGE_SIZE


def encode_page_token(last_key: str) -> str:
    """Return the token of the page that starts after `last_key`."""
    return base64.urlsafe_b64encode(b"k" + last_key.encode()).decode()


def decode_page_token(token: str) -> str | None:
    """Return the key after which the page of `token` starts; None for the empty token of the first page.

    Raises:
        TokenError: `encode_page_token` did not return it.
    """
    if not token:
        return None
    try:
        marked = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise TokenError(token) from error
    if not marked.startswith("k"):
        raise TokenError(token)
    return marked[1:]
