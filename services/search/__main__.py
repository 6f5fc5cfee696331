"""`python -m services.search`: run the search service until SIGTERM."""

import logging
from functools import partial

from prometheus_client import CollectorRegistry

from medley.v1 import search_service_pb2_grpc as pb_grpc
from services.common.process import run_process
from services.common.rpc.server import run_server, wait_for_signal
from services.search.settings import SearchSettings
from services.search.wiring import search_servicer

log = logging.getLogger(__name__)


async def main(settings: SearchSettings) -> None:
    """Serve until a signal comes."""
    metrics = CollectorRegistry() if settings.metrics_listen else None
    async with search_servicer(settings, metrics=metrics) as servicer:
        register = partial(pb_grpc.add_SearchServiceServicer_to_server, servicer)
        async with run_server(settings, "medley.v1.SearchService", register, metrics) as port:
            log.info("search listens on port %d", port)
            await wait_for_signal()


if __name__ == "__main__":
    run_process("search", lambda: main(SearchSettings()))
