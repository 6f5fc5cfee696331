"""`python -m services.store`: run the store service until SIGTERM."""

import asyncio
import logging
import sys
from functools import partial

from pydantic import ValidationError

from medley.v1 import store_service_pb2_grpc as pb_grpc
from services.common.errors import ServiceUnavailableError
from services.common.server import ListenError, running, until_signalled
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer


async def main(settings: StoreSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with store_servicer(settings) as servicer:
        register = partial(pb_grpc.add_StoreServiceServicer_to_server, servicer)
        async with running(settings, "medley.v1.StoreService", register) as port:
            logging.info("store listens on port %d", port)
            await until_signalled()
            servicer.end_watches()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        asyncio.run(main(StoreSettings()))
    except (ListenError, ServiceUnavailableError, ValidationError, OSError) as error:
        sys.exit(f"store cannot start: {error}")
