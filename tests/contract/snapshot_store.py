"""What every store of snapshots does."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from services.search.snapshots.object_store import MissingFileError, SnapshotStore

CLOCKS_DIFFER_BY = timedelta(minutes=5)


class SnapshotStoreContract:
    """Subclasses give a fixture `store`, empty."""

    def test_what_was_put_is_got(self, store: SnapshotStore) -> None:
        for content in (b"", b"a", bytes(range(256)) * 40_000):
            store.put("photos/a/file", content)
            assert store.get("photos/a/file") == content

    def test_a_missing_file_is_told(self, store: SnapshotStore) -> None:
        store.put("photos/a/file", b"a")
        for path in ("photos/a/other", "photos/b/file", "none"):
            with pytest.raises(MissingFileError):
                store.get(path)

    def test_files_are_listed_by_path_with_size_and_time(self, store: SnapshotStore) -> None:
        for path in ("photos/b/2", "photos/a/1", "photos-more/x", "shoes/y"):
            store.put(path, path.encode())
        listed = store.files("photos")
        assert [(file.path, file.size_bytes) for file in listed] == [("photos/a/1", 10), ("photos/b/2", 10)]
        assert all(abs(file.written - datetime.now(UTC)) < CLOCKS_DIFFER_BY for file in listed)
        everything = ["photos-more/x", "photos/a/1", "photos/b/2", "shoes/y"]
        assert [file.path for file in store.files("")] == everything
        assert [file.path for file in store.files("photos/a")] == ["photos/a/1"]

    def test_a_folder_that_is_not_there_has_no_files(self, store: SnapshotStore) -> None:
        assert list(store.files("none")) == []
        assert list(store.files("")) == []

    def test_what_is_removed_is_gone_and_may_be_removed_again(self, store: SnapshotStore) -> None:
        for name in "123":
            store.put(f"photos/a/{name}", b"a")
        for _ in range(2):
            store.remove(["photos/a/1", "photos/a/2", "photos/none"])
            assert [file.path for file in store.files("")] == ["photos/a/3"]
        store.remove([])
        with pytest.raises(MissingFileError):
            store.get("photos/a/1")

    def test_a_file_can_be_put_again_after_its_folder_went(self, store: SnapshotStore) -> None:
        for content in (b"one", b"two"):
            store.put("photos/a/file", content)
            assert store.get("photos/a/file") == content
            store.remove(["photos/a/file"])

    def test_many_at_once_do_not_mix_and_readers_see_whole_files(self, store: SnapshotStore) -> None:
        contents = [bytes([number]) * 300_000 for number in range(4)]
        store.put("shared/file", contents[0])
        seen: list[bytes] = []

        def work(number: int) -> None:
            for _ in range(5):
                store.put("shared/file", contents[number])
                seen.append(store.get("shared/file"))
                store.put(f"own/{number}", contents[number])
                store.remove([f"own/{number}"])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 20
        assert set(seen) <= set(contents)
        assert [file.path for file in store.files("")] == ["shared/file"]
