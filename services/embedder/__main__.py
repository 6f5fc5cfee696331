"""`python -m services.embedder`: run the embedder until SIGTERM."""

import logging
from functools import partial

from medley.v1 import embedder_service_pb2_grpc as pb_grpc
from services.common.process import run_process
from services.common.rpc.server import run_server, wait_for_signal
from services.embedder.settings import EmbedderSettings
from services.embedder.wiring import embedder_servicer


async def main(settings: EmbedderSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with embedder_servicer(settings) as servicer:
        register = partial(pb_grpc.add_EmbedderServiceServicer_to_server, servicer)
        async with run_server(settings, "medley.v1.EmbedderService", register) as port:
            logging.info("embedder listens on port %d", port)
            await wait_for_signal()


if __name__ == "__main__":
    run_process("embedder", lambda: main(EmbedderSettings()))
