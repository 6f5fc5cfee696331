"""How large a deployment must be: estimates from figures measured once."""

from medley.sizing.estimates import Estimate, Machine, Need, Plan, plan
from medley.sizing.reading import read_count, read_spaces

__all__ = ["Estimate", "Machine", "Need", "Plan", "plan", "read_count", "read_spaces"]
