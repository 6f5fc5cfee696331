"""Settings of the embedder, from the environment (`EMBEDDER_…`)."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from services.common.settings import MIB, ServerSettings
from services.embedder.inference.embedder import MAX_INPUTS

BUILT_IN = "built-in"


def _built_in_models() -> Path:
    """Return the folder of the built-in models: in the installed package, or `models` at the top of a checkout."""
    packaged = Path(__file__).parent / "models"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "models"


BUILT_IN_MODELS = _built_in_models()


class EmbedderSettings(ServerSettings):
    """Settings of an embedder process; read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="EMBEDDER_", frozen=True)

    listen: str = Field("127.0.0.1:50051", description="address and port; port 0 lets the system choose")
    runtime: Literal["onnx", "triton", "memory"] = Field(
        "onnx",
        description="runtime of the models: ONNX Runtime in this process, Triton servers, or memory, which needs no "
        "weights and counts words and colours",
    )
    models_dir: Annotated[tuple[Path, ...], NoDecode] = Field(
        (BUILT_IN_MODELS,),
        description="folders with a subfolder for each model, separated by colons (on Windows semicolons); "
        f"`{BUILT_IN}` stands for the models that come with Medley",
    )
    preload: bool = Field(True, description="load every model at startup, not at first use")
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, gt=0, description="threads that decode and infer")
    max_batch: int = Field(32, gt=0, description="largest batch of pictures")
    max_waiting: int = Field(2048, ge=MAX_INPUTS, description="inputs in progress at a time; more are refused")
    text_cache_entries: int = Field(4096, ge=0, description="text vectors cached for each text model")
    triton_endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="gRPC addresses of the Triton servers, host:port, separated by commas"
    )
    triton_start_seconds: float = Field(
        60.0, gt=0, description="time that Triton has to become ready when the embedder starts"
    )
    triton_call_seconds: float = Field(
        30.0, gt=0, description="longest request to Triton; an earlier deadline of the caller applies"
    )
    triton_canary_seconds: float = Field(5.0, gt=0, description="time between health checks of each model")
    triton_canary_timeout_seconds: float = Field(
        2.0, gt=0, description="time a health check may take while the server answers no other request"
    )
    triton_reload: bool = Field(
        True, description="unload and load a model whose backend has died; needs Triton's explicit model control mode"
    )
    max_picture_bytes: int = Field(32 * MIB, gt=0, description="largest picture file")
    max_pixels: int = Field(64_000_000, gt=0, description="most pixels of a picture, width times height")

    @field_validator("models_dir", mode="before")
    @classmethod
    def _folders(cls, given: object) -> object:
        match given:
            case str():
                return tuple(BUILT_IN_MODELS if name == BUILT_IN else Path(name) for name in _names(given))
            case Path():
                return (given,)
            case _:
                return given

    @field_validator("triton_endpoints", mode="before")
    @classmethod
    def _endpoints(cls, given: object) -> object:
        return tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given

    @field_validator("triton_endpoints")
    @classmethod
    def _addresses(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            host, _, port = endpoint.rpartition(":")
            if not host or "/" in host or not port.isdecimal():
                raise ValueError(f"{endpoint!r} is not host:port")
        return endpoints

    @model_validator(mode="after")
    def _validate_endpoints(self) -> Self:
        if self.runtime == "triton" and not self.triton_endpoints:
            raise ValueError("runtime triton needs triton_endpoints")
        return self


def _names(given: str) -> list[str]:
    names = given.split(os.pathsep)
    if not all(names):
        raise ValueError(f"{given!r} has an empty folder name")
    return names
