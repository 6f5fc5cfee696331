"""`python -m benchmarks.search.raw_server VECTORS ADDRESS`: raw FAISS behind the smallest gRPC server there can be.

It answers SearchIndex with messages of the same size as Medley's and looks at nothing but the vector.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import faiss
import grpc
import numpy as np

from medley.v1 import search_service_pb2 as pb

SERVICE, METHOD = "medley.v1.SearchService", "SearchIndex"
THREADS = 4  # as many as Medley searches with


def main(vectors: str, address: str) -> None:
    """Serve until killed."""
    held = np.load(vectors)
    index = faiss.IndexFlatIP(held.shape[1])
    index.add(held)

    def search(request: pb.SearchIndexRequest, _: grpc.ServicerContext) -> pb.SearchIndexResponse:
        faiss.omp_set_num_threads(1)
        query = np.frombuffer(request.vector.float32_le, np.float32)[None]
        scores, rows = index.search(query, 10)
        pairs = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return pb.SearchIndexResponse(
            hits=[pb.IndexHit(id=str(row), score=score, spaces=["name"]) for row, score in pairs]
        )

    serialise, parse = pb.SearchIndexResponse.SerializeToString, pb.SearchIndexRequest.FromString
    handler = grpc.unary_unary_rpc_method_handler(search, parse, serialise)
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})])
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
