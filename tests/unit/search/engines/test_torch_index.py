"""The engine on a device: what the contract cannot see."""

import gc

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch")

import torch

from services.common.errors import ServiceUnavailableError
from services.common.vectors import Matrix, Metric
from services.search.core.errors import IndexTooLargeError
from services.search.core.vector_index import Selection
from services.search.engines.memory.vector_index import MemoryIndex
from services.search.engines.torch import scan
from services.search.engines.torch.device import TorchDevice
from services.search.engines.torch.vector_index import TorchIndex

MIB = 2**20


def gaussian(count: int, dimensions: int, seed: int = 0) -> Matrix:
    vectors: Matrix = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return vectors


def test_the_best_lie_in_the_groups_whose_best_are_best() -> None:
    keys = torch.from_numpy(gaussian(3, 128 * 1000))
    keys[1, 128 * 500 : 128 * 500 + 40] = 9.0  # many of the best in one group
    keys[2] = keys[2].round()  # ties
    best, places = scan._best(keys, 30)
    assert torch.equal(best, keys.topk(30).values)
    assert torch.equal(keys.gather(1, places), best)


@pytest.mark.parametrize("metric", Metric)
def test_few_candidates_suffice_where_halves_tell_vectors_apart(metric: Metric) -> None:
    vectors, queries = gaussian(200_000, 16), gaussian(9, 16, seed=1)
    index, oracle = TorchIndex(16, metric, TorchDevice("cpu")), MemoryIndex(16, metric)
    for each in (index, oracle):
        each.write(np.arange(len(vectors)), vectors)
    for slots in (np.arange(200_000), np.arange(0, 200_000, 3), np.arange(70, 2000)):
        selection = Selection.of(slots, 200_000)
        found = index.search(queries, 10, selection)
        for ranking, wanted in zip(found, oracle.search(queries, 10, selection), strict=True):
            assert (ranking.slots.tolist(), ranking.scores.tolist()) == (wanted.slots.tolist(), wanted.scores.tolist())
        assert np.median([ranking.compared for ranking in found]) == 26


def test_an_index_that_does_not_fit_is_refused_before_anything_is_written() -> None:
    device = TorchDevice("cpu", memory_bytes=64 * MIB)
    index = TorchIndex(512, Metric.COSINE, device)
    index.write(np.arange(1000), gaussian(1000, 512))
    taken = index.memory_bytes
    with pytest.raises(IndexTooLargeError) as caught:
        index.write(np.arange(1000, 101_000), np.ones((100_000, 512), np.float32))
    assert int(caught.value.metadata["needed_bytes"]) >= 100_000 * 1024
    assert int(caught.value.metadata["available_bytes"]) < 64 * MIB
    assert index.memory_bytes == taken
    query = gaussian(1, 512)
    (ranking,) = index.search(query, 1, Selection.of(np.arange(1000), 1000))
    assert ranking.slots.tolist() == [0]


def test_room_that_another_index_left_is_used() -> None:
    device = TorchDevice("cpu", memory_bytes=64 * MIB)
    first = TorchIndex(512, Metric.COSINE, device)
    first.write(np.arange(12_000), gaussian(12_000, 512))
    second = TorchIndex(512, Metric.COSINE, device)
    with pytest.raises(IndexTooLargeError):
        second.write(np.arange(8000), gaussian(8000, 512))
    del first
    gc.collect()
    second.write(np.arange(8000), gaussian(8000, 512))


def test_growing_by_pieces_plans_for_the_copy_too() -> None:
    device = TorchDevice("cpu", memory_bytes=58 * MIB)
    index = TorchIndex(512, Metric.COSINE, device)
    written = 0
    with pytest.raises(IndexTooLargeError):
        for begin in range(0, 20_000, 500):
            index.write(np.arange(begin, begin + 500), gaussian(500, 512, seed=begin))
            written = begin + 500
    assert 2000 < written < 10_000
    (ranking,) = index.search(gaussian(1, 512, seed=500), 1, Selection.of(np.arange(written), written))
    assert ranking.slots.tolist() == [500]


def test_a_device_that_is_full_after_all_is_told_like_one_that_was_known_to_be() -> None:
    device = TorchDevice("cpu", memory_bytes=100 * MIB)
    with pytest.raises(IndexTooLargeError) as caught, device.allocating(77):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert caught.value.metadata["needed_bytes"] == "77"
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_selection_is_brought_to_the_device_once() -> None:
    masks = scan._Masks(TorchDevice("cpu"))
    bits = np.packbits(np.arange(256) % 3 == 0, bitorder="little")
    first = masks.of(bits)
    assert masks.of(bits).packed is first.packed
    assert masks.of(bits.copy()).packed is not first.packed
    assert first.between(128, 256).tolist() == [*(place % 3 == 0 for place in range(128, 256)), *[False] * 128]
    others = [np.full(4, number, np.uint8) for number in range(scan.MASKS_AT_MOST)]
    for other in others:
        masks.of(other)
    assert masks.of(bits).packed is not first.packed


@pytest.mark.parametrize("name", ["cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ServiceUnavailableError, match=name):
        TorchDevice(name)
