"""Channels to a server: arguments, the retry policy, encryption."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from medley.v1 import gateway_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GatewayService"].full_name
RETRIED = (
    "CreateCollection",
    "GetCollection",
    "ListCollections",
    "UpdateSpace",
    "GetItems",
    "ListItems",
    "CountItems",
    "DeleteItems",
    "DownloadMedia",
    "GetMediaUrl",
    "Search",
    "GetStatus",
    "TagCollection",
    "ListTags",
)
"""Idempotent methods: those that read, and those that change nothing when run again."""

RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
KEEPALIVE_SECONDS = 60
RECONNECT_SECONDS = (0.2, 5)


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """A server to connect to.

    Raises:
        ValueError: `address` is a URL, not "host:port" or a name of gRPC's such as "dns:///host:port".
    """

    address: str
    max_message_bytes: int
    tls: bool = False
    ca: bytes | str | os.PathLike[str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.address.startswith(("http://", "https://", "grpc://")):
            raise ValueError(f"server {self.address!r}: write host:port, without a scheme")

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted: asked for, or implied by a certificate authority."""
        return self.tls or self.ca is not None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that trust `ca`, or the system's certificate authorities without one."""
        roots = self.ca if self.ca is None or isinstance(self.ca, bytes) else Path(self.ca).read_bytes()
        return grpc.ssl_channel_credentials(roots)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def options(self) -> list[tuple[str, str | int]]:
        """Return the channel's arguments; calls are spread over the addresses of one name."""
        first, longest = RECONNECT_SECONDS
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.per_rpc_retry_buffer_size", self.max_message_bytes),
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_SECONDS * 1000 // 3),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", int(first * 1000)),
            ("grpc.max_reconnect_backoff_ms", int(longest * 1000)),
            ("grpc.service_config", json.dumps(service_config())),
        ]


def service_config() -> dict[str, object]:
    """Return gRPC's service config: load balancing and retries."""
    names = [{"service": SERVICE, "method": method} for method in RETRIED]
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}],
    }
