"""A snapshot gives back what was saved, bit for bit, or nothing: never anything else."""

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn

import numpy as np
import pytest

from services.common.errors import ServiceUnavailableError, StorageFullError
from services.common.filters import Comparison, Operator
from services.common.index_config import Hnsw, IndexConfig
from services.common.vectors import Metric
from services.common.versions import Version
from services.search.collection.collection import LocalCollectionIndex
from services.search.core.change_feed import ChangeBatch, Space, SpaceVectors, Table
from services.search.core.collection_index import Search
from services.search.snapshots import catalog as catalog_module
from services.search.snapshots import format as format_module
from services.search.snapshots.catalog import MANIFEST, SnapshotCatalog
from services.search.snapshots.repository import SnapshotRepository
from tests.support.snapshot_store import MemorySnapshots
from tests.unit.search.feeds import PHOTOS, make_index
from tests.waiting import HANG_SECONDS

SPACES = [
    Space("flat", 3, Metric.COSINE, "one"),
    Space("deep", 5, Metric.EUCLIDEAN),
    Space("rare", 2, Metric.DOT_PRODUCT),
]
TABLE = Table(PHOTOS, SPACES, Version("uid1", 7))
FOREVER = float("inf")


@pytest.fixture
def store() -> MemorySnapshots:
    return MemorySnapshots()


@pytest.fixture
def catalog(store: MemorySnapshots) -> SnapshotCatalog:
    return SnapshotCatalog(store)


@pytest.fixture
def repository(catalog: SnapshotCatalog) -> Iterator[SnapshotRepository]:
    with ThreadPoolExecutor(3) as pool:
        yield SnapshotRepository(catalog, pool)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "PART_BYTES", 700)
    monkeypatch.setattr(format_module, "_STEP", 7)


def time_budget() -> float:
    return FOREVER


def change(ids: list[str], seed: int) -> ChangeBatch:
    """Every item has a vector in "flat", two of three in "deep", few in "rare"."""
    random = np.random.default_rng(seed)
    shares = {"flat": 1.0, "deep": 2 / 3, "rare": 0.02}
    vectors = {}
    for space in SPACES:
        rows = np.flatnonzero(random.random(len(ids)) < shares[space.name])
        drawn = random.standard_normal((len(rows), space.dimensions)).astype(np.float32)
        vectors[space.name] = SpaceVectors(rows, drawn)
    metadata = [
        json.dumps({"n": number % 5, "text": "é" * (number % 40)}) if number % 3 else "{}" for number in range(len(ids))
    ]
    return ChangeBatch(ids, metadata, vectors)


def filled(number: int = 7) -> LocalCollectionIndex:
    """An index with a history: items written again and deleted, rows and slots used again."""
    index = make_index(TABLE)
    index.write(change([f"item-{i:03d}" for i in range(200)], 1))
    index.publish(Version("uid1", 1))
    index.write(
        replace(change([f"item-{i:03d}" for i in range(0, 60)], 2), deleted_ids=[f"item-{i}" for i in range(100, 150)])
    )
    index.publish(Version("uid1", 2))
    index.write(change([f"später-{i}" for i in range(30)], number))
    index.publish(Version("uid1", number))
    return index


def answers(index: LocalCollectionIndex) -> list[object]:
    """Everything a caller can see."""
    random = np.random.default_rng(9)
    told: list[object] = [index.version]
    for space in SPACES:
        ids, version = index.item_ids(space.name)
        told += [sorted(ids), version]
        queries = random.standard_normal((3, space.dimensions)).astype(np.float32)
        for condition in (None, Comparison(("n",), Operator.LESS, (3,))):
            for found in index.search(Search(space.name, 500, condition), queries):
                hits = [(hit.item_id, np.float32(hit.score).tobytes(), tuple(hit.spaces)) for hit in found.hits]
                told += [hits, found.candidates, found.version]
    return told


def test_what_is_loaded_answers_as_what_was_saved(repository: SnapshotRepository) -> None:
    index = filled()
    repository.save(PHOTOS, index, time_budget)
    loaded = repository.load(TABLE, make_index, time_budget)
    assert isinstance(loaded, LocalCollectionIndex)
    assert answers(loaded) == answers(index)
    for each in (index, loaded):
        each.write(replace(change([f"item-{i:03d}" for i in range(50, 120)], 4), deleted_ids=["später-3"]))
        each.publish(Version("uid1", 8))
    assert answers(loaded) == answers(index), "it goes on as the other one does"


def test_an_empty_collection_is_saved_and_loaded(repository: SnapshotRepository) -> None:
    index = make_index(TABLE)
    index.publish(Version("uid1", 0))
    repository.save(PHOTOS, index, time_budget)
    loaded = repository.load(TABLE, make_index, time_budget)
    assert loaded is not None
    assert (loaded.version, loaded.item_ids("flat")[0]) == (Version("uid1", 0), [])


