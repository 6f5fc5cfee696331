"""`python -m services.gateway`: run the gateway until SIGTERM."""

import logging
from functools import partial

from medley.v1 import gateway_service_pb2_grpc as pb_grpc
from services.common.process import run_process
from services.common.rpc.server import run_server, wait_for_signal
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import gateway_servicer


async def main(settings: GatewaySettings) -> None:
    """Serve until SIGTERM."""
    async with gateway_servicer(settings) as servicer:
        register = partial(pb_grpc.add_GatewayServiceServicer_to_server, servicer)
        async with run_server(settings, "medley.v1.GatewayService", register) as port:
            logging.info("gateway listens on port %d", port)
            await wait_for_signal()


if __name__ == "__main__":
    run_process("gateway", lambda: main(GatewaySettings()))
