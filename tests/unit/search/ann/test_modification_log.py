"""Who reads the clock before vectors learns of every vector that changed meanwhile."""

import numpy as np
import pytest

from services.search.ann.modification_log import ModificationLog


def write(modifications: ModificationLog, *slots: int) -> None:
    with modifications.recording(np.array(slots)):
        pass


def test_slots_written_since_are_known() -> None:
    modifications = ModificationLog()
    write(modifications, 0, 1, 2)
    sequence_number = modifications.sequence_number
    write(modifications, 7, 1)
    assert modifications.slots_after(sequence_number).tolist() == [1, 7]
    assert modifications.modified_after(np.array([0, 1, 2, 7]), sequence_number).tolist() == [False, True, False, True]
    assert modifications.slots_after(modifications.sequence_number).tolist() == []


def test_a_slot_that_is_being_written_is_later_than_the_clock_says() -> None:
    modifications = ModificationLog()
    write(modifications, 0, 1)
    with modifications.recording(np.array([1])):
        assert modifications.modified_after(np.array([0, 1]), modifications.sequence_number).tolist() == [False, True]


def test_a_write_that_failed_moves_no_clock() -> None:
    modifications = ModificationLog()
    write(modifications, 0)
    with pytest.raises(MemoryError), modifications.recording(np.array([5])):
        raise MemoryError
    assert modifications.sequence_number == 1
    write(modifications, 1)
    assert modifications.slots_after(1).tolist() == [1, 5]


def test_what_was_indexed_elsewhere_counts_as_old_and_the_rest_as_new() -> None:
    modifications = ModificationLog()
    write(modifications, 0, 1, 2, 3)
    write(modifications, 2)
    modifications.reset(np.array([0, 2]))
    assert modifications.slots_after(1).tolist() == [1, 3]
    write(modifications, 0)
    assert modifications.slots_after(1).tolist() == [0, 1, 3]
