"""Which parts make an embedder: the only module that names adapters."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from services.common.concurrency.dynamic_batcher import BatchPolicy
from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.limiter import ConcurrencyLimiter
from services.embedder.adapters.model_folders import read_models
from services.embedder.core.catalog import Model, ModelCatalog, PictureTower, TextHead, TextTower
from services.embedder.core.encoder import Runtime, TensorEncoder, TextEncoder
from services.embedder.inference.batching import BatchedEncoder
from services.embedder.inference.caching import CachedTextEncoder
from services.embedder.inference.embedder import Embedder, Encoders
from services.embedder.inference.projection import ProjectedTextEncoder
from services.embedder.media.pictures import PictureLimits, PictureReader
from services.embedder.servicer import EmbedderServicer
from services.embedder.settings import EmbedderSettings


@asynccontextmanager
async def embedder_servicer(settings: EmbedderSettings) -> AsyncIterator[EmbedderServicer]:
    """Build the service, hand it over, release what it holds."""
    models = read_models(*settings.models_dir)
    executor = BoundedExecutor("embedder", settings.threads)
    async with executor, _runtime(settings, models, executor) as runtime:
        catalogue = ModelCatalog(models, runtime.identity)
        towers = _Builder(settings, catalogue, runtime).towers()
        if settings.preload:
            await _warm(towers.values())
        pictures = PictureReader(executor, PictureLimits(settings.max_picture_bytes, settings.max_pixels))
        limiter = ConcurrencyLimiter("embedder", settings.max_waiting)
        yield EmbedderServicer(Embedder(catalogue, towers, pictures, limiter), catalogue)


@asynccontextmanager
async def _runtime(
    settings: EmbedderSettings, models: Sequence[Model], executor: BoundedExecutor
) -> AsyncIterator[Runtime]:
    match settings.runtime:
        case "memory":
            from services.embedder.adapters.memory import MemoryRuntime

            yield MemoryRuntime()
        case "onnx":
            from services.embedder.adapters.onnx.encoder import OnnxRuntime

            yield OnnxRuntime(executor)
        case "triton":
            async with _triton(settings, models) as runtime:
                yield runtime


def _triton(settings: EmbedderSettings, models: Sequence[Model]) -> AbstractAsyncContextManager[Runtime]:
    from services.embedder.adapters.triton.encoder import triton_runtime
    from services.embedder.adapters.triton.endpoint import Timeouts

    timeouts = Timeouts(
        start=settings.triton_start_seconds,
        call=settings.triton_call_seconds,
        canary=settings.triton_canary_timeout_seconds,
        canary_interval=settings.triton_canary_seconds,
    )
    return triton_runtime(
        models, settings.triton_endpoints, timeouts, max_batch=settings.max_batch, reload=settings.triton_reload
    )


class _Builder:
    """Makes the encoders of a catalogue's models, those that models share only once."""

    def __init__(self, settings: EmbedderSettings, catalogue: ModelCatalog, runtime: Runtime) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._runtime = runtime
        self._trunks: dict[str, TextEncoder] = {}

    def towers(self) -> dict[str, Encoders]:
        return {model.name: Encoders(self._text(model), self._image(model.image)) for model in self._catalogue}

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
                return ProjectedTextEncoder(trunk, self._runtime.head_encoder(head))
            case None:
                return None

    def _image(self, tower: PictureTower | None) -> TensorEncoder | None:
        if tower is None:
            return None
        encoder = self._runtime.picture_encoder(tower)
        if self._settings.runtime == "triton":
            return encoder
        return BatchedEncoder(encoder, BatchPolicy(self._settings.max_batch, max_in_flight=self._settings.threads))


async def _warm(towers: Iterable[Encoders]) -> None:
    encoders = [encoder for model in towers for encoder in (model.image, model.text) if encoder is not None]
    await asyncio.gather(*(encoder.warm() for encoder in encoders))
