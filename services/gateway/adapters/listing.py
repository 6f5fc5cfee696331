"""Reads paged lists."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from services.common.paging import MAX_PAGE_SIZE
from services.common.rpc.client import call

Listed = TypeVar("Listed")


async def list_all(
    service: str, method: Callable[..., Any], request: Callable[..., Any], items: Callable[[Any], Sequence[Listed]]
) -> list[Listed]:
    """Return the `items` of every page of a stub's `method`; `request` builds the request of a page."""
    found, token = list[Listed](), ""
    while True:
        page = await call(service, method, request(page_size=MAX_PAGE_SIZE, page_token=token))
        found += items(page)
        if not (token := page.next_page_token):
            return found
