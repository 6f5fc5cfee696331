"""Task groups and background tasks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from services.common.errors import ServiceError

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A `TaskGroup` that raises the first error of its tasks as it is, not a group of errors."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        raise _first(failed) from None


async def gather(coroutines: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run `coroutines` concurrently and return their results, in order; the first error cancels the others."""
    async with task_group() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
    return [task.result() for task in tasks]


@asynccontextmanager
async def background_tasks(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `coroutines` while the block runs; cancel them at its end and wait until they finish."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_periodically(work: Callable[[], Awaitable[object]], seconds: float, name: str) -> None:
    """Run `work` every `seconds`, first after `seconds`; errors are logged under `name`."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except ServiceError as error:
            log.warning("%s failed, retrying in %g s: %s", name, seconds, error)
        except Exception:
            log.exception("%s failed, retrying in %g s", name, seconds)


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
