"""Rules of the drawn catalogue."""

from collections import Counter
from io import BytesIO
from itertools import islice

import pytest
from PIL import Image

from medley.demo.catalog import MAX_PRODUCTS, Product, generate_catalog
from medley.demo.drawing import COLOURS
from medley.demo.shapes import SHAPES


@pytest.fixture(scope="module")
def products() -> list[Product]:
    return list(generate_catalog())


def test_has_as_many_products_as_asked(products: list[Product]) -> None:
    assert len(products) == 360
    assert list(generate_catalog(0)) == []
    assert len(list(generate_catalog(5))) == 5


@pytest.mark.parametrize("count", [-1, MAX_PRODUCTS + 1])
def test_refuses_a_count_it_cannot_draw(count: int) -> None:
    with pytest.raises(ValueError, match=str(MAX_PRODUCTS)):
        next(generate_catalog(count))


def test_names_and_ids_are_distinct(products: list[Product]) -> None:
    assert len({product.name for product in products}) == len(products)
    assert len({product.id for product in products}) == len(products)
    assert products[0].id == "p-0001"


def test_pictures_are_distinct(products: list[Product]) -> None:
    assert len({product.picture for product in products}) == len(products)


def test_the_same_seed_draws_the_same_products(products: list[Product]) -> None:
    assert list(islice(generate_catalog(), 12)) == products[:12]


def test_another_seed_draws_other_pictures(products: list[Product]) -> None:
    seen = {product.picture for product in products}
    assert all(product.picture not in seen for product in islice(generate_catalog(seed=8), 12))


def test_pictures_decode(products: list[Product]) -> None:
    for product in products[:40]:
        with Image.open(BytesIO(product.picture)) as picture:
            picture.load()
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (256, 256))


def test_every_kind_comes_in_every_colour(products: list[Product]) -> None:
    seen = {(product.metadata["type"], product.metadata["colour"]) for product in products}
    assert seen == {(kind, colour) for kind in SHAPES for colour in COLOURS}


@pytest.mark.parametrize(
    "name", ["Green T-shirt", "Red striped dress", "Blue mug", "Two yellow balls", "Three red balls"]
)
def test_has_what_the_documentation_asks_for(products: list[Product], name: str) -> None:
    assert name in {product.name for product in products}


def test_names_and_metadata_agree(products: list[Product]) -> None:
    for product in products:
        assert str(product.metadata["colour"]) in product.name.lower()
        assert str(product.metadata["type"]) in product.name.lower()
        assert product.name.lower() in product.description.lower()


def test_metadata_types_are_the_same_for_every_product(products: list[Product]) -> None:
    types = Counter(
        tuple((key, type(value).__name__) for key, value in product.metadata.items()) for product in products
    )
    assert len(types) == 1
    assert dict(next(iter(types)))["price"] == "float"
