"""Which parts make an embedder: the only module that names adapters."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from services.embedder.adapters.model_folders import read_models
from services.embedder.admission import Admission
from services.embedder.batching import BatchedEncoder
from services.embedder.caching import CachedTextEncoder
from services.embedder.catalogue import Catalogue, Model, PictureTower, TextHead, TextTower
from services.embedder.embedder import Embedder, Towers
from services.embedder.encoder import Runtime, TensorEncoder, TextEncoder
from services.embedder.heading import HeadedTextEncoder
from services.embedder.pictures import PictureLimits, PictureReader
from services.embedder.servicer import EmbedderServicer
from services.embedder.settings import EmbedderSettings
from services.embedder.workers import Workers


@asynccontextmanager
async def embedder_servicer(settings: EmbedderSettings) -> AsyncIterator[EmbedderServicer]:
    """Build the service, hand it over, release what it holds."""
    async with Workers(settings.threads) as workers:
        runtime = _runtime(settings, workers)
        catalogue = Catalogue(read_models(*settings.models_dir), runtime.identity)
        towers = _Builder(settings, catalogue, runtime).towers()
        if settings.preload:
            await _warm(towers.values())
        pictures = PictureReader(workers, PictureLimits(settings.max_picture_bytes, settings.max_pixels))
        admission = Admission("embedder", settings.max_waiting)
        yield EmbedderServicer(Embedder(catalogue, towers, pictures, admission), catalogue)


def _runtime(settings: EmbedderSettings, workers: Workers) -> Runtime:
    match settings.runtime:
        case "memory":
            from services.embedder.adapters.memory import MemoryRuntime

            return MemoryRuntime()
        case "onnx":
            from services.embedder.adapters.onnx import OnnxRuntime

            return OnnxRuntime(workers)


class _Builder:
    """Makes the encoders of a catalogue's models, those that models share only once."""

    def __init__(self, settings: EmbedderSettings, catalogue: Catalogue, runtime: Runtime) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._runtime = runtime
        self._trunks: dict[str, TextEncoder] = {}

    def towers(self) -> dict[str, Towers]:
        return {model.name: Towers(self._text(model), self._image(model.image)) for model in self._catalogue}

    def _text(self, model: Model) -> TextEncoder | None:
        match model.text:
            case TextTower() as tower:
                if model.name not in self._trunks:
                    encoder = self._runtime.text_encoder(tower)
                    self._trunks[model.name] = CachedTextEncoder(encoder, entries=self._settings.text_cache_entries)
                return self._trunks[model.name]
            case TextHead() as head:
                trunk = self._text(self._catalogue.get(head.after))
                assert trunk is not None  # a model that heads come after has a tower; the folders' reader sees to it
                return HeadedTextEncoder(trunk, self._runtime.head_encoder(head))
            case None:
                return None

    def _image(self, tower: PictureTower | None) -> TensorEncoder | None:
        if tower is None:
            return None
        encoder = self._runtime.picture_encoder(tower)
        return BatchedEncoder(encoder, max_batch=self._settings.max_batch, lanes=self._settings.threads)


async def _warm(towers: Iterable[Towers]) -> None:
    encoders = [encoder for model in towers for encoder in (model.image, model.text) if encoder is not None]
    await asyncio.gather(*(encoder.warm() for encoder in encoders))
