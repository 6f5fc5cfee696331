"""Settings of the embedder, from the environment (`EMBEDDER_…`)."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

import services
from services.common.settings import MIB, ServerSettings
from services.embedder.embedder import MAX_INPUTS

BUILT_IN_MODELS = Path(services.__path__[0]).parent / "models"
BUILT_IN = "built-in"


class EmbedderSettings(ServerSettings):
    """What an embedder process needs to know; read once, in `__main__`."""

    model_config = SettingsConfigDict(env_prefix="EMBEDDER_", frozen=True)

    listen: str = Field("127.0.0.1:50051", description="address and port; port 0 lets the system choose")
    runtime: Literal["onnx", "memory"] = Field(
        "onnx", description="what runs the models; memory needs no weights and its vectors mean little"
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


def _names(given: str) -> list[str]:
    names = given.split(os.pathsep)
    if not all(names):
        raise ValueError(f"{given!r} has an empty folder name")
    return names
