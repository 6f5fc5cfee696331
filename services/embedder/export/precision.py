"""The precisions of built models."""

from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