def test_a_snapshot_of_a_snapshot_is_the_same(repository: SnapshotRepository) -> None:
    index = filled()
    for _ in range(3):
        repository.save(PHOTOS, index, time_budget)
        loaded = repository.load(TABLE, make_index, time_budget)
        assert isinstance(loaded, LocalCollectionIndex)
        assert answers(loaded) == answers(index)
        index = loaded


def test_a_version_is_saved_whole_while_others_are_written(catalog: SnapshotCatalog, store: MemorySnapshots) -> None:
    index, begun, go_on = filled(), threading.Event(), threading.Event()
    before = answers(index)

    class Slow(MemorySnapshots):
        def put(self, path: str, content: bytes) -> None:
            begun.set()
            assert go_on.wait(HANG_SECONDS)
            store.put(path, content)

        files, get, remove = store.files, store.get, store.remove

    with ThreadPoolExecutor(3) as pool, ThreadPoolExecutor(1) as saver:
        saving = saver.submit(SnapshotRepository(SnapshotCatalog(Slow()), pool).save, PHOTOS, index, time_budget)
        assert begun.wait(HANG_SECONDS)
        for number in range(8, 20):
            index.write(change([f"item-{i:03d}" for i in range(200)], number))
            index.publish(Version("uid1", number))
        go_on.set()
        saving.result(10)
        loaded = SnapshotRepository(catalog, pool).load(TABLE, make_index, time_budget)
    assert isinstance(loaded, LocalCollectionIndex)
    assert answers(loaded) == before


def damages(content: bytes) -> list[bytes | None]:
    """Ways in which a file may be other than it was written; None: gone."""
    middle = len(content) // 2
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in (0, middle, len(content) - 1)]
    return [*flipped, content[:-1], content[:middle], b"", content + b"\0", bytes(len(content)), None]


def test_a_damaged_snapshot_is_passed_over_whichever_file_it_is(
    repository: SnapshotRepository, store: MemorySnapshots, caplog: pytest.LogCaptureFixture
) -> None:
    index = filled(6)
    repository.save(PHOTOS, index, time_budget)
    repository.save(PHOTOS, filled(7), time_budget)
    newest = sorted({file.path.rpartition("/")[0] for file in store.files("")})[-1]
    for file in store.files(newest):
        whole = store.get(file.path)
        for damaged in damages(whole):
            caplog.clear()
            store.remove([file.path])
            if damaged is not None:
                store.put(file.path, damaged)
            loaded = repository.load(TABLE, make_index, time_budget)
            assert isinstance(loaded, LocalCollectionIndex), (file.path, damaged)
            assert loaded.version == Version("uid1", 6), (file.path, damaged)
            told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
            assert bool(told) == (damaged is not None or not file.path.endswith(MANIFEST)), told
        store.put(file.path, whole)
    loaded = repository.load(TABLE, make_index, time_budget)
    assert loaded is not None
    assert loaded.version == Version("uid1", 7)


def test_a_snapshot_that_could_not_be_used_is_replaced_at_the_same_version(
    repository: SnapshotRepository, catalog: SnapshotCatalog, store: MemorySnapshots
) -> None:
    repository.save(PHOTOS, filled(6), time_budget)
    repository.save(PHOTOS, filled(7), time_budget)
    damaged = catalog.snapshots(PHOTOS)[0]
    store.put(damaged.files[0].path, b"damaged")
    assert repository.load(TABLE, make_index, time_budget) is not None
    assert repository.age_seconds(PHOTOS, Version("uid1", 7)) > 0, "it counts for nothing"
    repository.save(PHOTOS, filled(7), time_budget)
    assert [found.version.number for found in catalog.snapshots(PHOTOS)] == [7, 6]
    assert damaged.folder not in [found.folder for found in catalog.snapshots(PHOTOS)]


