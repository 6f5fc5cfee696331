"""Which spaces a search asks, and with what."""

import math

import numpy as np
import pytest

from services.common.errors import (
    ArgumentError,
    DimensionError,
    InputNotSupportedError,
    SpaceNotFoundError,
    TextError,
    VectorError,
)
from services.common.vectors import Matrix, Metric, to_bytes
from services.gateway.core.items import Collection, Space
from services.gateway.search.planner import (
    ArmSpec,
    ContentQuery,
    ItemQuery,
    NoVectorError,
    PlanInputs,
    PlannedArm,
    VectorQuery,
    default_depth,
    plan,
    required_item_ids,
    required_models,
    validate_arms,
    validate_depth,
    validate_rrf_k,
    validate_top_k,
)
from tests.unit.gateway.harness import CLIP_MODEL, COLLECTION, TEXT_MODEL

VECTOR = np.array([1, 2], "<f4")


def make_plan(*specs: ArmSpec, **vectors: Matrix) -> list[PlannedArm]:
    inputs = PlanInputs({"mini": CLIP_MODEL, "words": TEXT_MODEL}, {"it": vectors})
    return plan(COLLECTION, specs, inputs)


def test_a_text_without_a_space_asks_every_space_whose_model_takes_texts() -> None:
    arms = make_plan(ArmSpec(ContentQuery("a shoe")))
    assert [(arm.space.name, arm.query, arm.fingerprint) for arm in arms] == [
        ("clip", "a shoe", "mini/1"),
        ("text", "a shoe", "words/1"),
    ]


def test_a_picture_asks_the_spaces_whose_model_takes_pictures() -> None:
    assert [arm.space.name for arm in make_plan(ArmSpec(ContentQuery(b"picture")))] == ["clip"]


def test_only_a_named_space_is_searched() -> None:
    assert [arm.space.name for arm in make_plan(ArmSpec(ContentQuery("a shoe"), space="text"))] == ["text"]


def test_an_item_asks_the_spaces_where_it_has_a_vector_and_is_left_out() -> None:
    arms = make_plan(ArmSpec(ItemQuery("it")), own=VECTOR, clip=np.ones(8, np.float32))
    assert [(arm.space.name, arm.excluded_id) for arm in arms] == [("clip", "it"), ("own", "it")]
    assert arms[1].query is VECTOR


def test_a_vector_asks_its_space_and_has_no_fingerprint() -> None:
    (arm,) = make_plan(ArmSpec(VectorQuery(to_bytes(VECTOR)), space="own"))
    assert arm.space.name == "own"
    assert arm.fingerprint == ""
    assert isinstance(arm.query, np.ndarray)
    assert arm.query.tolist() == [1, 2]


def test_weights_go_to_every_arm_and_zero_means_one() -> None:
    arms = make_plan(ArmSpec(ContentQuery("a"), weight=2.5), ArmSpec(ContentQuery("b"), space="text"))
    assert [(arm.request_arm, arm.weight) for arm in arms] == [(0, 2.5), (0, 2.5), (1, 1.0)]


@pytest.mark.parametrize(
    "query", [ContentQuery("a"), ContentQuery(b"a"), ItemQuery("it"), VectorQuery(to_bytes(VECTOR))]
)
def test_an_unknown_space_is_refused_with_those_known(query: ContentQuery | ItemQuery | VectorQuery) -> None:
    with pytest.raises(SpaceNotFoundError) as refused:
        make_plan(ArmSpec(query, space="none"))
    assert refused.value.metadata == {"space": "none", "known": "clip,text,own"}


@pytest.mark.parametrize(("query", "space"), [(b"picture", "text"), ("text", "own"), (b"picture", "own")])
def test_a_space_that_does_not_take_the_query_refuses_it(query: str | bytes, space: str) -> None:
    with pytest.raises(InputNotSupportedError):
        make_plan(ArmSpec(ContentQuery(query), space=space))


