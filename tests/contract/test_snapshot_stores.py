"""Stores of snapshots: the contract, and what only one of them has."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.deadlines import deadline_in
from services.common.errors import ServiceUnavailableError, StorageFullError
from services.common.s3.bucket import S3Bucket
from services.search.adapters.folder_snapshots import FolderSnapshots
from services.search.adapters.s3_snapshots import S3Snapshots
from services.search.snapshots.object_store import SnapshotStore
from tests.contract.snapshot_store import SnapshotStoreContract
from tests.integration.s3_endpoint import fresh_options
from tests.support.snapshot_store import MemorySnapshots


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may do everything: be nobody meanwhile."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


class TestMemorySnapshots(SnapshotStoreContract):
    @pytest.fixture
    def store(self) -> SnapshotStore:
        return MemorySnapshots()


class TestFolderSnapshots(SnapshotStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SnapshotStore:
        return FolderSnapshots(tmp_path / "deep" / "snapshots")

    def test_no_folder_is_left_without_files(self, store: SnapshotStore, tmp_path: Path) -> None:
        store.put("photos/a/file", b"a")
        store.remove(["photos/a/file"])
        assert list((tmp_path / "deep" / "snapshots").iterdir()) == []

    def test_no_room_is_told_and_leaves_the_file_before(self, store: SnapshotStore) -> None:
        store.put("photos/file", b"before")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
        try:
            with pytest.raises(StorageFullError):
                store.put("photos/file", bytes(2**20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert store.get("photos/file") == b"before"
        assert [file.path for file in store.files("")] == ["photos/file"]

    def test_what_may_not_be_done_is_told(self, store: SnapshotStore, tmp_path: Path) -> None:
        store.put("photos/file", b"a")
        folder = tmp_path / "deep" / "snapshots" / "photos"
        folder.chmod(0)
        try:
            for act in (
                lambda: store.put("photos/x", b"a"),
                lambda: store.get("photos/file"),
                lambda: store.files(""),
                lambda: store.remove(["photos/file"]),
            ):
                with without_privileges(), pytest.raises(ServiceUnavailableError, match="Permission denied"):
                    act()
        finally:
            folder.chmod(stat.S_IRWXU)

    def test_a_path_that_leads_through_a_file_is_told(self, store: SnapshotStore) -> None:
        store.put("photos", b"a file where a folder should be")
        for act in (lambda: store.put("photos/x", b"a"), lambda: store.get("photos/x")):
            with pytest.raises(ServiceUnavailableError, match="photos"):
                act()


@pytest.mark.s3
class TestS3Snapshots(SnapshotStoreContract):
    @pytest.fixture
    def store(self) -> Iterator[SnapshotStore]:
        bucket = S3Bucket(fresh_options())
        yield S3Snapshots(bucket)
        bucket.remove_all([entry.path for entry in bucket.entries("")])
        bucket.close()

    def test_a_listing_of_several_pages_is_whole(self, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.common.s3.bucket.PAGE", 3)
        for number in range(7):
            store.put(f"photos/{number}", b"a")
        assert len(store.files("photos")) == 7
        store.remove([file.path for file in store.files("")])
        assert list(store.files("")) == []

    def test_an_endpoint_that_is_away_is_told_in_time(self) -> None:
        bucket = S3Bucket(replace(fresh_options(), endpoint="127.0.0.1:9"))
        store = S3Snapshots(bucket)
        for act in (
            lambda: store.put("x", b""),
            lambda: store.get("x"),
            lambda: store.files(""),
            lambda: store.remove(["x"]),
        ):
            with deadline_in(0.3), pytest.raises(ServiceUnavailableError):
                act()
        bucket.close()

    def test_a_bucket_that_is_not_there_is_told(self) -> None:
        bucket = S3Bucket(replace(fresh_options(), bucket="medley-no-such-bucket"))
        with pytest.raises(ServiceUnavailableError, match="NoSuchBucket"):
            S3Snapshots(bucket).put("x", b"")
        bucket.close()
