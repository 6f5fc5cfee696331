"""Plans a search: which spaces are searched, with which query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from services.common.content import ContentType
from services.common.errors import ArgumentError, InputNotSupportedError, InvalidError, SpaceNotFoundError
from services.common.vectors import Matrix, from_bytes, validate_comparable
from services.gateway.core.embedder import Content, Model
from services.gateway.core.items import Collection, Space, validate_text

MAX_ARMS = 16
MAX_TOP_K = 10_000
DEFAULT_TOP_K = 10
DEFAULT_DEPTH = 100
SPARE_HITS = 10


@dataclass(frozen=True, slots=True)
class ContentQuery:
    """A text or an image's bytes, to be embedded."""

    content: Content


@dataclass(frozen=True, slots=True)
class ItemQuery:
    """An item of the collection: its own vector is the query."""

    id: str


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A vector, little-endian float32."""

    float32_le: bytes


Query = ContentQuery | ItemQuery | VectorQuery


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm as requested; an empty `space` means every space that fits the query, a `weight` of 0 means 1."""

    query: Query
    space: str = ""
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """A query in one space.

    `request_arm` is the number of the requested arm, `query` the content to embed or the vector itself, `fingerprint`
    the vector's (empty for a caller's own vector), `excluded_id` the item that is left out of the hits.
    """

    request_arm: int
    space: Space
    weight: float
    query: Content | Matrix
    fingerprint: str
    excluded_id: str | None = None


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """Inputs of `plan`: models by name, and the vectors of the queried items by id and space."""

    models: Mapping[str, Model]
    vectors: Mapping[str, Mapping[str, Matrix]]


class NoVectorError(InvalidError):
    """The queried item has no vector in the space."""

    reason = "ITEM_HAS_NO_VECTOR"

    def __init__(self, item_id: str, space: str) -> None:
        where = f"space {space!r}" if space else "any space"
        super().__init__(f"item {item_id!r} has no vector in {where}", id=item_id, space=space)


def plan(collection: Collection, specs: Sequence[ArmSpec], inputs: PlanInputs) -> list[PlannedArm]:
    """Return the arms to run for `specs`, in order; an empty space becomes one arm for each space that fits, in order.

    Raises:
        SpaceNotFoundError: no such space.
        InputNotSupportedError: neither the space nor, for an empty one, any space takes this type of query.
        NoVectorError: the queried item has no vector there.
        ArgumentError, DimensionError, VectorError: a vector without a space, or one that does not fit the space.
    """
    arms = [arm for number, spec in enumerate(specs) for arm in _plan_arm(collection, number, spec, inputs)]
    if not isfinite(sum(arm.weight for arm in arms)):
        raise ArgumentError("weight", [arm.weight for arm in arms], "have no finite sum")
    return arms


def required_models(collection: Collection, specs: Sequence[ArmSpec]) -> list[str]:
    """Return the names of the models that may embed a query of `specs`, each once."""
    spaces = [
        [space for space in collection.spaces if spec.space in ("", space.name)]
        for spec in specs
        if isinstance(spec.query, ContentQuery)
    ]
    return list(dict.fromkeys(space.model for searched in spaces for space in searched if space.model))


def required_item_ids(specs: Sequence[ArmSpec]) -> list[str]:
    """Return the ids of the items whose vectors are queries of `specs`, each once."""
    return list(dict.fromkeys(spec.query.id for spec in specs if isinstance(spec.query, ItemQuery)))


def validate_arms(specs: Sequence[ArmSpec]) -> Sequence[ArmSpec]:
    """Return `specs` if there are 1 to 16 and their weights and texts are valid.

    Raises:
        ArgumentError: too many, none, or a weight that is negative or not finite.
        TextError: a text that is empty or too long.
    """
    if not 1 <= len(specs) <= MAX_ARMS:
        raise ArgumentError("arms", len(specs), f"must be 1 to {MAX_ARMS}")
    for spec in specs:
        if not (isfinite(spec.weight) and spec.weight >= 0):
            raise ArgumentError("weight", spec.weight, "must be a number over 0, or 0 for 1")
        if isinstance(spec.query, ContentQuery) and isinstance(spec.query.content, str):
            validate_text(spec.query.content)
    return specs


