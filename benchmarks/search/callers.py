"""Many callers at a time, in a process of their own, so that they take nothing of the one that measures them.

Requests are made ahead and answers are read after the clock has stopped: what the callers cost is gRPC alone.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc

from benchmarks.timing import Latency

METHOD = "/medley.v1.SearchService/SearchIndex"
WARM_UP = 50


@dataclass(frozen=True, slots=True)
class Load:
    """What some callers got: answers a second, how long they waited, what they cost.

    `answers` are pairs: number of the request, and what came.
    """

    rate: float
    latency: Latency
    client_ms: float
    answers: Sequence[tuple[int, bytes]]


def load(address: str, requests: Sequence[bytes], callers: int, seconds: float) -> Load:
    """Ask `address` by `callers` callers for `seconds`, each waiting for its answer before it asks again."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_load, (address, requests, callers, seconds))


def _load(address: str, requests: Sequence[bytes], callers: int, seconds: float) -> Load:
    return asyncio.run(_asked(address, requests, callers, seconds))


async def _asked(address: str, requests: Sequence[bytes], callers: int, seconds: float) -> Load:
    taken: list[float] = []
    answers: list[tuple[int, bytes]] = []
    numbers = count()
    async with grpc.aio.insecure_channel(address) as channel:
        ask: Any = channel.unary_unary(METHOD)  # bytes in, bytes out

        async def caller(until: float) -> None:
            while (began := time.perf_counter()) < until:
                number = next(numbers) % len(requests)
                answers.append((number, await ask(requests[number])))
                taken.append(time.perf_counter() - began)

        for warm_up in range(WARM_UP):
            await ask(requests[warm_up % len(requests)])
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(began + seconds) for _ in range(callers)))
        elapsed, spent = time.perf_counter() - began, time.process_time() - spent
    return Load(len(taken) / elapsed, Latency.of(taken), 1e3 * spent / len(taken), answers)
