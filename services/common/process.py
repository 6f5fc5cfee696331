"""Running a service as a process: how it logs, and how it says that it cannot start."""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import ValidationError

from services.common.errors import ServiceUnavailableError
from services.common.metrics import MetricsAddressError
from services.common.server import ListenError

INTERRUPTED = 130


def run_process(name: str, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run what `serve` returns to its end; what keeps `name` from starting is one line and exit code 1."""
    # Python's defaults look for cycles every 700 objects, and here there are hardly any: 5 % of an ingest's time.
    gc.set_threshold(50_000, 20, 20)
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells of every variant for processors that are not here
    try:
        asyncio.run(serve())
    except (ListenError, MetricsAddressError, ServiceUnavailableError, ValidationError, OSError) as error:
        sys.exit(f"{name} cannot start: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