def validate_top_k(top_k: int) -> int:
    """Return the number of hits to return; 0 means 10.

    Raises:
        ArgumentError: negative or over 10,000.
    """
    if not 0 <= top_k <= MAX_TOP_K:
        raise ArgumentError("top_k", top_k, f"must be 1 to {MAX_TOP_K}, or 0 for {DEFAULT_TOP_K}")
    return top_k or DEFAULT_TOP_K


def validate_depth(depth: int, top_k: int) -> int:
    """Return `depth` if it is 0 or at least `top_k`.

    Raises:
        ArgumentError: below `top_k` or over 10,000.
    """
    if depth and not top_k <= depth <= MAX_TOP_K:
        raise ArgumentError("depth", depth, f"must be top_k ({top_k}) to {MAX_TOP_K}, or 0")
    return depth


def default_depth(arms: int, top_k: int) -> int:
    """Return how many hits each of `arms` arms retrieves when the request does not say.

    A single arm needs `top_k`, and a few spare hits to replace items deleted in the meantime.
    """
    return min(top_k + SPARE_HITS, MAX_TOP_K) if arms == 1 else max(top_k, DEFAULT_DEPTH)


def validate_rrf_k(k: float) -> float:
    """Return `k` if it is a number over 0.

    Raises:
        ArgumentError: it is not.
    """
    if not (isfinite(k) and k > 0):
        raise ArgumentError("fusion.rrf.k", k, "must be a number over 0")
    return k


def content_type_of(content: Content) -> ContentType:
    """Return the content type of a query."""
    return ContentType.TEXT if isinstance(content, str) else ContentType.IMAGE


def _plan_arm(collection: Collection, number: int, spec: ArmSpec, inputs: PlanInputs) -> list[PlannedArm]:
    weight = spec.weight or 1.0
    match spec.query:
        case ContentQuery(content):
            spaces = _spaces_accepting(collection, spec.space, content_type_of(content), inputs.models)
            return [PlannedArm(number, space, weight, content, space.fingerprint) for space in spaces]
        case ItemQuery(item_id):
            vectors = inputs.vectors[item_id]
            spaces = _spaces_with_vector(collection, spec.space, item_id, vectors)
            return [
                PlannedArm(number, space, weight, vectors[space.name], space.fingerprint, item_id) for space in spaces
            ]
        case VectorQuery(float32_le):
            space = _space_for_vector(collection, spec.space)
            vector = validate_comparable(from_bytes(float32_le, space.dimensions), space.metric)
            return [PlannedArm(number, space, weight, vector, "")]


def _spaces_accepting(
    collection: Collection, name: str, content_type: ContentType, models: Mapping[str, Model]
) -> Sequence[Space]:
    spaces = [_get_space(collection, name)] if name else collection.spaces
    accepting = [space for space in spaces if space.model and content_type in models[space.model].inputs]
    if accepting:
        return accepting
    if name:
        raise InputNotSupportedError(f"space {name!r} does not take", spaces[0].model, content_type)
    raise InputNotSupportedError(f"no space of {collection.name!r} takes", "", content_type)


def _spaces_with_vector(
    collection: Collection, name: str, item_id: str, vectors: Mapping[str, Matrix]
) -> Sequence[Space]:
    spaces = [_get_space(collection, name)] if name else collection.spaces
    found = [space for space in spaces if space.name in vectors]
    if not found:
        raise NoVectorError(item_id, name)
    return found


def _space_for_vector(collection: Collection, name: str) -> Space:
    if not name:
        raise ArgumentError("space", name, "must be named for a vector")
    return _get_space(collection, name)


def _get_space(collection: Collection, name: str) -> Space:
    for space in collection.spaces:
        if space.name == name:
            return space
    raise SpaceNotFoundError(name, [space.name for space in collection.spaces])
