"""Settings shared by several servers."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from services.common.s3.options import S3Options

MIB = 2**20


class ServerSettings(BaseSettings):
    """Address, limits and shutdown of a server."""

    listen: str = Field("127.0.0.1:0", description="address and port; port 0 lets the system choose")
    max_message_bytes: int = Field(64 * MIB, gt=0, description="largest request or response")
    max_calls: int = Field(1024, gt=0, description="calls served at a time; further ones are refused")
    drain_seconds: float = Field(10.0, ge=0, description="time that calls in flight have to finish after SIGTERM")
    metrics_listen: str = Field("", description="address and port of Prometheus's /metrics, over HTTP; empty: none")


class S3Settings(BaseSettings):
    """The S3 bucket of a server, and the access to it."""

    s3_endpoint: str = Field("s3.amazonaws.com", description="host of S3, with the port if it is not the default")
    s3_bucket: str = Field("", description="name of the bucket")
    s3_prefix: str = Field("", description="prefix of all keys; several installations may share a bucket")
    s3_access_key: str = Field("", description="access key; empty: the environment's (AWS_…) or the machine's role")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="secret key")
    s3_region: str = Field("us-east-1", description="region of the bucket")
    s3_secure: bool = Field(True, description="whether the endpoint speaks TLS")
    s3_ca_file: Path | None = Field(None, description="file of trusted certificates, PEM; empty: the default ones")
    s3_path_style: bool = Field(True, description="whether URLs have the bucket in the path, not in the host name")
    s3_encryption: Literal["", "s3", "kms"] = Field("", description="server-side encryption to request")
    s3_kms_key: str = Field("", description="key id for kms encryption")
    s3_timeout_seconds: float = Field(20.0, gt=0, description="time for a request to S3 with its retries")
    s3_read_timeout_seconds: float = Field(10.0, gt=0, description="time without data from S3 before a retry")

    @model_validator(mode="after")
    def _validate_kms_key(self) -> "S3Settings":
        if (self.s3_encryption == "kms") != bool(self.s3_kms_key):
            prefix = self.model_config.get("env_prefix", "")
            raise ValueError(f"{prefix}S3_KMS_KEY and {prefix}S3_ENCRYPTION=kms must be set together")
        return self

    def s3_options(self, connections: int, url_endpoint: str = "") -> S3Options:
        """Return the options for a client with at most `connections` connections."""
        return S3Options(
            self.s3_endpoint,
            self.s3_bucket,
            self.s3_prefix,
            self.s3_access_key,
            self.s3_secret_key.get_secret_value(),
            self.s3_region,
            secure=self.s3_secure,
            ca_file=self.s3_ca_file,
            path_style=self.s3_path_style,
            encryption=self.s3_encryption,
            kms_key=self.s3_kms_key,
            url_endpoint=url_endpoint,
            timeout_seconds=self.s3_timeout_seconds,
            read_timeout_seconds=self.s3_read_timeout_seconds,
            connections=connections,
        )
