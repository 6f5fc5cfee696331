"""Capacity planning: estimates of memory, time and machines from measured constants."""

from medley.sizing.estimates import Estimate, Machine, Plan, Workload, build_plan
from medley.sizing.parsing import parse_count, parse_spaces

__all__ = ["Estimate", "Machine", "Plan", "Workload", "build_plan", "parse_count", "parse_spaces"]
