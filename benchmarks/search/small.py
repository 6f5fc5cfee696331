"""All figures at the size of a shop: tens of thousands of items, written through the store."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import medley as sdk
from benchmarks.processes import Suite, four_processes, free_ports, private_bytes, process, ready
from benchmarks.search.corpus import Corpus, Matrix
from benchmarks.search.figures import Line
from benchmarks.search.floors import RawFlat, RawHnsw
from benchmarks.search.latencies import exact_lines, hnsw_lines, metadata_lines
from benchmarks.search.rates import Served, batch_lines, caller_lines
from benchmarks.search.service import NAME, ROWS_A_WRITE, SPACE, Search, Store, channel
from benchmarks.search.starts import start_line
from benchmarks.search.truth import TOP_K, Truth
from benchmarks.search.writes import memory_line, visible_line
from benchmarks.timing import seconds
from medley.v1 import index_config_pb2


def measured(corpus: Corpus, folder: Path, figure_seconds: float) -> list[Line]:
    """Return every line for `corpus`; `folder` takes the services' data, and each rate `figure_seconds`."""
    corpus.save(folder)
    truth, raw = Truth(corpus), RawFlat(corpus.vectors)
    with ExitStack() as stack:
        suite = stack.enter_context(four_processes(folder))
        ready(suite)
        opened = {name: stack.enter_context(channel(suite.addresses[name])) for name in ("store", "search")}
        client = stack.enter_context(sdk.Client(suite.server))
        near = stack.enter_context(_raw_server(folder))
        store, medley = Store(opened["store"]), Search(opened["search"])
        raw_over_grpc = Search(stack.enter_context(channel(near.address)))
        store.create(corpus.vectors.shape[1])
        medley.reached(corpus.queries[0], store.fill(corpus.first(ROWS_A_WRITE)))
        warm_mib = private_bytes(suite.processes["services.search"]) / 2**20
        began = time.perf_counter()
        version = store.fill(corpus, ROWS_A_WRITE)
        medley.reached(corpus.queries[0], version)
        filled = time.perf_counter() - began
        memory = memory_line(corpus, suite, warm_mib, medley)
        medley.ready("exact")

        def gateway(query: Matrix) -> list[int]:
            found = client.search(NAME, vector=query, space=SPACE, top_k=TOP_K, version="")
            return [int(hit.item.id) for hit in found.hits]

        lines = exact_lines(corpus, truth, raw, raw_over_grpc, medley)
        lines += metadata_lines(corpus, store, medley, gateway)
        lines += caller_lines(corpus, truth, near, _search_of(suite), figure_seconds)
        lines += batch_lines(corpus, truth, raw, medley)
        lines.append(memory)
        lines.append(visible_line(corpus, store, medley))
        lines.append(Line("all items written and searchable", medley=f"{filled:.1f} s"))
        lines.append(start_line(corpus, suite.addresses["store"], version))
        lines += _hnsw(corpus, truth, store, medley)
    return lines


def _hnsw(corpus: Corpus, truth: Truth, store: Store, medley: Search) -> list[Line]:
    hnsw = index_config_pb2.IndexConfig(hnsw=index_config_pb2.HnswIndex())
    store.index(hnsw)
    built = seconds(lambda: medley.ready("hnsw"))
    graphs: list[RawHnsw] = []
    raw_built = seconds(lambda: graphs.append(RawHnsw(corpus.vectors, os.cpu_count() or 1)))
    if medley.mode(corpus.queries[0]) != "SEARCH_MODE_APPROXIMATE":
        raise RuntimeError("the graph is ready and does not answer")
    line = Line("HNSW built while searches go on", f"{raw_built:.1f} s", "", f"{built:.1f} s")
    return [line, *hnsw_lines(corpus, truth, graphs[0], medley)]


@contextmanager
def _raw_server(folder: Path) -> Iterator[Served]:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    vectors = str(folder / "vectors.npy")
    with (
        (folder / "raw.log").open("ab") as log,
        process("benchmarks.search.raw_server", os.environ, log, vectors, address) as running,
    ):
        yield Served(address, running.pid)


def _search_of(suite: Suite) -> Served:
    return Served(suite.addresses["search"], suite.processes["services.search"])
