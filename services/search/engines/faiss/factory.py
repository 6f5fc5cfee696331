"""Makes FAISS's approximate indexes, and reads them back."""

import json
from collections.abc import Generator, Mapping
from typing import Any, BinaryIO

import faiss
import numpy as np

from services.common.index_config import Hnsw, Ivf
from services.search.core.candidate_index import Kind, Sampler
from services.search.core.change_feed import Space
from services.search.engines.faiss.candidate_index import FaissCandidates, FaissDraft, Ground, Threads
from services.search.engines.faiss.hnsw import FaissHnsw, hnsw_draft
from services.search.engines.faiss.ivf import FaissIvf, ivf_draft, least_vectors

_ENGINES: Mapping[str, type[FaissCandidates]] = {FaissHnsw.engine: FaissHnsw, FaissIvf.engine: FaissIvf}


class FaissAnnFactory:
    """`CandidateMaker` by FAISS."""

    def __init__(self, *, search_threads: int = 1, build_threads: int = 1) -> None:
        self._threads = Threads(search_threads, build_threads)

    def least(self, kind: Kind) -> int:
        """See `CandidateMaker`."""
        match kind:
            case Hnsw():
                return 1
            case Ivf():
                return least_vectors(kind)

    def draft(self, space: Space, kind: Kind, count: int, draw: Sampler) -> Generator[float, None, FaissDraft]:
        """See `CandidateMaker`."""
        faiss.omp_set_num_threads(self._threads.build)  # of this thread only
        match kind:
            case Hnsw():
                yield 0.0
                return hnsw_draft(kind, space.metric, count, draw, self._threads)
            case Ivf():
                return (yield from ivf_draft(kind, space.metric, count, draw, self._threads))

    def load(self, file: BinaryIO) -> FaissCandidates:
        """See `CandidateMaker`."""
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
