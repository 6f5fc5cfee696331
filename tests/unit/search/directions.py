"""Vectors that lie mostly along few directions, as those of models do, always the same ones."""

import numpy as np

from services.common.vectors import Matrix

DIMENSIONS, DIRECTIONS = 256, 24


def along_few_directions(random: np.random.Generator, count: int, noise: float) -> Matrix:
    """Return `count` vectors, `noise` away from the directions in each dimension."""
    axes = np.random.default_rng(1).standard_normal((DIRECTIONS, DIMENSIONS))
    vectors = random.standard_normal((count, DIRECTIONS)) @ axes / 5 + noise * random.standard_normal(
        (count, DIMENSIONS)
    )
    return vectors.astype(np.float32)
