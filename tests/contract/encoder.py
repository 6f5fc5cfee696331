"""What every encoder does. Subclass it, give the fixtures, inherit the tests."""

import asyncio

import numpy as np
import pytest

from services.common.vectors import Matrix
from services.embedder.core.encoder import TensorEncoder, TextEncoder
from services.embedder.core.preprocessing import Pixels

TEXTS = [
    "a red shoe",
    "two blue hats on a long wooden table beside the window, photographed from above in the evening",
    "Glass",
    "!",
    "ein grüner Stuhl 👟",
    "word " * 1000,
    "a red shoe ",
    "shoe red a",
]


class TextEncoderContract:
    """Give `encoder` and `dimensions`."""

    dimensions: int

    @pytest.fixture
    async def encoder(self) -> TextEncoder:
        raise NotImplementedError

    async def test_one_unit_vector_a_text(self, encoder: TextEncoder) -> None:
        vectors = await encoder.encode(TEXTS)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(TEXTS), self.dimensions)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    async def test_no_text_no_vector(self, encoder: TextEncoder) -> None:
        assert (await encoder.encode([])).shape == (0, self.dimensions)

    async def test_other_words_other_vectors(self, encoder: TextEncoder) -> None:
        vectors = await encoder.encode(["a red shoe", "a glass of water"])
        assert vectors[0] @ vectors[1] < 0.9

    async def test_a_vector_depends_on_its_text_alone_to_the_last_bit(self, encoder: TextEncoder) -> None:
        alone = {text: await encoder.encode([text]) for text in TEXTS}
        together, backwards = await encoder.encode(TEXTS), await encoder.encode(TEXTS[::-1])
        many = await asyncio.gather(*(encoder.encode(TEXTS[start:] + TEXTS[:start]) for start in range(len(TEXTS))))
        for place, text in enumerate(TEXTS):
            assert np.array_equal(alone[text][0], together[place]), text
            assert np.array_equal(alone[text][0], backwards[-1 - place]), text
            for start, vectors in enumerate(many):
                assert np.array_equal(alone[text][0], vectors[(place - start) % len(TEXTS)]), text

    async def test_many_texts_keep_their_order(self, encoder: TextEncoder) -> None:
        texts = [f"number {number}" for number in range(100)]
        vectors = await encoder.encode(texts)
        for place in (0, 7, 8, 50, 99):
            assert np.array_equal(vectors[place], (await encoder.encode([texts[place]]))[0])

    async def test_being_warmed_changes_nothing(self, encoder: TextEncoder) -> None:
        before = await encoder.encode(TEXTS[:1])
        await encoder.warm()
        await encoder.warm()
        assert np.array_equal(await encoder.encode(TEXTS[:1]), before)


class TensorEncoderContract:
    """Give `encoder`, `dimensions`, and `rows`, at least 6 of them, unlike each other."""

    dimensions: int

    @pytest.fixture
    async def encoder(self) -> TensorEncoder:
        raise NotImplementedError

    @pytest.fixture
    def rows(self) -> Pixels:
        raise NotImplementedError

    async def test_one_unit_vector_a_row(self, encoder: TensorEncoder, rows: Pixels) -> None:
        vectors = await encoder.encode(rows)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(rows), self.dimensions)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    async def test_no_row_no_vector(self, encoder: TensorEncoder, rows: Pixels) -> None:
        assert (await encoder.encode(rows[:0])).shape == (0, self.dimensions)

    async def test_other_rows_other_vectors(self, encoder: TensorEncoder, rows: Pixels) -> None:
        vectors = await encoder.encode(rows)
        assert (vectors @ vectors.T - np.eye(len(rows))).max() < 0.9999

    async def test_a_vector_depends_on_its_row_alone(self, encoder: TensorEncoder, rows: Pixels) -> None:
        alone = np.concatenate([await encoder.encode(row[None]) for row in rows])
        batches = [rows, rows[::-1], *(np.roll(rows, -start, axis=0) for start in range(len(rows)))]
        orders = [alone, alone[::-1], *(np.roll(alone, -start, axis=0) for start in range(len(rows)))]
        for expected, vectors in zip(orders, await _all(encoder, batches), strict=True):
            assert (expected * vectors).sum(axis=1).min() > 0.99999

    async def test_the_same_call_gives_the_same_bits(self, encoder: TensorEncoder, rows: Pixels) -> None:
        first, second = await encoder.encode(rows[:1]), await encoder.encode(rows[:1])
        assert np.array_equal(first, second)

    async def test_being_warmed_changes_nothing(self, encoder: TensorEncoder, rows: Pixels) -> None:
        before = await encoder.encode(rows[:1])
        await encoder.warm()
        await encoder.warm()
        assert np.array_equal(await encoder.encode(rows[:1]), before)


class HeadEncoderContract(TensorEncoderContract):
    """Of a text head more is asked: the texts it continues have vectors of their own to the last bit."""

    async def test_a_row_has_the_same_bits_beside_any(self, encoder: TensorEncoder, rows: Pixels) -> None:
        alone = np.concatenate([await encoder.encode(row[None]) for row in rows])
        assert np.array_equal(await encoder.encode(rows), alone)
        for vectors in await _all(encoder, [rows] * 5):
            assert np.array_equal(vectors, alone)


async def _all(encoder: TensorEncoder, batches: list[Pixels]) -> list[Matrix]:
    return await asyncio.gather(*(encoder.encode(batch) for batch in batches))
