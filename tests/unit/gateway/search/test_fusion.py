"""Reciprocal rank fusion."""

import itertools
import math
import random

import pytest

from services.gateway.core.index import IndexHit
from services.gateway.search.fusion import ArmScore, RankedList, reciprocal_rank_fusion


def ranked(ids: str, space: str = "a", weight: float = 1.0, spaces: str = "ab") -> RankedList:
    return RankedList(
        space, weight, [IndexHit(item_id, 1 / place, list(spaces)) for place, item_id in enumerate(ids, 1)]
    )


def scores(*lists: RankedList, k: float = 60) -> dict[str, float]:
    return {hit.id: hit.score for hit in reciprocal_rank_fusion(lists, k)}


def order(*lists: RankedList, k: float = 60) -> str:
    return "".join(hit.id for hit in reciprocal_rank_fusion(lists, k))


def test_score_is_the_sum_of_reciprocal_ranks_from_one() -> None:
    found = scores(ranked("xy"), ranked("y", space="b"))
    assert found == {"y": pytest.approx(1 / 62 + 1 / 61), "x": pytest.approx(1 / 61)}


def test_agreement_beats_a_single_first_place() -> None:
    assert order(ranked("xz"), ranked("yz", space="b")) == "zxy"


def test_weight_multiplies_a_list() -> None:
    assert order(ranked("x"), ranked("y", space="b", weight=2)) == "yx"
    assert scores(ranked("x", weight=3))["x"] == pytest.approx(3 / 61)


def test_k_damps_the_lead_of_the_first_ranks() -> None:
    lists = [ranked("xpz"), ranked("yqz", space="b")]
    assert order(*lists, k=0.1)[0] == "x"
    assert order(*lists, k=60)[0] == "z"
    assert scores(ranked("xz"), k=1) == {"x": 1 / 2, "z": 1 / 3}


def test_ties_break_by_id() -> None:
    assert order(ranked("b"), ranked("a", space="b")) == "ab"


def test_ties_break_by_utf8_bytes_and_not_by_utf16() -> None:
    assert order(ranked("\U00010000"), ranked("\uffee", space="b")) == "\uffee\U00010000"


def test_the_same_ranks_in_other_lists_tie_exactly() -> None:
    # 1/61 + 1/62 + 1/64 is not the same number in every order of adding.
    orders = list(itertools.permutations((1, 2, 4)))
    found = [
        reciprocal_rank_fusion([RankedList(str(arm), 1, _with("x", rank)) for arm, rank in enumerate(ranks)])
        for ranks in orders
    ]
    assert len({hit.score for hits in found for hit in hits if hit.id == "x"}) == 1


def _with(item_id: str, rank: int) -> list[IndexHit]:
    ids = [f"other{place}" for place in range(1, rank)] + [item_id]
    return [IndexHit(each, 0.0, ["0", "1", "2"]) for each in ids]


def test_a_list_in_whose_space_an_item_has_no_vector_is_no_zero() -> None:
    pictures = RankedList("a", 1, [IndexHit("both", 0.9, ["a", "b"]), IndexHit("bare", 0.8, ["a"])])
    texts = RankedList("b", 3, [IndexHit("both", 0.1, ["a", "b"])])
    found = {hit.id: hit.score for hit in reciprocal_rank_fusion([pictures, texts])}
    assert found["bare"] == pytest.approx((1 / 62) * (1 + 3) / 1)
    assert found["both"] == pytest.approx(1 / 61 + 3 / 61)


def test_an_item_that_ranks_low_in_its_space_is_scored_without_it() -> None:
    lists = [ranked("x", "a", spaces="ab"), ranked("y", "b", spaces="ab")]
    assert scores(*lists)["x"] == pytest.approx(1 / 61)


def test_a_single_list_keeps_its_order_and_reports_raw_scores() -> None:
    hits = reciprocal_rank_fusion([ranked("cab")])
    assert [(hit.id, hit.arms) for hit in hits] == [
        ("c", (ArmScore(0, 1, 1.0),)),
        ("a", (ArmScore(0, 2, 1 / 2),)),
        ("b", (ArmScore(0, 3, 1 / 3),)),
    ]


def test_nothing_found_is_an_empty_ranking() -> None:
    assert reciprocal_rank_fusion([ranked(""), ranked("", space="b")]) == []


@pytest.mark.parametrize("weights", [(5e-324, 1e300), (1e300, 5e-324), (1e-300, 1e-300)])
def test_extreme_weights_give_numbers(weights: tuple[float, float]) -> None:
    lists = [ranked("x", "a", weights[0], spaces="a"), ranked("y", "b", weights[1], spaces="b")]
    assert all(0 <= score < math.inf for score in scores(*lists).values())


def test_order_of_lists_and_a_common_factor_change_no_ranking() -> None:
    chance = random.Random(7)
    for _ in range(50):
        lists = []
        for space in "abc":
            ids = chance.sample("pqrstuvwxyz", 6)
            hits = [IndexHit(item_id, 0, [space, *("abc" if item_id in "pqrs" else "")]) for item_id in ids]
            lists.append(RankedList(space, chance.choice([0.5, 1, 2]), hits))
        doubled = [RankedList(each.space, each.weight * 2, each.hits) for each in lists]
        assert order(*lists) == order(*doubled)
        alone = [RankedList(each.space, 1, each.hits) for each in lists]
        assert [hit.score for hit in reciprocal_rank_fusion(alone)] == [
            hit.score for hit in reciprocal_rank_fusion(alone[::-1])
        ]
