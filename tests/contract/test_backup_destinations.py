from pathlib import Path

import pytest

from medley.backup import Destination, open_destination
from tests.contract.backup_destination import DestinationContract
from tests.integration.s3_endpoint import fresh_options


class TestFolder(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Destination:
        return open_destination(str(tmp_path / "new" / "folder"))

    def test_nothing_is_left_of_a_write_that_fails(self, destination: Destination, tmp_path: Path) -> None:
        self.test_a_write_that_fails_changes_nothing(destination)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x"]


@pytest.mark.s3
class TestBucket(DestinationContract):
    @pytest.fixture
    def destination(self, monkeypatch: pytest.MonkeyPatch) -> Destination:
        options = fresh_options()
        scheme = "https" if options.secure else "http"
        monkeypatch.setenv("MEDLEY_S3_ENDPOINT", f"{scheme}://{options.endpoint}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", options.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options.secret_key)
        return open_destination(f"s3://{options.bucket}/{options.prefix}")

    def test_a_bucket_that_is_not_there_is_told(self, destination: Destination) -> None:
        with pytest.raises(OSError, match="NoSuchBucket"):
            open_destination("s3://no-such-bucket-here/x").write("a", [b"x"])


def test_a_bucket_wants_a_name() -> None:
    with pytest.raises(ValueError, match="BUCKET"):
        open_destination("s3:///prefix")
