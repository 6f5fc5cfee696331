import pytest

from services.common.admission import Admission
from services.common.deadlines import deadline_in
from services.common.errors import DeadlineError, OverloadedError


def test_what_is_over_the_limit_is_refused_with_the_limit() -> None:
    admission = Admission("embedder", 10)
    with admission.admit(6), admission.admit(4):
        with pytest.raises(OverloadedError) as caught, admission.admit(1):
            pass
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.metadata == {"queue": "embedder", "limit": "10"}
    with admission.admit(10):
        pass


def test_an_error_gives_the_place_back() -> None:
    admission = Admission("embedder", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.admit(1):
            raise ZeroDivisionError


def test_nothing_begins_after_the_deadline() -> None:
    with deadline_in(0), pytest.raises(DeadlineError), Admission("embedder", 1).admit(1):
        pass
