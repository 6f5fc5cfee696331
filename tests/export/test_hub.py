"""Models from the hub, of which this test is a small one: what is fetched, kept, and said when it is away."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("transformers", reason="needs the extra export")

from tests.export import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "authors/tiny-texts"


class Hub:
    """Serves the files of a folder as the repository `NAME`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.lfs_sha256: dict[str, str] = {}

    def files(self) -> dict[str, Path]:
        return {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}

    def content(self, path: str) -> bytes | None:
        if path.startswith(f"/api/models/{NAME}/tree/"):
            return self.tree()
        if path.startswith(f"/api/models/{NAME}"):
            return self.described()
        file = self.files().get(path.removeprefix(f"/{NAME}/resolve/").partition("/")[2])
        return None if file is None else file.read_bytes()

    def described(self) -> bytes:
        siblings = [{"rfilename": name, **self.entry(path)} for name, path in self.files().items()]
        return json.dumps({"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings, "tags": []}).encode()

    def tree(self) -> bytes:
        return json.dumps(
            [{"type": "file", "path": name, "oid": "0" * 40, **self.entry(path)} for name, path in self.files().items()]
        ).encode()

    def entry(self, path: Path) -> dict[str, object]:
        size, found = path.stat().st_size, {}
        if path.suffix == ".safetensors":
            sha256 = self.lfs_sha256.get(path.name) or hashlib.sha256(path.read_bytes()).hexdigest()
            found = {"lfs": {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 130}}
        return {"size": size, "blobId": "0" * 40, **found}


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(path)
            content = hub.content(path)
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if NAME in path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.reply(content, body=body, etag=hashlib.sha256(content).hexdigest())

        def reply(self, content: bytes, *, body: bool, etag: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Hub, str]]:
    folder = tmp_path / "repository"
    folder.mkdir()
    tiny.sentences(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    (folder / "tf_model.h5").write_bytes(b"not wanted" * 1000)
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def build(
    tmp_path: Path, name: str, endpoint: str, out: str = "out", **more: str
) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**inherited, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "kept"), **more}
    command = [sys.executable, "-m", "services.embedder.export", "build", name, "--target", "onnx"]
    command += ["--out", str(tmp_path / out)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, check=False)


def test_a_repository_is_downloaded_without_what_is_not_wanted(hub: tuple[Hub, str], tmp_path: Path) -> None:
    done = build(tmp_path, NAME, hub[1])
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{NAME}: \d+ files, 0\.\d MB", done.stderr)
    assert not any("tf_model" in path for path in hub[0].asked if "resolve" in path)
    provenance = json.loads((tmp_path / "out" / "tiny-texts" / "provenance.json").read_text())
    assert (provenance["source"], provenance["revision"], provenance["licence"]) == (NAME, COMMIT, "apache-2.0")

    hub[0].asked.clear()
    again = build(tmp_path, NAME, hub[1], "again")
    assert again.returncode == 0, again.stderr
    assert not any("model.safetensors" in path for path in hub[0].asked), "what is kept is not fetched again"

    away = build(tmp_path, NAME, "http://127.0.0.1:9", "away")
    assert away.returncode == 0, away.stderr
    assert "the hub is unreachable, using the earlier download" in away.stderr
    assert (tmp_path / "away" / "tiny-texts" / "model.json").is_file()


@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_a_hub_out_of_reach_is_said_with_what_to_download_by_hand(tmp_path: Path, offline: dict[str, str]) -> None:
    done = build(tmp_path, NAME, "http://127.0.0.1:9", **offline)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"medley: cannot download {NAME} from the hub: ")
    assert "Download by hand" in line
    assert all(name in line for name in ("config.json", "model.safetensors", "1_Pooling/config.json"))
    assert not (tmp_path / "out").exists()


def test_a_repository_that_is_not_there(hub: tuple[Hub, str], tmp_path: Path) -> None:
    done = build(tmp_path, "authors/nothing", hub[1])
    assert done.returncode == 1
    assert "the hub has no authors/nothing" in done.stderr


def test_weights_damaged_on_their_way_are_refused(hub: tuple[Hub, str], tmp_path: Path) -> None:
    hub[0].lfs_sha256["model.safetensors"] = "f" * 64
    done = build(tmp_path, NAME, hub[1])
    assert done.returncode == 1
    assert "was damaged in the download" in done.stderr
    assert not (tmp_path / "out").exists()
