"""Which spaces a search asks, and with what."""

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
    """A text or a picture's bytes, to be embedded."""

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
    """An arm as a caller asks for it; an empty `space` means every one that fits, a `weight` of 0 means 1."""

    query: Query
    space: str = ""
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """A query in one space.

    `wish` numbers the arm it came from, `query` is a content still to be embedded or the vector itself, `fingerprint`
    that of the vector (empty where the caller answers for it), `left_out` an item that is no hit of the arm.
    """

    wish: int
    space: Space
    weight: float
    query: Content | Matrix
    fingerprint: str
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What planning needs to know: the models by name, and the vectors of the items asked for, by id and space."""

    models: Mapping[str, Model]
    vectors: Mapping[str, Mapping[str, Matrix]]


class NoVectorError(InvalidError):
    """The arm's item has no vector in the space."""

    reason = "ITEM_HAS_NO_VECTOR"

    def __init__(self, item_id: str, space: str) -> None:
        where = f"space {space!r}" if space else "any space"
        super().__init__(f"item {item_id!r} has no vector in {where}", id=item_id, space=space)


def plan(collection: Collection, wishes: Sequence[ArmSpec], known: PlanInputs) -> list[PlannedArm]:
    """Return the arms that `wishes` come to, in order, those of an empty space in the order of the spaces.

    Raises:
        SpaceNotFoundError: no such space.
        InputNotSupportedError: the space, or every space, takes another kind of query.
        NoVectorError: the item has no vector there.
        ArgumentError, DimensionError, VectorError: a vector without a space, or not of the space.
    """
    arms = [arm for number, wish in enumerate(wishes) for arm in _arms(collection, number, wish, known)]
    if not isfinite(sum(arm.weight for arm in arms)):
        raise ArgumentError("weight", [arm.weight for arm in arms], "have no finite sum")
    return arms


def models_asked(collection: Collection, wishes: Sequence[ArmSpec]) -> list[str]:
    """Return the models that may have to embed a query of `wishes`, each once."""
    spaces = [
        [space for space in collection.spaces if wish.space in ("", space.name)]
        for wish in wishes
        if isinstance(wish.query, ContentQuery)
    ]
    return list(dict.fromkeys(space.model for asked in spaces for space in asked if space.model))


def items_asked(wishes: Sequence[ArmSpec]) -> list[str]:
    """Return the ids of the items whose vectors are queries of `wishes`, each once."""
    return list(dict.fromkeys(wish.query.id for wish in wishes if isinstance(wish.query, ItemQuery)))


def validate_arms(wishes: Sequence[ArmSpec]) -> Sequence[ArmSpec]:
    """Return `wishes` if there are 1 to 16, their weights and texts allowed.

    Raises:
        ArgumentError: too many, none, or a weight that is negative or not finite.
        TextError: a text that is empty or too long.
    """
    if not 1 <= len(wishes) <= MAX_ARMS:
        raise ArgumentError("arms", len(wishes), f"must be 1 to {MAX_ARMS}")
    for wish in wishes:
        if not (isfinite(wish.weight) and wish.weight >= 0):
            raise ArgumentError("weight", wish.weight, "must be a number over 0, or 0 for 1")
        if isinstance(wish.query, ContentQuery) and isinstance(wish.query.content, str):
            validate_text(wish.query.content)
    return wishes


def validate_top_k(top_k: int) -> int:
    """Return how many hits are wanted, 0 meaning 10.

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
    """Return how many items each of so many arms brings where the caller does not say.

    A lone arm needs no more than `top_k`, and a few in the place of items deleted meanwhile.
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


def kind_of(content: Content) -> ContentType:
    """Return what kind of content it is."""
    return ContentType.TEXT if isinstance(content, str) else ContentType.IMAGE


def _arms(collection: Collection, number: int, wish: ArmSpec, known: PlanInputs) -> list[PlannedArm]:
    weight = wish.weight or 1.0
    match wish.query:
        case ContentQuery(content):
            spaces = _taking(collection, wish.space, kind_of(content), known.models)
            return [PlannedArm(number, space, weight, content, space.fingerprint) for space in spaces]
        case ItemQuery(item_id):
            vectors = known.vectors[item_id]
            spaces = _holding(collection, wish.space, item_id, vectors)
            return [
                PlannedArm(number, space, weight, vectors[space.name], space.fingerprint, item_id) for space in spaces
            ]
        case VectorQuery(float32_le):
            space = _for_vector(collection, wish.space)
            vector = validate_comparable(from_bytes(float32_le, space.dimensions), space.metric)
            return [PlannedArm(number, space, weight, vector, "")]


def _taking(collection: Collection, name: str, kind: ContentType, models: Mapping[str, Model]) -> Sequence[Space]:
    wanted = [_named(collection, name)] if name else collection.spaces
    taking = [space for space in wanted if space.model and kind in models[space.model].inputs]
    if taking:
        return taking
    if name:
        raise InputNotSupportedError(f"space {name!r} does not take", wanted[0].model, kind)
    raise InputNotSupportedError(f"no space of {collection.name!r} takes", "", kind)


def _holding(collection: Collection, name: str, item_id: str, vectors: Mapping[str, Matrix]) -> Sequence[Space]:
    wanted = [_named(collection, name)] if name else collection.spaces
    holding = [space for space in wanted if space.name in vectors]
    if not holding:
        raise NoVectorError(item_id, name)
    return holding


def _for_vector(collection: Collection, name: str) -> Space:
    if not name:
        raise ArgumentError("space", name, "must be named for a vector")
    return _named(collection, name)


def _named(collection: Collection, name: str) -> Space:
    for space in collection.spaces:
        if space.name == name:
            return space
    raise SpaceNotFoundError(name, [space.name for space in collection.spaces])
