"""`python -m services`: run all four services in this process until SIGTERM."""

import asyncio
import logging
import sys

from pydantic import ValidationError

from services.common.errors import ServiceUnavailableError
from services.common.server import ListenError, until_signalled
from services.settings import SuiteSettings
from services.wiring import suite


async def main(settings: SuiteSettings) -> None:
    """Serve until told to stop; say on standard output where, and when all is ready."""
    async with suite(settings) as addresses:
        for name, address in addresses.items():
            print(f"{name:<8} {address}")
        print("ready", flush=True)
        await until_signalled()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        asyncio.run(main(SuiteSettings()))
    except (ListenError, ServiceUnavailableError, ValidationError, OSError) as error:
        sys.exit(f"medley cannot start: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
