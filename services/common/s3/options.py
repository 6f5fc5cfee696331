"""Connection options of a bucket."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket of an S3 endpoint, and how to access it; empty strings mean unset.

    `timeout_seconds` limits a call with all its retries, `read_timeout_seconds` the time without data from the
    endpoint. Without `access_key` the credentials are those of the environment or of the
    machine's role.
    """

    endpoint: str
    bucket: str
    prefix: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    region: str = "us-east-1"
    secure: bool = True
    ca_file: Path | None = None
    path_style: bool = True
    encryption: Literal["", "s3", "kms"] = ""
    kms_key: str = ""
    url_endpoint: str = ""
    timeout_seconds: float = 20.0
    read_timeout_seconds: float = 10.0
    connections: int = 16

    def key(self, path: str) -> str:
        """Return the key of `path`."""
        return f"{self.prefix.strip('/')}/{path}" if self.prefix.strip("/") else path

    @property
    def url(self) -> str:
        """The endpoint with its scheme."""
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"

    def lance_options(self) -> dict[str, str]:
        """Return Lance's storage options for the bucket."""
        options = {
            "aws_endpoint": self.url if self.path_style else self._virtual_url(),
            "aws_region": self.region,
            "aws_virtual_hosted_style_request": str(not self.path_style).lower(),
            "allow_http": str(not self.secure).lower(),
            "connect_timeout": f"{min(self.read_timeout_seconds, 5):g}s",
            "timeout": f"{self.timeout_seconds:g}s",
            "client_max_retries": "3",
            "client_retry_timeout": f"{max(1, round(self.timeout_seconds / 4))}",
        }
        if self.access_key:
            options |= {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        if self.encryption:
            options["aws_server_side_encryption"] = {"s3": "AES256", "kms": "aws:kms"}[self.encryption]
        if self.kms_key:
            options["aws_sse_kms_key_id"] = self.kms_key
        return options

    def _virtual_url(self) -> str:
        return self.url.replace("://", f"://{self.bucket}.")
