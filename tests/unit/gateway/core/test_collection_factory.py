"""Making collections."""

import pytest

from services.common.errors import ArgumentError, InputNotSupportedError, NotFoundError
from services.common.vectors import Metric
from services.gateway.core.collection_factory import CollectionFactory, SpaceSpec
from services.gateway.core.embedder import Model
from services.gateway.core.items import Space
from tests.support.gateway_peers import MemoryEmbedder, MemoryStore
from tests.unit.gateway.harness import CLIP_MODEL, IMAGE, NAME, TEXT, TEXT_MODEL


async def create(*specs: SpaceSpec, name: str = NAME) -> tuple[Space, ...]:
    embedder = MemoryEmbedder([CLIP_MODEL, TEXT_MODEL])
    return (await CollectionFactory(MemoryStore(), embedder).create(name, specs)).spaces


async def test_values_left_out_come_from_the_model() -> None:
    assert await create(SpaceSpec("clip", "mini"), SpaceSpec("text", "words")) == (
        Space("clip", "mini", 8, Metric.COSINE, (IMAGE,), "mini/1"),
        Space("text", "words", 4, Metric.COSINE, (TEXT,), "words/1"),
    )


async def test_requested_values_are_kept() -> None:
    (space,) = await create(SpaceSpec("clip", "mini", 8, Metric.DOT_PRODUCT, (TEXT, IMAGE)))
    assert space == Space("clip", "mini", 8, Metric.DOT_PRODUCT, (TEXT, IMAGE), "mini/1")


async def test_without_a_model_the_metric_is_cosine() -> None:
    assert await create(SpaceSpec("own", dimensions=4096)) == (Space("own", "", 4096, Metric.COSINE),)


async def test_without_spaces_there_are_clip_and_text() -> None:
    models = [
        Model("medley-mini", 8, Metric.COSINE, (IMAGE, TEXT), "a"),
        Model("minilm", 4, Metric.COSINE, (TEXT,), "b"),
    ]
    collection = await CollectionFactory(MemoryStore(), MemoryEmbedder(models)).create(NAME, [])
    assert [(space.name, space.model, space.sources) for space in collection.spaces] == [
        ("clip", "medley-mini", (IMAGE,)),
        ("text", "minilm", (TEXT,)),
    ]


@pytest.mark.parametrize(
    ("specs", "error"),
    [
        ([SpaceSpec("a", dimensions=2), SpaceSpec("a", dimensions=3)], ArgumentError),
        ([SpaceSpec(f"a{number}", dimensions=2) for number in range(17)], ArgumentError),
        ([SpaceSpec("A", dimensions=2)], ArgumentError),
        ([SpaceSpec("a", dimensions=0)], ArgumentError),
        ([SpaceSpec("a", dimensions=4097)], ArgumentError),
        ([SpaceSpec("a", dimensions=-1)], ArgumentError),
        ([SpaceSpec("a", dimensions=2, sources=(TEXT,))], ArgumentError),
        ([SpaceSpec("a", "mini", 9)], ArgumentError),
        ([SpaceSpec("a", "mini", sources=(TEXT, TEXT))], ArgumentError),
        ([SpaceSpec("a", "words", sources=(IMAGE,))], InputNotSupportedError),
        ([SpaceSpec("a", "none")], NotFoundError),
    ],
)
async def test_a_bad_space_is_refused(specs: list[SpaceSpec], error: type[Exception]) -> None:
    with pytest.raises(error):
        await create(*specs)


async def test_a_bad_name_is_refused() -> None:
    with pytest.raises(ArgumentError):
        await create(name="things")
