"""Settings every server has."""

from pydantic import Field
from pydantic_settings import BaseSettings

MIB = 2**20


class ServerSettings(BaseSettings):
    """Where a server listens, what it takes on, and how it stops."""

    listen: str = Field("127.0.0.1:0", description="address and port; port 0 lets the system choose")
    max_message_bytes: int = Field(64 * MIB, gt=0, description="largest request or response")
    max_calls: int = Field(1024, gt=0, description="calls served at a time; one more is refused")
    drain_seconds: float = Field(10.0, ge=0, description="time calls in flight have to finish at SIGTERM")
