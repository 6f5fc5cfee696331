"""`python -m services.store`: run the store service until SIGTERM."""

import logging
from functools import partial

from medley.v1 import store_service_pb2_grpc as pb_grpc
from services.common.process import run_process
from services.common.rpc.server import run_server, wait_for_signal
from services.store.settings import StoreSettings
from services.store.wiring import store_servicer


async def main(settings: StoreSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with store_servicer(settings) as servicer:
        register = partial(pb_grpc.add_StoreServiceServicer_to_server, servicer)
        async with run_server(settings, "medley.v1.StoreService", register) as port:
            logging.info("store listens on port %d", port)
            await wait_for_signal()
            servicer.end_watches()


if __name__ == "__main__":
    run_process("store", lambda: main(StoreSettings()))
