"""Settings of the search service, from the environment (`SEARCH_…`)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import S3Settings, ServerSettings


class SearchSettings(S3Settings, ServerSettings):
    """What a search process needs to know; read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="SEARCH_", frozen=True, hide_input_in_errors=True)

    listen: str = Field("127.0.0.1:50053", description="address and port; port 0 lets the system choose")
    store_address: str = Field("127.0.0.1:50052", description="where the store listens")
    engine: Literal["memory", "faiss", "torch", "faiss-gpu", "milvus"] = Field(
        "faiss",
        description="what finds the nearest vectors; torch, faiss-gpu and milvus need the extras torch, gpu and milvus",
    )
    device: str = Field("cuda", pattern="^(cpu|cuda(:[0-9]+)?)$", description="where torch and faiss-gpu search")
    gpu_memory_bytes: int | None = Field(
        None, gt=0, description="most memory of the device that indexes and searches may take; empty: all that is free"
    )
    threads: int = Field(0, ge=0, description="searches computed at a time; 0: as half the processors, two at least")
    threads_per_search: int = Field(
        1, gt=0, description="threads of one search of many vectors; more pay for few callers"
    )
    build_threads: int = Field(1, gt=0, description="OpenMP threads that build approximate indexes behind the searches")
    recall_sample_rate: float = Field(
        0.01, ge=0, le=1, description="share of approximate answers that are repeated exactly to know their recall"
    )
    bulk_threads: int = Field(
        0, ge=0, description="pieces of batches and pages computed besides; 0: as many as processors"
    )
    max_searches: int = Field(256, gt=0, description="searches taken on at a time; one more is refused")
    max_batch: int = Field(64, gt=0, description="searches that wait for a thread and are merged into one at most")
    max_batch_calls: int = Field(16, gt=0, description="calls of SearchIndexBatch at a time; one more is refused")
    max_cursors: int = Field(64, gt=0, description="rankings read in pages at a time; one more is refused")
    cursor_seconds: float = Field(60.0, gt=0, description="how long after a page its version is kept for the next")
    wait_seconds: float = Field(10.0, gt=0, description="longest wait for a version, whatever the caller's deadline")
    warm_seconds: float = Field(10.0, ge=0, description="longest wait at the start for indexes to be filled")
    discover_seconds: float = Field(10.0, gt=0, description="time between looks for new collections")
    snapshots: Literal["off", "folder", "s3"] = Field(
        "off",
        description="where indexes are saved, so that a restart loads them; all services in one process: a folder",
    )
    snapshots_dir: Path = Field(
        Path("data/snapshots"), description="folder of snapshots; all services in one process: in `STORE_DATA_DIR`"
    )
    snapshot_seconds: float = Field(300.0, gt=0, description="time between snapshots of a collection that changes")
    snapshot_load_seconds: float = Field(
        120.0, gt=0, description="time for loading a snapshot; what takes longer is built from the store"
    )

    milvus_uri: str = Field(
        "",
        pattern=r"^(https?://.+|.+\.db)?$",
        description="of a Milvus, http(s)://host:port, or a file of Milvus Lite, x.db",
    )
    milvus_token: SecretStr = Field(SecretStr(""), description="what Milvus lets in: user:password, or an API key")
    milvus_database: str = Field("", description="database of Milvus; empty: its default")
    milvus_prefix: str = Field(
        "medley",
        pattern="^[A-Za-z][A-Za-z0-9]{0,31}$",
        description="how all names in Milvus begin; another one for each Medley that uses the same Milvus",
    )
    milvus_writer: bool = Field(True, description="whether this process writes to Milvus: one does, all others read")
    milvus_gpu: bool = Field(False, description="whether Milvus searches by its GPU indexes")
    milvus_consistency: Literal["Strong", "Session"] = Field(
        "Strong", description="Session saves Milvus's wait of a search where the one process that writes also searches"
    )
    milvus_seconds: float = Field(10.0, gt=0, description="longest wait for Milvus to answer a read")
    milvus_write_seconds: float = Field(60.0, gt=0, description="longest wait for Milvus to take a write")
    milvus_build_seconds: float = Field(3600.0, gt=0, description="longest wait for Milvus to build and load an index")
    milvus_grace_seconds: float = Field(
        60.0, ge=10, description="how long Milvus keeps what a version shows once there is a newer one"
    )

    @model_validator(mode="after")
    def _milvus_is_named(self) -> "SearchSettings":
        if self.engine == "milvus" and not self.milvus_uri:
            raise ValueError("SEARCH_MILVUS_URI must name a Milvus where the engine is milvus")
        return self

    @model_validator(mode="after")
    def _bucket_is_named(self) -> "SearchSettings":
        if self.snapshots == "s3" and not self.s3_bucket:
            raise ValueError("SEARCH_S3_BUCKET must name a bucket where snapshots are in S3")
        return self
