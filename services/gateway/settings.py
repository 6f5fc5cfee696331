"""Settings of the gateway, from the environment (`GATEWAY_…`)."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import MIB, ServerSettings


class GatewaySettings(ServerSettings):
    """Settings of a gateway process; read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True)

    listen: str = Field("127.0.0.1:50050", description="address and port; port 0 lets the system choose")
    embedder_address: str = Field("127.0.0.1:50051", description="address of the embedder; any gRPC target")
    store_address: str = Field("127.0.0.1:50052", description="address of the store; any gRPC target")
    search_address: str = Field("127.0.0.1:50053", description="address of the search service; any gRPC target")
    cache_seconds: float = Field(5.0, ge=0, description="how long the definition of a collection or model is cached")
    max_searches: int = Field(128, gt=0, description="concurrent searches; more are refused")
    max_ingests: int = Field(32, gt=0, description="concurrent ingest streams; more are refused")
    inputs_in_flight: int = Field(
        128, gt=0, description="inputs that all ingests together send to the embedder at a time"
    )
    retry_seconds: float = Field(
        60.0, ge=0, description="how long an ingest retries a service that is unavailable or overloaded"
    )
    max_media_bytes: int = Field(48 * MIB, gt=0, description="largest stored object that is read for embedding")
    batch_items: int = Field(256, gt=0, le=10_000, description="most items of a batch that an ingest commits")
    batch_bytes: int = Field(16 * MIB, gt=0, description="most bytes of a batch; a larger item is committed alone")
    batch_seconds: float = Field(0.025, ge=0, description="how long an item waits for its batch to fill up")
    batches_in_flight: int = Field(
        4, gt=0, description="batches of one ingest that are embedded or committed at a time"
    )
    items_in_flight: int = Field(2048, gt=0, description="items of one ingest that are read but not yet answered")
    bytes_in_flight: int = Field(64 * MIB, gt=0, description="bytes of those items; reading stops at the limit")
