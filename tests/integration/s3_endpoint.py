"""The S3 endpoint that tests run against: a MinIO server of their own, or the one MEDLEY_TEST_S3_ENDPOINT names."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
import urllib3

from services.common.s3.bucket import S3Bucket
from services.common.s3.options import S3Options
from services.store.adapters.s3_preflight import make_ready
from tests.ports import reserve_port
from tests.waiting import HANG_SECONDS
from tools import minio

BUCKET = "medley-tests"
USER, PASSWORD = "medley-tests", "not-a-secret"
ENCRYPTION_KEY = "tests:bm90IGEgc2VjcmV0LCBidXQgb2YgMzIgYnl0ZXMgISE="
START_SECONDS = 60.0
ABSENT = "run `make minio`, or set MEDLEY_TEST_S3_ENDPOINT"


@dataclass
class MinioServer:
    """A MinIO server on a port of its own, its data in `folder`; it can be killed and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    certificates: Path | None = None

    @property
    def options(self) -> S3Options:
        """How to get there."""
        return S3Options(f"127.0.0.1:{self.port}", BUCKET, "", USER, PASSWORD, secure=self.certificates is not None)

    def speak_tls(self) -> Path:
        """Let it speak TLS with a certificate that it signs itself; return that."""
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make a certificate with")
        self.certificates = self.folder.parent / "certificates"
        self.certificates.mkdir()
        names = ["-subj", "/CN=medley-tests", "-addext", "subjectAltName=IP:127.0.0.1"]
        names += ["-addext", "basicConstraints=critical,CA:FALSE"]
        files = ["-keyout", str(self.certificates / "private.key"), "-out", str(self.certificates / "public.crt")]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *files]
        subprocess.run(command, check=True, capture_output=True)
        return self.certificates / "public.crt"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "MINIO_ROOT_USER": USER,
            "MINIO_ROOT_PASSWORD": PASSWORD,
            "MINIO_KMS_SECRET_KEY": ENCRYPTION_KEY,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
        command = [str(minio.find()), "server", str(self.folder), "--quiet", "--address", f"127.0.0.1:{self.port}"]
        command += ["--certs-dir", str(self.certificates)] if self.certificates else []
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
        give_up = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, "MinIO ended"
            assert time.monotonic() < give_up, "MinIO does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(HANG_SECONDS)
            self.process = None

    def _answers(self) -> bool:
        trusted = str(self.certificates / "public.crt") if self.certificates else None
        try:
            with urllib3.PoolManager(ca_certs=trusted, retries=False, timeout=1) as http:
                return http.request("GET", f"{self.options.url}/minio/health/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False


def minio_server(folder: Path) -> MinioServer:
    """Return a server, not started; skips the test where there is none to be had."""
    if minio.find() is None:
        pytest.skip("run `make minio`: this test kills or fills a server of its own")
    return MinioServer(folder, reserve_port())


def fresh_options() -> S3Options:
    """Return options of a bucket that is there, with a prefix of their own; skips where there is no endpoint."""
    return replace(_shared(), prefix=f"tests/{uuid4().hex}")


@cache
def _shared() -> S3Options:
    options = _given() or _own()
    bucket = S3Bucket(options)
    make_ready(bucket, create=True)
    bucket.close()
    return options


def _given() -> S3Options | None:
    endpoint = os.environ.get("MEDLEY_TEST_S3_ENDPOINT")
    if not endpoint:
        return None
    scheme, _, host = endpoint.rpartition("://")
    return S3Options(
        host,
        os.environ.get("MEDLEY_TEST_S3_BUCKET", BUCKET),
        "",
        os.environ["MEDLEY_TEST_S3_ACCESS_KEY"],
        os.environ["MEDLEY_TEST_S3_SECRET_KEY"],
        os.environ.get("MEDLEY_TEST_S3_REGION", "us-east-1"),
        secure=scheme != "http",
    )


def _own() -> S3Options:
    if minio.find() is None:
        pytest.skip(ABSENT)
    folder = tempfile.TemporaryDirectory(prefix="medley-minio-")
    atexit.register(folder.cleanup)
    server = minio_server(Path(folder.name) / "data")
    atexit.register(server.kill)
    server.start()
    return server.options


def store_settings(options: S3Options) -> dict[str, str]:
    """Return the environment of a store that keeps rows and media there."""
    return {
        "STORE_ROWS": "s3",
        "STORE_MEDIA": "s3",
        "STORE_S3_ENDPOINT": options.endpoint,
        "STORE_S3_BUCKET": options.bucket,
        "STORE_S3_PREFIX": options.prefix,
        "STORE_S3_ACCESS_KEY": options.access_key,
        "STORE_S3_SECRET_KEY": options.secret_key,
        "STORE_S3_REGION": options.region,
        "STORE_S3_SECURE": str(options.secure),
    }
