"""Who reads the clock before vectors learns of every vector that changed meanwhile."""

import numpy as np
import pytest

from services.search.ann.write_clock import ModificationLog


def write(clock: ModificationLog, *slots: int) -> None:
    with clock.writing(np.array(slots)):
        pass


def test_slots_written_since_are_known() -> None:
    clock = ModificationLog()
    write(clock, 0, 1, 2)
    moment = clock.now
    write(clock, 7, 1)
    assert clock.since(moment).tolist() == [1, 7]
    assert clock.later(np.array([0, 1, 2, 7]), moment).tolist() == [False, True, False, True]
    assert clock.since(clock.now).tolist() == []


def test_a_slot_that_is_being_written_is_later_than_the_clock_says() -> None:
    clock = ModificationLog()
    write(clock, 0, 1)
    with clock.writing(np.array([1])):
        assert clock.later(np.array([0, 1]), clock.now).tolist() == [False, True]


def test_a_write_that_failed_moves_no_clock() -> None:
    clock = ModificationLog()
    write(clock, 0)
    with pytest.raises(MemoryError), clock.writing(np.array([5])):
        raise MemoryError
    assert clock.now == 1
    write(clock, 1)
    assert clock.since(1).tolist() == [1, 5]


def test_what_was_indexed_elsewhere_counts_as_old_and_the_rest_as_new() -> None:
    clock = ModificationLog()
    write(clock, 0, 1, 2, 3)
    write(clock, 2)
    clock.forget(np.array([0, 2]))
    assert clock.since(1).tolist() == [1, 3]
    write(clock, 0)
    assert clock.since(1).tolist() == [0, 1, 3]