def test_where_every_snapshot_is_damaged_none_is_loaded(repository: SnapshotRepository, store: MemorySnapshots) -> None:
    repository.save(PHOTOS, filled(), time_budget)
    for file in store.files(""):
        if not file.path.endswith(MANIFEST):
            store.put(file.path, gzip.compress(store.get(file.path)))
    assert repository.load(TABLE, make_index, time_budget) is None


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (replace(TABLE, version=Version("uid2", 9)), "made anew"),
        (replace(TABLE, version=Version("uid1", 6)), "the store is at"),
        (replace(TABLE, spaces=[replace(SPACES[0], fingerprint="two"), *SPACES[1:]]), "two"),
        (replace(TABLE, spaces=[replace(SPACES[0], dimensions=4), *SPACES[1:]]), "spaces"),
        (replace(TABLE, spaces=[replace(SPACES[0], metric=Metric.EUCLIDEAN), *SPACES[1:]]), "euclidean"),
        (replace(TABLE, spaces=SPACES[1:]), "spaces"),
        (replace(TABLE, spaces=[*SPACES, Space("new", 2, Metric.COSINE)]), "new"),
    ],
)
def test_a_snapshot_of_something_else_is_passed_over(
    repository: SnapshotRepository, table: Table, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    repository.save(PHOTOS, filled(), time_budget)
    assert repository.load(table, make_index, time_budget) is None
    assert why in caplog.text


def test_how_a_space_is_indexed_may_have_changed(repository: SnapshotRepository) -> None:
    repository.save(PHOTOS, filled(), time_budget)
    spaces = [replace(space, config=IndexConfig(Hnsw())) for space in SPACES]
    loaded = repository.load(replace(TABLE, spaces=spaces), make_index, time_budget)
    assert loaded is not None
    assert loaded.space("flat").config == IndexConfig(Hnsw())


def test_another_format_is_passed_over(
    repository: SnapshotRepository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.search.snapshots.manifest.FORMAT", 99)
    repository.save(PHOTOS, filled(), time_budget)
    monkeypatch.undo()
    assert repository.load(TABLE, make_index, time_budget) is None
    assert "its manifest has format 99" in caplog.text


def test_two_snapshots_stay_and_what_a_crash_left_goes_in_time(
    repository: SnapshotRepository, catalog: SnapshotCatalog, store: MemorySnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = catalog.new_folder(PHOTOS, Version("uid1", 1))
    left.put("rows-00000.arrow", b"half a file")
    store.put("photos/notes.txt", b"somebody's own")
    for number in (3, 4, 5, 6):
        repository.save(PHOTOS, filled(number), time_budget)
    assert [found.version.number for found in catalog.snapshots(PHOTOS)] == [6, 5, 1]
    monkeypatch.setattr(catalog_module, "ABANDONED_AFTER", timedelta(seconds=-60))
    repository.save(PHOTOS, filled(7), time_budget)
    assert [found.version.number for found in catalog.snapshots(PHOTOS)] == [7, 6]
    assert store.get("photos/notes.txt") == b"somebody's own"


def test_snapshots_of_a_collection_made_anew_replace_those_of_the_one_before(
    repository: SnapshotRepository, catalog: SnapshotCatalog
) -> None:
    repository.save(PHOTOS, filled(), time_budget)
    index = make_index(TABLE)
    index.publish(Version("uid2", 0))
    repository.save(PHOTOS, index, time_budget)
    assert [found.version.uid for found in catalog.snapshots(PHOTOS)] == ["uid2"]


def test_collections_do_not_touch_each_others_snapshots(repository: SnapshotRepository) -> None:
    repository.save(PHOTOS, filled(), time_budget)
    repository.save(f"{PHOTOS}-more", filled(), time_budget)
    assert repository.collections() == {PHOTOS, f"{PHOTOS}-more"}
    repository.remove_all(PHOTOS)
    assert repository.collections() == {f"{PHOTOS}-more"}
    assert repository.load(TABLE, make_index, time_budget) is None


def test_writers_at_once_do_not_tear_each_others_snapshots(catalog: SnapshotCatalog) -> None:
    indexes = [filled(number) for number in (4, 5, 6, 7)]
    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(4) as writers:
        archives = [SnapshotRepository(catalog, pool) for _ in indexes]
        for _ in range(5):
            list(
                writers.map(
                    lambda each: each[0].save(PHOTOS, each[1], time_budget), zip(archives, indexes, strict=True)
                )
            )
            loaded = archives[0].load(TABLE, make_index, time_budget)
            assert isinstance(loaded, LocalCollectionIndex)
            assert answers(loaded) in [answers(index) for index in indexes]


class Failing(MemorySnapshots):
    """Takes some files, then fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.left = 10**6

    def put(self, path: str, content: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error
        super().put(path, content)


@pytest.mark.parametrize("error", [StorageFullError("here"), ServiceUnavailableError("there"), RuntimeError("a bug")])
def test_a_snapshot_that_fails_leaves_the_last_good_one_and_nothing_else(error: Exception) -> None:
    store = Failing(error)
    with ThreadPoolExecutor(3) as pool:
        repository = SnapshotRepository(SnapshotCatalog(store), pool)
        repository.save(PHOTOS, filled(6), time_budget)
        before = store.files("")
        for files in range(len(before)):
            store.left = files
            with pytest.raises(type(error)):
                repository.save(PHOTOS, filled(7), time_budget)
            assert store.files("") == before
        loaded = repository.load(TABLE, make_index, time_budget)
    assert loaded is not None
    assert loaded.version == Version("uid1", 6)


def test_a_snapshot_whose_files_were_removed_meanwhile_is_not_completed(
    catalog: SnapshotCatalog, store: MemorySnapshots
) -> None:
    class Forgetful(MemorySnapshots):
        def put(self, path: str, content: bytes) -> None:
            if "rows-00003" not in path:
                super().put(path, content)

    forgetful = Forgetful()
    with ThreadPoolExecutor(3) as pool, pytest.raises(TimeoutError, match="rows-00003"):
        SnapshotRepository(SnapshotCatalog(forgetful), pool).save(PHOTOS, filled(), time_budget)
    assert forgetful.files("") == []


def test_no_time_is_told_and_nothing_is_left(repository: SnapshotRepository, store: MemorySnapshots) -> None:
    left = iter([5.0, 4.0, 3.0])
    with pytest.raises(TimeoutError):
        repository.save(PHOTOS, filled(), lambda: next(left, 0.0))
    assert store.files("") == []
    repository.save(PHOTOS, filled(), time_budget)
    left = iter([5.0, 4.0, 3.0])
    assert repository.load(TABLE, make_index, lambda: next(left, 0.0)) is None
    assert repository.load(TABLE, make_index, time_budget) is not None


def test_a_store_that_is_away_is_not_asked_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    normalize_queries = []

    class Away(MemorySnapshots):
        def files(self, folder: str) -> NoReturn:
            normalize_queries.append(folder)
            raise ServiceUnavailableError("the folder")

    with ThreadPoolExecutor(3) as pool:
        repository = SnapshotRepository(SnapshotCatalog(Away()), pool)
        for _ in range(3):
            assert repository.load(TABLE, make_index, time_budget) is None
    assert len(normalize_queries) == 1
    assert "the folder does not answer" in caplog.text


def test_it_knows_whether_an_index_is_saved_as_it_is(repository: SnapshotRepository) -> None:
    index = filled()
    assert not repository.is_current(PHOTOS, index)
    assert not repository.was_replaced(PHOTOS, index)
    repository.save(PHOTOS, index, time_budget)
    assert repository.is_current(PHOTOS, index)
    other = filled()
    assert not repository.is_current(PHOTOS, other)
    assert repository.was_replaced(PHOTOS, other)
    loaded = repository.load(TABLE, make_index, time_budget)
    assert loaded is not None
    assert repository.is_current(PHOTOS, loaded)
    loaded.write(ChangeBatch(deleted_ids=["item-003"]))
    loaded.publish(Version("uid1", 8))
    assert not repository.is_current(PHOTOS, loaded)
    assert not repository.was_replaced(PHOTOS, loaded)
    assert repository.age_seconds(PHOTOS, Version("uid1", 7)) == 0
    assert 0 < repository.age_seconds(PHOTOS, Version("uid1", 8)) < 60
    assert repository.age_seconds(PHOTOS, Version("uid2", 1)) == FOREVER


def test_what_is_dropped_is_gone_whole_or_half_written(
    repository: SnapshotRepository, catalog: SnapshotCatalog, store: MemorySnapshots
) -> None:
    for number in (5, 6):
        repository.save(PHOTOS, filled(number), time_budget)
    catalog.new_folder(PHOTOS, Version("uid1", 6)).put("rows-00000.arrow", b"half a file")
    assert repository.drop_before(PHOTOS, Version("uid1", 5)) == 0
    assert repository.drop_before(PHOTOS, Version("uid1", 7)) == 2
    assert store.files("") == []
    with pytest.raises(TimeoutError, match="dropped meanwhile"):
        repository.save(PHOTOS, filled(6), time_budget)
    assert store.files("") == []
    repository.save(PHOTOS, filled(7), time_budget)
    assert repository.drop_before(PHOTOS, Version("uid1", 7)) == 0
    assert repository.drop_before(PHOTOS, Version("uid2", 1)) == 1
    assert store.files("") == []


def test_what_is_dropped_while_it_is_written_is_not_completed(catalog: SnapshotCatalog, store: MemorySnapshots) -> None:
    with ThreadPoolExecutor(3) as pool:
        repository, other = SnapshotRepository(catalog, pool), SnapshotRepository(catalog, pool)
        for dropper in (repository, other):
            for dropped_at in range(1, 12, 5):
                left = [FOREVER] * dropped_at

                def dropping(left: list[float] = left, dropper: SnapshotRepository = dropper) -> float:
                    if left:
                        left.pop()
                        if not left:
                            dropper.drop_before(PHOTOS, Version("uid1", 8))
                    return FOREVER

                with pytest.raises(TimeoutError):
                    repository.save(PHOTOS, filled(7), dropping)
                assert store.files("") == []
