"""Where tests run, when several processes run them: what shares a server stays together, so that it starts once."""

import pytest

SERVERS = ("milvus", "s3", "triton")
"""Markers of the tests that need a server besides Medley's own; `-m "not s3"` leaves them out."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a server in one process, and so those of a module that starts Medley's services."""
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str | None:
    for server in SERVERS:
        if item.get_closest_marker(server):
            return server
    folder, module = item.path.parts[-2:]
    return module if folder in ("integration", "e2e", "export") else None
