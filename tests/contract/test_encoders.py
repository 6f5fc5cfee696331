"""The encoders of both runtimes, and their wrappers, by one contract each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from services.common.concurrency.dynamic_batcher import BatchPolicy
from services.common.concurrency.executors import BoundedExecutor
from services.embedder.adapters.memory import MemoryRuntime
from services.embedder.adapters.model_folders import read_models
from services.embedder.adapters.onnx.encoder import OnnxRuntime
from services.embedder.core.catalog import ImageTower, Model, TextProjection, TextTower
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.preprocessing import Pixels
from services.embedder.inference.batching import BatchedEncoder
from services.embedder.inference.caching import CachedTextEncoder
from services.embedder.inference.projection import ProjectedTextEncoder
from services.embedder.media.images import ImageLimits, decode_image
from services.embedder.settings import BUILT_IN_MODELS
from tests.contract.encoder import HeadEncoderContract, TensorEncoderContract, TextEncoderContract
from tests.unit.embedder.files import BLUE, GREEN, RED, encoded, halves, noise, plain

MODELS: dict[str, Model] = {model.name: model for model in read_models(BUILT_IN_MODELS)}
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=10**6)


def text_tower() -> TextTower:
    tower = MODELS["minilm"].text
    assert isinstance(tower, TextTower)
    return tower


def head() -> TextProjection:
    head = MODELS["medley-mini"].text
    assert isinstance(head, TextProjection)
    return head


def picture_tower() -> ImageTower:
    tower = MODELS["medley-mini"].image
    assert tower is not None
    return tower


def pictures() -> Pixels:
    files = [plain(colour=RED), plain((5, 90), GREEN), plain((90, 5), BLUE)]
    files += [encoded(halves()), encoded(halves().rotate(180)), encoded(noise((60, 80)), "JPEG")]
    return np.stack([decode_image(file, LIMITS, picture_tower().preprocessing).pixels for file in files])


def trunk_vectors() -> Pixels:
    rows = np.abs(np.random.default_rng(1).normal(size=(70, text_tower().dimensions))).astype(np.float32)
    rows[::2, ::3] = 0
    unit: Pixels = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@asynccontextmanager
async def onnx() -> AsyncIterator[OnnxRuntime]:
    async with BoundedExecutor("embedder", 2) as executor:
        yield OnnxRuntime(executor)


class TestMemoryTextEncoder(TextEncoderContract):
    dimensions = 384

    @pytest.fixture
    async def encoder(self) -> TextEncoder:
        return MemoryRuntime().text_encoder(text_tower())


class TestMemoryHeadEncoder(HeadEncoderContract):
    dimensions = 256

    @pytest.fixture
    async def encoder(self) -> TensorEncoder:
        return MemoryRuntime().projection_encoder(head())

    @pytest.fixture
    def rows(self) -> Pixels:
        return trunk_vectors()


class TestMemoryPictureEncoder(TensorEncoderContract):
    dimensions = 256

    @pytest.fixture
    async def encoder(self) -> TensorEncoder:
        return MemoryRuntime().image_encoder(picture_tower())

    @pytest.fixture
    def rows(self) -> Pixels:
        return pictures()[[0, 1, 2, 3, 5]]  # a histogram cannot tell a picture from the same turned round


class TestOnnxTextEncoder(TextEncoderContract):
    dimensions = 384

    @pytest.fixture
    async def encoder(self) -> AsyncIterator[TextEncoder]:
        async with onnx() as runtime:
            yield runtime.text_encoder(text_tower())


class TestOnnxHeadEncoder(HeadEncoderContract):
    dimensions = 256

    @pytest.fixture
    async def encoder(self) -> AsyncIterator[TensorEncoder]:
        async with onnx() as runtime:
            yield runtime.projection_encoder(head())

    @pytest.fixture
    def rows(self) -> Pixels:
        return trunk_vectors()


class TestOnnxPictureEncoder(TensorEncoderContract):
    dimensions = 256

    @pytest.fixture
    async def encoder(self) -> AsyncIterator[TensorEncoder]:
        async with onnx() as runtime:
            yield runtime.image_encoder(picture_tower())

    @pytest.fixture
    def rows(self) -> Pixels:
        return pictures()


class TestHeadedTextEncoder(TextEncoderContract):
    """The whole way of a text into the pictures' space, its cache and shared work included."""

    dimensions = 256

    @pytest.fixture(params=[0, 4, 4096])
    async def encoder(self, request: pytest.FixtureRequest) -> AsyncIterator[TextEncoder]:
        async with onnx() as runtime:
            trunk = CachedTextEncoder(runtime.text_encoder(text_tower()), entries=request.param)
            yield ProjectedTextEncoder(trunk, runtime.projection_encoder(head()))


class TestBatchedEncoder(TensorEncoderContract):
    dimensions = 256

    @pytest.fixture(params=[(1, 1), (4, 1), (4, 2), (64, 2)])
    async def encoder(self, request: pytest.FixtureRequest) -> AsyncIterator[TensorEncoder]:
        async with onnx() as runtime:
            encoder = runtime.image_encoder(picture_tower())
            yield BatchedEncoder(encoder, BatchPolicy(*request.param))

    @pytest.fixture
    def rows(self) -> Pixels:
        return pictures()


async def test_minilm_puts_near_what_means_the_same() -> None:
    async with onnx() as runtime:
        shoe, sneaker, river = await runtime.text_encoder(text_tower()).encode(
            ["a red running shoe", "crimson sneakers", "the river floods its banks"]
        )
    assert shoe @ sneaker > shoe @ river + 0.3


async def test_memory_puts_near_what_shares_words() -> None:
    one, two, other = await MemoryRuntime().text_encoder(text_tower()).encode(["a red shoe", "Shoe, red", "a blue hat"])
    assert one @ two > one @ other


async def test_a_text_over_the_token_limit_is_cut_off() -> None:
    async with onnx() as runtime:
        encoder = runtime.text_encoder(text_tower())
        cut, longer = await encoder.encode(["word " * 300, "word " * 290 + "glass " * 10])
        assert np.array_equal(cut, longer)
        short, other = await encoder.encode(["word " * 100, "word " * 90 + "glass " * 10])
        assert not np.array_equal(short, other)
