"""Makes FAISS's approximate indexes, and reads them back."""

import json
from collections.abc import Generator, Mapping
from typing import Any, BinaryIO

import faiss
import numpy as np

from services.common.index_config import Hnsw, Ivf
from services.search.core.candidate_index import AnnKind, Sampler
from services.search.core.change_feed import Space
from services.search.engines.faiss.candidate_index import FaissAnnBuilder, FaissCandidateIndex, Ground, Threads
from services.search.engines.faiss.hnsw import FaissHnsw, new_hnsw_builder
from services.search.engines.faiss.ivf import FaissIvf, min_ivf_vectors, new_ivf_builder

_ENGINES: Mapping[str, type[FaissCandidateIndex]] = {FaissHnsw.engine: FaissHnsw, FaissIvf.engine: FaissIvf}


class FaissAnnFactory:
    """`AnnFactory` by FAISS."""

    def __init__(self, *, search_threads: int = 1, build_threads: int = 1) -> None:
        self._threads = Threads(search_threads, build_threads)

    def min_vectors(self, kind: AnnKind) -> int:
        match kind:
            case Hnsw():
                return 1
            case Ivf():
                return min_ivf_vectors(kind)

    def new_builder(
        self, space: Space, kind: AnnKind, count: int, sampler: Sampler
    ) -> Generator[float, None, FaissAnnBuilder]:
        faiss.omp_set_num_threads(self._threads.build)  # of this thread only
        match kind:
            case Hnsw():
                yield 0.0
                return new_hnsw_builder(kind, space.metric, count, sampler, self._threads)
            case Ivf():
                return (yield from new_ivf_builder(kind, space.metric, count, sampler, self._threads))

    def load(self, file: BinaryIO) -> FaissCandidateIndex:
        try:
            header = json.loads(file.readline())
            engine, ground = _ENGINES[header["engine"]], Ground.from_json(header["ground"])
            slots = np.frombuffer(file.read(4 * header["slots"]), "<i4").astype(np.int32)
            library: Any = faiss  # its stub does not know the reader
            index = library.read_index(library.PyCallbackIOReader(file.read))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"no approximate index can be read: {error}") from error
        if index.ntotal != len(slots):
            raise ValueError(f"an index of {len(slots)} slots has {index.ntotal} vectors")
        return engine(index, slots, ground, self._threads)
