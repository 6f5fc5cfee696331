"""What every `Destination` of backups does. Subclass, give the `destination` fixture, inherit the tests."""

from collections.abc import Iterator

import pytest

from medley.backup import Destination

LARGE = b"".join(bytes([number % 251]) * 1000 for number in range(20_000))


def failing() -> Iterator[bytes]:
    yield b"half"
    raise RuntimeError("the source ends")


class DestinationContract:
    @pytest.fixture
    def destination(self) -> Destination:
        raise NotImplementedError

    def test_what_is_written_is_read(self, destination: Destination) -> None:
        destination.write("a/b/c.bin", [b"one", b"", b"two"])
        assert destination.size("a/b/c.bin") == 6
        assert b"".join(destination.read("a/b/c.bin")) == b"onetwo"

    def test_large_files_come_whole(self, destination: Destination) -> None:
        blocks = (LARGE[start : start + 300_000] for start in range(0, len(LARGE), 300_000))
        destination.write("large", blocks)
        assert destination.size("large") == len(LARGE)
        assert b"".join(destination.read("large")) == LARGE

    def test_an_empty_file_is_a_file(self, destination: Destination) -> None:
        destination.write("empty", [])
        assert destination.size("empty") == 0
        assert b"".join(destination.read("empty")) == b""

    def test_a_file_is_replaced(self, destination: Destination) -> None:
        destination.write("x", [b"old"])
        destination.write("x", [b"newer"])
        assert b"".join(destination.read("x")) == b"newer"

    def test_a_write_that_fails_changes_nothing(self, destination: Destination) -> None:
        destination.write("x", [b"old"])
        for path in ("x", "y"):
            with pytest.raises(RuntimeError):
                destination.write(path, failing())
        assert b"".join(destination.read("x")) == b"old"
        assert destination.size("y") is None

    def test_what_is_not_there_is_not_found(self, destination: Destination) -> None:
        assert destination.size("none") is None
        with pytest.raises(FileNotFoundError):
            list(destination.read("none"))
        destination.delete("none")

    def test_a_deleted_file_is_gone(self, destination: Destination) -> None:
        destination.write("x", [b"old"])
        destination.delete("x")
        assert destination.size("x") is None