def test_a_query_that_no_space_takes_is_refused() -> None:
    bare = Collection("collections/bare", (Space("own", "", 2, Metric.COSINE),))
    with pytest.raises(InputNotSupportedError) as refused:
        plan(bare, [ArmSpec(ContentQuery("text"))], PlanInputs({}, {}))
    assert refused.value.metadata == {"model": "", "content_type": "text"}


@pytest.mark.parametrize("space", ["", "clip"])
def test_an_item_without_a_vector_there_is_refused(space: str) -> None:
    with pytest.raises(NoVectorError) as refused:
        make_plan(ArmSpec(ItemQuery("it"), space=space))
    assert refused.value.metadata == {"id": "it", "space": space}


def test_a_vector_needs_a_space() -> None:
    with pytest.raises(ArgumentError):
        make_plan(ArmSpec(VectorQuery(to_bytes(VECTOR))))


@pytest.mark.parametrize(
    ("components", "error"),
    [([1, 2, 3], DimensionError), ([math.nan, 1], VectorError), ([math.inf, 1], VectorError)],
)
def test_a_vector_that_is_not_of_the_space_is_refused(components: list[float], error: type[Exception]) -> None:
    with pytest.raises(error):
        make_plan(ArmSpec(VectorQuery(np.array(components, "<f4").tobytes()), space="own"))


def test_a_zero_vector_is_refused_under_cosine() -> None:
    with pytest.raises(VectorError):
        make_plan(ArmSpec(VectorQuery(bytes(32)), space="clip"))


def test_weights_must_have_a_finite_sum() -> None:
    with pytest.raises(ArgumentError):
        make_plan(ArmSpec(ContentQuery("a"), weight=1e308), ArmSpec(ContentQuery("b"), weight=1e308))


@pytest.mark.parametrize("count", [0, 17])
def test_one_to_sixteen_arms(count: int) -> None:
    with pytest.raises(ArgumentError):
        validate_arms([ArmSpec(ContentQuery("a"))] * count)
    assert len(validate_arms([ArmSpec(ContentQuery("a"))] * 16)) == 16


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_are_numbers_over_zero(weight: float) -> None:
    with pytest.raises(ArgumentError):
        validate_arms([ArmSpec(ContentQuery("a"), weight=weight)])


@pytest.mark.parametrize("text", ["", "  \n", "x" * 100_001])
def test_texts_are_neither_empty_nor_too_long(text: str) -> None:
    with pytest.raises(TextError):
        validate_arms([ArmSpec(ContentQuery(text))])


@pytest.mark.parametrize("top_k", [-1, 10_001])
def test_top_k_is_bounded(top_k: int) -> None:
    with pytest.raises(ArgumentError):
        validate_top_k(top_k)
    assert [validate_top_k(each) for each in (0, 1, 10_000)] == [10, 1, 10_000]


def test_each_arm_brings_a_hundred_or_top_k_and_a_lone_one_a_few_to_spare() -> None:
    assert [default_depth(2, 5), default_depth(2, 500)] == [100, 500]
    assert [default_depth(1, 5), default_depth(1, 10_000)] == [15, 10_000]


def test_depth_is_at_least_top_k_and_bounded() -> None:
    assert [validate_depth(0, 5), validate_depth(7, 7), validate_depth(10_000, 5)] == [0, 7, 10_000]
    for depth in (-1, 4, 10_001):
        with pytest.raises(ArgumentError):
            validate_depth(depth, 5)


@pytest.mark.parametrize("k", [0.0, -1.0, math.nan, math.inf])
def test_k_is_a_number_over_zero(k: float) -> None:
    with pytest.raises(ArgumentError):
        validate_rrf_k(k)


def test_only_models_and_items_that_are_needed_are_loaded() -> None:
    specs = [ArmSpec(ContentQuery("a"), space="text"), ArmSpec(ItemQuery("it")), ArmSpec(ItemQuery("it"))]
    assert required_models(COLLECTION, specs) == ["words"]
    assert required_item_ids(specs) == ["it"]
    assert required_models(COLLECTION, [ArmSpec(ContentQuery("a"))]) == ["mini", "words"]
    assert required_models(COLLECTION, [ArmSpec(VectorQuery(b""), space="own")]) == []
