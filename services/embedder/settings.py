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
    """Return the folder of the built-in models: in the installed package, or in a checkout its top folder `models`."""
    packaged = Path(__file__).parent / "models"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "models"


BUILT_IN_MODELS = _built_in_models()


class EmbedderSettings(ServerSettings):
    """What an embedder process needs to know; read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="EMBEDDER_", frozen=True)

    listen: str = Field("127.0.0.1:50051", description="address and port; port 0 lets the system choose")
    runtime: Literal["onnx", "triton", "memory"] = Field(
        "onnx",
        description="what runs the models: this process, Triton servers, or memory, which needs no weights and whose "
        "vectors mean little",
    )
    models_dir: Annotated[tuple[Path, ...], NoDecode] = Field(
        (BUILT_IN_MODELS,),
        description="folders with a folder for each model; several with a colon between them (on Windows a semicolon), "
        f"and `{BUILT_IN}` names those that come with Medley",
    )
    preload: bool = Field(True, description="load every model at the start, not when it is first used")
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, gt=0, description="threads that decode and infer")
    max_batch: int = Field(32, gt=0, description="pictures run together at most")
    max_waiting: int = Field(2048, ge=MAX_INPUTS, description="inputs in work at a time; more are refused")
    text_cache_entries: int = Field(4096, ge=0, description="text vectors kept for each text model")
    triton_endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="gRPC addresses of the Triton servers, host:port, with commas between them"
    )
    triton_start_seconds: float = Field(60.0, gt=0, description="time Triton has to answer when the embedder starts")
    triton_call_seconds: float = Field(30.0, gt=0, description="longest request to Triton; a caller's deadline is kept")
    triton_canary_seconds: float = Field(5.0, gt=0, description="time between checks that each model still computes")
    triton_canary_timeout_seconds: float = Field(2.0, gt=0, description="time a check may take where nothing else ends")
    triton_reload: bool = Field(
        True, description="have a model whose backend died loaded anew, where Triton's model control mode is explicit"
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
                raise ValueError(f"{endpoint!r} is no host:port")
        return endpoints

    @model_validator(mode="after")
    def _triton_is_somewhere(self) -> Self:
        if self.runtime == "triton" and not self.triton_endpoints:
            raise ValueError("runtime triton needs triton_endpoints")
        return self


def _names(given: str) -> list[str]:
    names = given.split(os.pathsep)
    if not all(names):
        raise ValueError(f"{given!r} has an empty folder name")
    return names
