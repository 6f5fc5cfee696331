"""One suite for all tests of this folder that do not need their own, and a catalogue to fill it with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from medley.demo.catalog import Product, generate_catalog
from tests.e2e.commands import Medley, up


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a suite that `medley up` runs."""
    with up(tmp_path_factory.mktemp("suite")) as address:
        yield address


@pytest.fixture
def medley(server: str, tmp_path: Path) -> Medley:
    """Commands against the suite, in an empty folder."""
    return Medley(server, tmp_path)


@pytest.fixture(scope="session")
def products() -> list[Product]:
    """Return some products to ingest."""
    return list(generate_catalog(40))
