"""What can be chosen of an index is checked before anything is made of it."""

import pytest

from services.common.errors import ArgumentError
from services.common.index_config import (
    Exact,
    Hnsw,
    IndexConfig,
    Ivf,
    ProductQuantization,
    VectorStorage,
    validate_index_config,
)


@pytest.mark.parametrize(
    "config",
    [
        *(IndexConfig(Exact(storage)) for storage in (VectorStorage.INT8, VectorStorage.FLOAT32)),
        *(IndexConfig(Hnsw(storage=storage)) for storage in VectorStorage),
        *(IndexConfig(Ivf(coding=storage)) for storage in VectorStorage),
        IndexConfig(Ivf(coding=ProductQuantization(16))),
    ],
)
def test_what_there_is_can_be_chosen(config: IndexConfig) -> None:
    assert validate_index_config(config, 64) is config


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (IndexConfig(Exact(VectorStorage.FLOAT16)), "index.exact.storage"),
        (IndexConfig(Hnsw(m=3)), "index.hnsw.m"),
        (IndexConfig(Ivf(nlist=4, nprobe=5)), "index.ivf.nprobe"),
        (IndexConfig(Ivf(coding=ProductQuantization(15))), "index.ivf.product_bytes"),
        (IndexConfig(exact_below_selectivity=float("nan")), "index.exact_below_selectivity"),
    ],
)
def test_what_there_is_not_is_refused_by_name(config: IndexConfig, name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        validate_index_config(config, 64)
