"""Settings of the gateway, from the environment (`GATEWAY_…`)."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import MIB, ServerSettings


class GatewaySettings(ServerSettings):
    """What a gateway process needs to know; read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True)

    listen: str = Field("127.0.0.1:50050", description="address and port; port 0 lets the system choose")
    embedder_address: str = Field("127.0.0.1:50051", description="where the embedder answers; any gRPC target")
    store_address: str = Field("127.0.0.1:50052", description="where the store answers; any gRPC target")
    search_address: str = Field("127.0.0.1:50053", description="where the search service answers; any gRPC target")
    cache_seconds: float = Field(5.0, ge=0, description="how long the definition of a collection or model is kept")
    max_searches: int = Field(128, gt=0, description="searches planned at a time; one more is refused")
    max_ingests: int = Field(32, gt=0, description="ingest streams at a time; one more is refused")
    inputs_in_flight: int = Field(128, gt=0, description="inputs that all ingests have with the embedder at a time")
    retry_seconds: float = Field(
        60.0, ge=0, description="how long an ingest retries a service that is unavailable or overloaded"
    )
    max_media_bytes: int = Field(48 * MIB, gt=0, description="largest stored object that is read to be embedded")
    batch_items: int = Field(256, gt=0, le=10_000, description="items an ingest commits at once, at most")
    batch_bytes: int = Field(16 * MIB, gt=0, description="bytes an ingest commits at once; one larger item goes alone")
    batch_seconds: float = Field(0.025, ge=0, description="how long an item waits for others to be committed with")
    batches_in_flight: int = Field(
        4, gt=0, description="batches of one ingest that are embedded or committed at a time"
    )
    items_in_flight: int = Field(2048, gt=0, description="items of one ingest that are read and not yet answered")
    bytes_in_flight: int = Field(64 * MIB, gt=0, description="bytes of those items; then nothing more is read")
