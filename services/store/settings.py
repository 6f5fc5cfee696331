"""Settings of the store service, from the environment (`STORE_…`)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import MIB, S3Settings, ServerSettings

HOUR = 3600.0
DAY = 24 * HOUR


class StoreSettings(S3Settings, ServerSettings):
    """Settings of a store process; read once, in `__main__`."""

    model_config = SettingsConfigDict(
        env_prefix="STORE_", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    listen: str = Field("127.0.0.1:50052", description="address and port; port 0 lets the system choose")
    rows: Literal["lance", "s3", "memory"] = Field(
        "lance", description="where rows are kept: Lance tables in the folder or an S3 bucket; memory is lost at exit"
    )
    media: Literal["folder", "s3", "memory"] = Field(
        "folder", description="where media are kept: the folder or an S3 bucket; memory is lost at exit"
    )
    directory: Path = Field(Path("data"), validation_alias="STORE_DATA_DIR", description="folder of rows and media")
    threads: int = Field(8, gt=0, description="threads for rows, and as many for media")
    sync_threads: int = Field(16, gt=0, description="media files synced to the disk at a time")
    row_cache_bytes: int = Field(32 * MIB, ge=0, description="memory for the rows read last, without their vectors")
    index_cache_bytes: int = Field(256 * MIB, gt=0, description="memory for the tables' indexes")
    metadata_cache_bytes: int = Field(256 * MIB, gt=0, description="memory for metadata of the tables' files")
    max_inline_media_bytes: int = Field(MIB, ge=0, description="largest media sent along with an item")
    max_waiting_rows: int = Field(20_000, gt=0, description="rows of a collection that may wait to be written")
    poll_seconds: float = Field(1.0, gt=0, description="how often to look for commits by other processes")
    optimize_seconds: float = Field(15.0, gt=0, description="how often tables are optimized: compacted and indexed")
    collect_seconds: float = Field(HOUR, gt=0, description="how often media without a reference are looked for")
    media_grace_seconds: float = Field(DAY, ge=0, description="how long media without a reference are kept")
    deletions_kept_seconds: float = Field(
        7 * DAY,
        ge=0,
        description="how long deletions are known; a reader of the change feed that is away for longer starts over",
    )
    versions_kept_seconds: float = Field(
        HOUR / 4, ge=0, description="how long old commits are kept for reads in progress"
    )
    s3_create_bucket: bool = Field(False, description="whether to create the bucket if it does not exist")
    s3_url_endpoint: str = Field("", description="endpoint in presigned URLs, if clients reach it by another name")
    s3_calls: int = Field(32, gt=0, description="concurrent calls to S3 for media; more wait")
    s3_verified_share: float = Field(
        0.01, ge=0, le=1, description="share of reads of whole media whose bytes are compared with their hash"
    )

    @model_validator(mode="after")
    def _bucket_is_named(self) -> "StoreSettings":
        if "s3" in (self.rows, self.media) and not self.s3_bucket:
            raise ValueError("STORE_S3_BUCKET must name a bucket where rows or media are in S3")
        return self
