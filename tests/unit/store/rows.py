"""Rows and tables to test with."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from services.common.content import ContentType
from services.common.vectors import Matrix, Metric
from services.store.core.rows import CollectionSchema, Row, Space

NOW = datetime(2026, 5, 6, tzinfo=UTC)
SPACES = (
    Space("clip", 2, Metric.COSINE, "medley-mini", (ContentType.IMAGE, ContentType.TEXT), "p"),
    Space("text", 2, Metric.COSINE, "minilm", (ContentType.TEXT,), "q"),
    Space("own", 2, Metric.DOT_PRODUCT),
)
PHOTOS = CollectionSchema("collections/photos", "u1", SPACES, NOW)


def row(row_id: str, **fields: Any) -> Row:
    return Row(row_id, **{"content": ContentType.TEXT, "text": "a text", "revision": 1, **fields})


def vectors(*names: str) -> dict[str, Matrix]:
    return {name: vector(1, 2) for name in names}


def vector(*components: float) -> Matrix:
    return np.array(components, np.float32)


def ids(rows: Sequence[Row]) -> list[str]:
    return [each.id for each in rows]
