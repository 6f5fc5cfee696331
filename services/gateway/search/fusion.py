"""Fuses ranked lists into one ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from services.gateway.core.index import IndexHit

RRF_K = 60.0


@dataclass(frozen=True, slots=True)
class RankedList:
    """The hits of one arm in `space`, best first; `weight` is positive."""

    space: str
    weight: float
    hits: Sequence[IndexHit]


@dataclass(frozen=True, slots=True)
class ArmScore:
    """An item's rank, from 1, and raw score in the list numbered `arm`, from 0."""

    arm: int
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class FusedHit:
    """An item with its fused score, higher is better, and its ranks in the lists that found it."""

    id: str
    score: float
    arms: tuple[ArmScore, ...]


def reciprocal_rank_fusion(lists: Sequence[RankedList], k: float = RRF_K) -> list[FusedHit]:
    """Fuse `lists`: score(item) = sum of weight / (k + rank), rank counted from 1.

    A list in whose space an item has no vector does not apply to the item: its score is scaled by the weight of all
    lists over the weight of those that apply. Only ranks count, so the scales of scores may differ. Returns hits best
    first, ties by id.

    Source: Cormack, Clarke & Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", SIGIR 2009; the scaling is ours.
    """
    found: dict[str, tuple[IndexHit, list[ArmScore]]] = {}
    for arm, ranked in enumerate(lists):
        for rank, hit in enumerate(ranked.hits, start=1):
            found.setdefault(hit.id, (hit, []))[1].append(ArmScore(arm, rank, hit.score))
    fused = [FusedHit(hit.id, _score(lists, hit.spaces, scores, k), tuple(scores)) for hit, scores in found.values()]
    return sorted(fused, key=lambda hit: (-hit.score, hit.id))


def _score(lists: Sequence[RankedList], spaces: Sequence[str], scores: Sequence[ArmScore], k: float) -> float:
    # fsum rounds once, so that the same ranks in another order of lists tie exactly.
    fused = fsum(lists[score.arm].weight / (k + score.rank) for score in scores)
    finders = {score.arm for score in scores}
    applying = [ranked.weight for arm, ranked in enumerate(lists) if arm in finders or ranked.space in spaces]
    if len(applying) == len(lists):
        return fused
    return fused / fsum(applying) * fsum(ranked.weight for ranked in lists)
