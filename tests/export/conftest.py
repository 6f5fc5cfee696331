"""Tests of building models need what builds them, and say so where it is not there."""

from importlib.util import find_spec

import pytest

NEEDED = ("torch", "transformers", "onnx", "huggingface_hub")
MISSING = [name for name in NEEDED if find_spec(name) is None]

collect_ignore = ["tiny.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the extra `export`, and leave other packages' warnings to them."""
    for item in items:
        if "tests/export/" not in item.path.as_posix():
            continue
        item.add_marker(pytest.mark.filterwarnings("default"))
