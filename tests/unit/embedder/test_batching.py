import asyncio

import numpy as np
import pytest

from services.common.deadlines import deadline_in
from services.common.errors import OverloadedError
from services.common.vectors import Matrix
from services.embedder.batching import BatchedEncoder
from tests.unit.embedder.encoders import HeldTensorEncoder, settle


def rows(*values: float) -> Matrix:
    return np.array([[value] for value in values], np.float32).reshape(-1, 1)


async def start(encoder: BatchedEncoder, *values: float) -> asyncio.Task[Matrix]:
    task = asyncio.create_task(encoder.encode(rows(*values)))
    await settle()
    return task


async def test_an_idle_encoder_starts_at_once() -> None:
    inner = HeldTensorEncoder()
    task = await start(BatchedEncoder(inner, max_batch=4, lanes=1), 1)
    assert inner.batches == [[1]]
    inner.gate.set()
    assert (await task).tolist() == [[1]]


async def test_what_comes_while_busy_makes_the_next_batch() -> None:
    inner = HeldTensorEncoder()
    encoder = BatchedEncoder(inner, max_batch=4, lanes=1)
    tasks = [await start(encoder, *values) for values in ((1,), (2,), (3, 4), (5, 6))]
    assert inner.batches == [[1]]
    inner.gate.set()
    assert [vectors.ravel().tolist() for vectors in await asyncio.gather(*tasks)] == [[1], [2], [3, 4], [5, 6]]
    assert inner.batches == [[1], [2, 3, 4, 5], [6]]


async def test_as_many_batches_run_as_there_are_lanes() -> None:
    inner = HeldTensorEncoder()
    task = await start(BatchedEncoder(inner, max_batch=2, lanes=2), 1, 2, 3, 4, 5)
    assert inner.batches == [[1, 2], [3, 4]]
    inner.gate.set()
    assert (await task).ravel().tolist() == [1, 2, 3, 4, 5]


async def test_rows_of_a_cancelled_call_are_left_out() -> None:
    inner = HeldTensorEncoder()
    encoder = BatchedEncoder(inner, max_batch=4, lanes=1)
    first, gone, last = [await start(encoder, *values) for values in ((1,), (2, 3), (4,))]
    gone.cancel()
    inner.gate.set()
    assert (await last).tolist() == [[4]]
    await first
    assert inner.batches == [[1], [4]]


async def test_cancelling_one_call_leaves_the_others_of_its_batch() -> None:
    inner = HeldTensorEncoder()
    encoder = BatchedEncoder(inner, max_batch=4, lanes=1)
    block, gone, stays = [await start(encoder, value) for value in (1, 2, 3)]
    inner.gate.set()
    await block
    gone.cancel()
    assert (await stays).tolist() == [[3]]


async def test_an_error_reaches_every_call_of_the_batch_and_frees_the_lane() -> None:
    inner = HeldTensorEncoder()
    encoder = BatchedEncoder(inner, max_batch=4, lanes=1)
    inner.error = OverloadedError("too much")
    inner.gate.set()
    outcomes = await asyncio.gather(*(encoder.encode(rows(value)) for value in (1, 2)), return_exceptions=True)
    assert outcomes == [inner.error, inner.error]
    inner.error = None
    assert (await encoder.encode(rows(3))).tolist() == [[3]]


async def test_a_batch_has_no_callers_deadline() -> None:
    inner = HeldTensorEncoder()
    inner.gate.set()
    with deadline_in(1.0):
        await BatchedEncoder(inner, max_batch=4, lanes=1).encode(rows(1))
    assert inner.seconds_left == [1000]


async def test_when_work_is_cancelled_from_below_so_are_its_calls() -> None:
    class Stopped(HeldTensorEncoder):
        async def encode(self, rows: Matrix) -> Matrix:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await BatchedEncoder(Stopped(), max_batch=4, lanes=1).encode(rows(1))


async def test_no_rows_need_no_batch() -> None:
    inner = HeldTensorEncoder()
    inner.gate.set()
    assert (await BatchedEncoder(inner, max_batch=4, lanes=1).encode(rows())).shape == (0, 1)
