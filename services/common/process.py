"""Running a service as a process: logging, and errors at startup."""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from services.common.errors import ServiceUnavailableError
from services.common.rpc.metrics import MetricsAddressError
from services.common.rpc.server import ListenError

INTERRUPTED = 130


def run_process(name: str, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine of `serve`; an error at the startup of `name` prints one line and exits with code 1."""
    # By default Python looks for reference cycles every 700 objects, which takes 5 % of an ingest and finds hardly any.
    gc.set_threshold(50_000, 20, 20)
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it logs every CPU variant that it does not find
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except ValidationError as error:
        sys.exit(f"{name} cannot start: {_problems(error)}")
    except (ListenError, MetricsAddressError, ServiceUnavailableError, OSError) as error:
        sys.exit(f"{name} cannot start: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _problems(error: ValidationError) -> str:
    """Describe invalid settings on one line, by the variables' names, without values: some are secret."""
    prefix = error.title.removesuffix("Settings").upper()
    return "; ".join(_problem(prefix, fault) for fault in error.errors(include_url=False, include_input=False))


def _problem(prefix: str, fault: ErrorDetails) -> str:
    if not fault["loc"]:
        return fault["msg"].removeprefix("Value error, ")
    name = str(fault["loc"][0])
    return f"{name if name.startswith(prefix) else f'{prefix}_{name.upper()}'}: {fault['msg']}"
