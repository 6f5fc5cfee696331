"""Clocks and percentiles."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

T = TypeVar("T")

BLOCK = 25


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Return the percentiles of `seconds`."""
        return cls(statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=20)[-1] * 1e3)

    def __str__(self) -> str:
        return f"{self.p50:.2f} ({self.p95:.2f}) ms"


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(works: Sequence[Callable[[T], object]], inputs: Sequence[T], *, warm_up: int) -> list[Latency]:
    """Return the latency of each of `works` over `inputs`, alternating every `BLOCK` inputs so that load affects all.

    The first `warm_up` inputs are not counted.
    """
    taken: list[list[float]] = [[] for _ in works]
    for start in range(0, len(inputs), BLOCK):
        for times, work in zip(taken, works, strict=True):
            times.extend(seconds(partial(work, each)) for each in inputs[start : start + BLOCK])
    return [Latency.of(times[warm_up:]) for times in taken]


def best(works: Iterable[Callable[[], object]], rounds: int) -> list[float]:
    """Return the shortest time of each of `works` over `rounds` rounds, taking turns."""
    listed = list(works)
    times = [[seconds(work) for work in listed] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]
