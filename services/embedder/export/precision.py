"""Precisions that a model may be built in."""

from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
