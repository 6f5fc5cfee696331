"""The lag of an index counts from when a version not applied was first known."""

import pytest

from services.common.versions import Version
from services.search.replication.lag import Lag


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lag(clock: Clock) -> Lag:
    lag = Lag(clock)
    lag.applied(Version("u1", 5))
    return lag


def test_at_the_newest_version_known_there_is_none(lag: Lag, clock: Clock) -> None:
    lag.observe(Version("u1", 5))
    clock.now += 10
    assert lag.seconds == 0


def test_before_anything_is_applied_it_counts_from_the_first_word_of_a_version(clock: Clock) -> None:
    lag = Lag(clock)
    assert lag.seconds == 0
    lag.observe(Version("u1", 1))
    clock.now += 10
    assert lag.seconds == 10


def test_it_counts_from_the_first_of_several_versions(lag: Lag, clock: Clock) -> None:
    lag.observe(Version("u1", 6))
    clock.now += 10
    lag.observe(Version("u1", 9))
    lag.change_started()
    clock.now += 1
    assert lag.seconds == 11


def test_it_counts_from_the_first_part_of_a_change(lag: Lag, clock: Clock) -> None:
    lag.change_started()
    clock.now += 3
    lag.change_started()
    lag.observe(Version("u1", 6))
    assert lag.seconds == 3
    lag.applied(Version("u1", 6))
    assert lag.seconds == 0


def test_an_older_version_applied_is_not_the_one_named(lag: Lag, clock: Clock) -> None:
    lag.observe(Version("u1", 9))
    clock.now += 2
    lag.change_started()
    lag.applied(Version("u1", 8))
    assert lag.seconds == 2
    lag.applied(Version("u1", 9))
    assert lag.seconds == 0


def test_a_collection_made_again_is_behind_until_it_is_applied(lag: Lag, clock: Clock) -> None:
    lag.observe(Version("u2", 1))
    clock.now += 4
    assert lag.seconds == 4
    lag.applied(Version("u2", 1))
    assert lag.seconds == 0


def test_late_word_of_a_dropped_collection_is_forgotten_at_the_next(lag: Lag, clock: Clock) -> None:
    lag.observe(Version("u0", 99))
    clock.now += 4
    lag.observe(Version("u1", 5))
    assert lag.seconds == 0
