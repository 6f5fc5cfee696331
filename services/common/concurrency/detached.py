"""Tasks that are independent of the call that starts them."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

from services.common.deadlines import set_deadline

T = TypeVar("T")


def create_detached_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `work` in a task without the deadline of the call that starts it."""
    context = contextvars.copy_context()
    context.run(set_deadline, None)
    return asyncio.get_running_loop().create_task(work, context=context)
