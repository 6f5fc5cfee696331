"""The filters asked: one that half of the items pass, one for one in eighty, one for one in two thousand."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """Items whose metadata field `field` equals `value`, about `share` of all."""

    label: str
    field: str
    value: str
    share: float


CONDITIONS = (
    Condition("48 %", "masterCategory", "Apparel", 0.48),
    Condition("1.3 %", "baseColour", "Maroon", 0.013),
    Condition("0.05 %", "masterCategory", "Sporting Goods", 0.0005),
)
