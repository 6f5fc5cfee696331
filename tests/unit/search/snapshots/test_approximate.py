"""Approximate indexes are saved with the vectors, and a start builds none anew."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from services.common.index_config import Exact, Hnsw, IndexConfig, Ivf
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.ann.build_scheduler import BuildScheduler
from services.search.ann.manager import BuildContext, RefreshPolicy
from services.search.ann.recall_monitor import RecallMonitor
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table
from services.search.core.collection_index import Mode, Search, SearchResult, State
from services.search.engines.faiss.factory import FaissAnnFactory
from services.search.engines.faiss.vector_index import FaissIndex
from services.search.snapshots import format
from services.search.snapshots.catalog import SnapshotCatalog
from services.search.snapshots.repository import SnapshotRepository
from tests.support.snapshot_store import MemorySnapshots
from tests.unit.search.feeds import PHOTOS

DIMENSIONS = 16
COUNT = 3000
FOREVER = float("inf")
CONFIGS = [IndexConfig(Hnsw(m=16, ef_construction=40)), IndexConfig(Ivf(nlist=32))]


class Process:
    """What makes the indexes of one process; builds go on when told."""

    def __init__(self) -> None:
        self.scheduler = BuildScheduler()
        self.context = BuildContext(
            FaissAnnFactory(), self.scheduler, RecallMonitor(0.0), RefreshPolicy(min_modified=50, rest_factor=0)
        )

    def make(self, table: Table) -> LocalCollectionIndex:
        return LocalCollectionIndex(table.spaces, lambda s: FaissIndex(DIMENSIONS, s.metric), self.context)

    def build(self) -> int:
        """Build all there is to build; return how many steps that took."""
        steps, until = 0, time.monotonic() + 30
        while self.scheduler.step() is not None and time.monotonic() < until:
            steps += 1
        return steps


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format, "PART_BYTES", 50_000)


@pytest.fixture
def store() -> MemorySnapshots:
    return MemorySnapshots()


@pytest.fixture
def repository(store: MemorySnapshots) -> Iterator[SnapshotRepository]:
    with ThreadPoolExecutor(3) as pool:
        yield SnapshotRepository(SnapshotCatalog(store), pool)


@pytest.fixture(params=CONFIGS, ids=["hnsw", "ivf"])
def table(request: pytest.FixtureRequest) -> Table:
    return Table(PHOTOS, [Space("a", DIMENSIONS, Metric.COSINE, config=request.param)], Version("uid1", 9))


def change(numbers: range, seed: int) -> ChangeBatch:
    drawn = np.random.default_rng(seed).standard_normal((len(numbers), DIMENSIONS)).astype(np.float32)
    return ChangeBatch(
        [f"{number}" for number in numbers], [""] * len(numbers), {"a": SpaceVectors(np.arange(len(numbers)), drawn)}
    )


def filled(table: Table, process: Process) -> LocalCollectionIndex:
    """An index with a generation of before, slots used again, and a few vectors that the generation does not know."""
    index = process.make(table)
    index.write(change(range(COUNT), 1))
    index.publish(Version("uid1", 1))
    process.build()
    for version in (2, 3):
        index.write(replace(change(range(20), version), deleted_ids=[str(n) for n in range(100, 110)]))
        index.publish(Version("uid1", version))
    return index


def found(index: LocalCollectionIndex, *, exact: bool = False) -> list[SearchResult]:
    queries = np.random.default_rng(5).standard_normal((20, DIMENSIONS)).astype(np.float32)
    return [next(iter(index.search(Search("a", 10, exact=exact), query[None]))) for query in queries]


def seen(results: list[SearchResult]) -> list[object]:
    return [
        ([(hit.item_id, hit.score) for hit in each.hits], each.candidates, each.mode, each.version) for each in results
    ]


def test_what_was_built_answers_after_a_start_without_building(repository: SnapshotRepository, table: Table) -> None:
    before = filled(table, Process())
    repository.save(PHOTOS, before, lambda: FOREVER)
    process = Process()
    after = repository.load(table, process.make, lambda: FOREVER)
    assert isinstance(after, LocalCollectionIndex)
    assert {each.mode for each in found(before)} == {Mode.APPROXIMATE}
    assert seen(found(after)) == seen(found(before))
    assert seen(found(after, exact=True)) == seen(found(before, exact=True))
    assert process.build() == 0
    assert after.states()[0].state is State.READY


def test_what_is_written_after_a_start_is_found_and_taken_in(repository: SnapshotRepository, table: Table) -> None:
    repository.save(PHOTOS, filled(table, Process()), lambda: FOREVER)
    process = Process()
    index = repository.load(table, process.make, lambda: FOREVER)
    assert isinstance(index, LocalCollectionIndex)
    written = change(range(5000, 5200), 8)
    index.write(replace(written, deleted_ids=[str(number) for number in range(500, 900)]))
    index.publish(Version("uid1", 4))
    vectors = written.vectors["a"].vectors
    for _ in range(2):
        answers = index.search(Search("a", 1), vectors)
        assert [answer.hits[0].item_id for answer in answers] == list(written.ids)
        assert not {hit.item_id for answer in found(index) for hit in answer.hits} & set(map(str, range(500, 900)))
        process.build()


@pytest.mark.parametrize("config", [IndexConfig(Exact()), IndexConfig(Hnsw(m=8)), IndexConfig(Ivf(nlist=8))])
def test_an_index_of_another_kind_is_left_and_built_anew(
    repository: SnapshotRepository, table: Table, config: IndexConfig
) -> None:
    before = filled(table, Process())
    repository.save(PHOTOS, before, lambda: FOREVER)
    process = Process()
    other = replace(table, spaces=[replace(table.spaces[0], config=config)])
    index = repository.load(other, process.make, lambda: FOREVER)
    assert isinstance(index, LocalCollectionIndex)
    assert {each.mode for each in found(index)} == {Mode.EXACT}
    assert seen(found(index)) == seen(found(before, exact=True))
    process.build()
    assert {each.mode for each in found(index)} == {Mode.EXACT if config == IndexConfig(Exact()) else Mode.APPROXIMATE}


def test_an_index_that_another_library_wrote_is_built_anew(
    repository: SnapshotRepository, table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = filled(table, Process())
    with monkeypatch.context() as patched:
        generation = before._space("a")._generation
        assert generation is not None
        patched.setattr(type(generation.index), "save", lambda self, file: file.write(b'{"engine": "unheard of"}\n'))
        repository.save(PHOTOS, before, lambda: FOREVER)
    process = Process()
    index = repository.load(table, process.make, lambda: FOREVER)
    assert isinstance(index, LocalCollectionIndex)
    assert "is built anew" in caplog.text
    assert seen(found(index)) == seen(found(before, exact=True))
    process.build()
    assert {each.mode for each in found(index)} == {Mode.APPROXIMATE}
