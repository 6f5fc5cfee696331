import asyncio

import numpy as np

from services.common.concurrency.dynamic_batcher import BatchPolicy
from services.common.vectors import Matrix
from services.embedder.inference.batching import BatchedEncoder
from tests.unit.embedder.encoders import HeldTensorEncoder, settle


def rows(*values: float) -> Matrix:
    return np.array([[value] for value in values], np.float32).reshape(-1, 1)


async def start(encoder: BatchedEncoder, *values: float) -> asyncio.Task[Matrix]:
    task = asyncio.create_task(encoder.encode(rows(*values)))
    await settle()
    return task


async def test_an_idle_encoder_starts_at_once() -> None:
    inner = HeldTensorEncoder()
    task = await start(BatchedEncoder(inner, BatchPolicy(4, 1)), 1)
    assert inner.batches == [[1]]
    inner.gate.set()
    assert (await task).tolist() == [[1]]


async def test_what_comes_while_busy_makes_the_next_batch() -> None:
    inner = HeldTensorEncoder()
    encoder = BatchedEncoder(inner, BatchPolicy(4, 1))
    tasks = [await start(encoder, *values) for values in ((1,), (2,), (3, 4), (5, 6))]
    assert inner.batches == [[1]]
    inner.gate.set()
    assert [vectors.ravel().tolist() for vectors in await asyncio.gather(*tasks)] == [[1], [2], [3, 4], [5, 6]]
    assert inner.batches == [[1], [2, 3, 4, 5], [6]]


async def test_rows_of_a_cancelled_call_are_left_out() -> None:
    inner = HeldTensorEncoder()
    encoder = BatchedEncoder(inner, BatchPolicy(4, 1))
    first, gone, last = [await start(encoder, *values) for values in ((1,), (2, 3), (4,))]
    gone.cancel()
    inner.gate.set()
    assert (await last).tolist() == [[4]]
    await first
    assert inner.batches == [[1], [4]]


async def test_no_rows_need_no_batch() -> None:
    inner = HeldTensorEncoder()
    inner.gate.set()
    assert (await BatchedEncoder(inner, BatchPolicy(4, 1)).encode(rows())).shape == (0, 1)
