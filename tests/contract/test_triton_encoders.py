"""The encoders of Triton's Python backend by the same contracts as those in process, and beside them."""

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from services.common.vectors import Matrix
from services.embedder.adapters.triton.encoder import TritonRuntime
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.preprocessing import Pixels
from services.embedder.media.images import decode_image
from tests.contract.encoder import TEXTS, HeadEncoderContract, TensorEncoderContract, TextEncoderContract
from tests.contract.test_encoders import LIMITS, head, onnx, picture_tower, pictures, text_tower, trunk_vectors
from tests.triton_servers import needs_triton, runtime, triton
from tests.unit.embedder.files import encoded, exif, halves, noise, plain
from tools.triton import TritonServer

pytestmark = [pytest.mark.triton, needs_triton]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton(tmp_path_factory.mktemp("triton"), instances=2) as server:
        yield server


@pytest.fixture
async def served(server: TritonServer) -> AsyncIterator[TritonRuntime]:
    async with runtime(server) as served:
        yield served


class TestTritonTextEncoder(TextEncoderContract):
    dimensions = 384

    @pytest.fixture
    async def encoder(self, served: TritonRuntime) -> TextEncoder:
        return served.text_encoder(text_tower())


class TestTritonHeadEncoder(HeadEncoderContract):
    dimensions = 256

    @pytest.fixture
    async def encoder(self, served: TritonRuntime) -> TensorEncoder:
        return served.projection_encoder(head())

    @pytest.fixture
    def rows(self) -> Pixels:
        return trunk_vectors()


class TestTritonPictureEncoder(TensorEncoderContract):
    dimensions = 256

    @pytest.fixture
    async def encoder(self, served: TritonRuntime) -> TensorEncoder:
        return served.image_encoder(picture_tower())

    @pytest.fixture
    def rows(self) -> Pixels:
        return pictures()


GOLDEN_TEXTS = [
    *TEXTS,
    "Größe 42, zuzüglich Versand: 19,90 €",
    "京都の古い寺",
    "кошка на окне",
    "👩‍👩‍👧 🏳️‍🌈",
    "a\u0301 z\u0000y",
]


def golden_files() -> list[bytes]:
    files = [
        plain((1, 1)),
        plain((3, 200)),
        plain((640, 7)),
        encoded(noise((97, 31), "L")),
        encoded(noise((31, 97), "LA")),
    ]
    files += [encoded(noise((50, 40), "RGBA"), "WEBP"), encoded(noise((64, 48), "CMYK"), "JPEG")]
    files += [encoded(halves((80, 30)), "JPEG", exif=exif(turn)) for turn in range(1, 9)]
    return [*files, encoded(noise((1100, 700)), "JPEG")]


def cosines(one: Matrix, other: Matrix) -> Matrix:
    product: Matrix = (one * other).sum(axis=1)
    return product


async def test_int8_texts_have_the_same_bits_as_in_process(served: TritonRuntime) -> None:
    async with onnx() as here:
        expected = await here.text_encoder(text_tower()).encode(GOLDEN_TEXTS)
    assert np.array_equal(await served.text_encoder(text_tower()).encode(GOLDEN_TEXTS), expected)


async def test_float32_pictures_agree_with_those_in_process(served: TritonRuntime) -> None:
    rows = np.stack([decode_image(file, LIMITS, picture_tower().preprocessing).pixels for file in golden_files()])
    async with onnx() as here:
        expected = await here.image_encoder(picture_tower()).encode(rows)
    assert cosines(await served.image_encoder(picture_tower()).encode(rows), expected).min() >= 0.9999


async def test_heads_agree_with_those_in_process(served: TritonRuntime) -> None:
    rows = trunk_vectors()
    async with onnx() as here:
        expected = await here.projection_encoder(head()).encode(rows)
    assert cosines(await served.projection_encoder(head()).encode(rows), expected).min() >= 0.9999


async def test_fingerprints_are_those_of_the_runtime_in_process(served: TritonRuntime) -> None:
    async with onnx() as here:
        assert served.identity == here.identity
