"""Chroma over HTTP, with its server in another process; it has only HNSW."""

import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import chromadb

from benchmarks.peers.peer import EF_CONSTRUCTION, EF_SEARCH, ROWS_PER_WRITE, TOP_K, M
from benchmarks.search.conditions import Condition
from benchmarks.search.corpus import Corpus, Matrix

START_SECONDS = 60.0
HNSW = {
    "space": "cosine",
    "max_neighbors": M,
    "ef_construction": EF_CONSTRUCTION,
    "ef_search": EF_SEARCH,
}


class Chroma:
    """`Peer`."""

    modes = ("HNSW",)
    version = f"chromadb {version('chromadb')}"

    def __init__(self, folder: Path, mode: str) -> None:
        port = _free_port()
        command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(folder), "--port", str(port)]
        quiet = {**os.environ, "ANONYMIZED_TELEMETRY": "False"}
        self._server = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._client = _connect(port)

    def load(self, corpus: Corpus) -> None:
        self._items = self._client.create_collection("items", configuration={"hnsw": HNSW}, embedding_function=None)
        for begin in range(0, len(corpus.vectors), ROWS_PER_WRITE):
            metadata = corpus.metadata(begin, begin + ROWS_PER_WRITE)
            ids = [str(row) for row in range(begin, begin + len(metadata))]
            vectors = corpus.vectors[begin : begin + ROWS_PER_WRITE]
            self._items.add(ids=ids, embeddings=vectors, metadatas=[each or None for each in metadata])

    def search(self, query: Matrix, condition: Condition | None) -> list[int]:
        where = {condition.field: condition.value} if condition else None
        found = self._items.query(query_embeddings=[query], n_results=TOP_K, where=where, include=[])
        return [int(each) for each in found["ids"][0]]

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(30)


def _connect(port: int) -> "chromadb.api.ClientAPI":
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            return chromadb.HttpClient("127.0.0.1", port, settings=chromadb.Settings(anonymized_telemetry=False))
        except ValueError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
