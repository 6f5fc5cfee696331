"""Builds an embedder from its parts: the only module that names adapters."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from services.common.concurrency.dynamic_batcher import BatchPolicy
from services.common.concurrency.executors import BoundedExecutor
from services.common.concurrency.limiter import ConcurrencyLimiter
from services.embedder.adapters.model_folders import read_models
from services.embedder.core.catalog import ImageTower, Model, ModelCatalog, TextProjection, TextTower
from services.embedder.core.encoder import Runtime, TensorEncoder, TextEncoder
from services.embedder.inference.batching import BatchedEncoder
from services.embedder.inference.caching import CachedTextEncoder
from services.embedder.inference.embedder import Embedder, Encoders
from services.embedder.inference.projection import ProjectedTextEncoder
from services.embedder.media.images import ImageLimits, ImageReader
from services.embedder.servicer import EmbedderServicer
from services.embedder.settings import EmbedderSettings


@asynccontextmanager
async def embedder_servicer(settings: EmbedderSettings) -> AsyncIterator[EmbedderServicer]:
    """Yield the service, and release its resources afterwards."""
    models = read_models(*settings.models_dir)
    executor = BoundedExecutor("embedder", settings.threads)
    async with executor, _runtime(settings, models, executor) as runtime:
        catalog = ModelCatalog(models, runtime.identity)
        encoders = _EncoderFactory(settings, catalog, runtime).build()
        if settings.preload:
            await _warm(encoders.values())
        pictures = ImageReader(executor, ImageLimits(settings.max_picture_bytes, settings.max_pixels))
        limiter = ConcurrencyLimiter("embedder", settings.max_waiting)
        yield EmbedderServicer(Embedder(catalog, encoders, pictures, limiter), catalog)


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


class _EncoderFactory:
    """Builds the encoders of a catalog's models; models with the same base share its encoder."""

    def __init__(self, settings: EmbedderSettings, catalog: ModelCatalog, runtime: Runtime) -> None:
        self._settings = settings
        self._catalog = catalog
        self._runtime = runtime
        self._bases: dict[str, TextEncoder] = {}

    def build(self) -> dict[str, Encoders]:
        return {model.name: Encoders(self._text(model), self._image(model.image)) for model in self._catalog}

    def _text(self, model: Model) -> TextEncoder | None:
        match model.text:
            case TextTower() as tower:
                if model.name not in self._bases:
                    encoder = self._runtime.text_encoder(tower)
                    self._bases[model.name] = CachedTextEncoder(encoder, entries=self._settings.text_cache_entries)
                return self._bases[model.name]
            case TextProjection() as projection:
                base = self._text(self._catalog.get(projection.base))
                assert base is not None  # `read_models` checks that a base has a text tower
                return ProjectedTextEncoder(base, self._runtime.projection_encoder(projection))
            case None:
                return None

    def _image(self, tower: ImageTower | None) -> TensorEncoder | None:
        if tower is None:
            return None
        encoder = self._runtime.image_encoder(tower)
        if self._settings.runtime == "triton":
            return encoder
        return BatchedEncoder(encoder, BatchPolicy(self._settings.max_batch, max_in_flight=self._settings.threads))


async def _warm(models: Iterable[Encoders]) -> None:
    encoders = [encoder for model in models for encoder in (model.image, model.text) if encoder is not None]
    await asyncio.gather(*(encoder.warm() for encoder in encoders))
