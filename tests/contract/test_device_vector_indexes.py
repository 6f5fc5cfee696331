"""Engines on devices, where the package and the device are there."""

import pytest

pytest.importorskip("torch", reason="needs the extra torch")

import torch

from services.common.vectors import Metric
from services.search.engines.torch import vectors
from services.search.engines.torch.device import TorchDevice
from services.search.engines.torch.vector_index import TorchIndex
from tests.contract.vector_index import MakeIndex, VectorIndexContract

pytestmark = pytest.mark.slow

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def device(request: pytest.FixtureRequest) -> TorchDevice:
    return TorchDevice(request.param)


class TestTorchIndex(VectorIndexContract):
    MEMORY_AT_MOST = 2.0  # halves on the device beside the vectors in memory, and room for more of them

    @pytest.fixture
    def make_index(self, device: TorchDevice) -> MakeIndex:
        return lambda dimensions, metric: TorchIndex(dimensions, metric, device)


class TestTorchIndexOfManySegmentsAndChunks(TestTorchIndex):
    @pytest.fixture
    def make_index(self, device: TorchDevice, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
        monkeypatch.setattr(device, "_work_bytes", 1)

        def make(dimensions: int, metric: Metric) -> TorchIndex:
            monkeypatch.setattr(vectors, "SEGMENT_BYTES", 2 * 256 * dimensions)
            return TorchIndex(dimensions, metric, device)

        return make
