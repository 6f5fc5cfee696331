"""A process that cannot start says why in one line."""

import pytest

from services.common.process import run_process
from services.search.settings import SearchSettings
from services.store.settings import StoreSettings


async def never() -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SEARCH_THREADS", "-1", "SEARCH_THREADS: Input should be greater than or equal to 0"),
        ("SEARCH_ENGINE", "bogus", "SEARCH_ENGINE: Input should be 'memory', 'faiss'"),
        ("SEARCH_ENGINE", "milvus", "SEARCH_MILVUS_URI must name a Milvus"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert complaint(SearchSettings).startswith(f"search cannot start: {said}")


def test_several_bad_settings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_THREADS", "none")
    monkeypatch.setenv("STORE_ROWS", "paper")
    said = complaint(StoreSettings)
    assert "STORE_THREADS: " in said
    assert "STORE_ROWS: " in said


def complaint(settings: type[SearchSettings] | type[StoreSettings]) -> str:
    def serve() -> object:
        settings()
        return never()

    name = settings.__name__.removesuffix("Settings").lower()
    with pytest.raises(SystemExit) as ended:
        run_process(name, serve)  # type: ignore[arg-type]
    said = str(ended.value.code)
    assert len(said.splitlines()) == 1
    return said
