"""What `medley plan` computes: estimates that follow from their constants, and choices that follow from estimates."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from medley.cli.app import medley
from medley.sizing import Machine, Workload, build_plan, constants, parse_count, parse_spaces

GIB = 2**30


def of(items: int, machine: Machine | None = None, index: str | None = None, **workload: Any) -> dict[str, Any]:
    found = build_plan(Workload(items, {"clip": 512}, **workload), machine or Machine(), index)
    return {each.index: each for each in found.estimates} | {"choice": found.choice.index}


def told(*arguments: str) -> Result:
    return CliRunner().invoke(medley, ["plan", *arguments])


def test_memory_is_that_of_vectors_ids_and_metadata() -> None:
    estimate = of(1_000_000, storage="float32", metadata_bytes=0)["exact"]
    assert estimate.memory_bytes == 1_000_000 * (4 * 512 + constants.ITEM_BYTES)


def test_twice_the_items_take_twice_the_scan_and_hardly_more_of_a_walk() -> None:
    once, twice = of(1_000_000), of(2_000_000)
    assert twice["exact"].query_seconds == pytest.approx(2 * once["exact"].query_seconds)
    assert once["hnsw"].query_seconds < twice["hnsw"].query_seconds < 1.1 * once["hnsw"].query_seconds


def test_spaces_add_up() -> None:
    both = build_plan(Workload(1000, {"clip": 512, "text": 384}, metadata_bytes=0), Machine()).estimates[0]
    clip = build_plan(Workload(1000, {"clip": 512}, metadata_bytes=0), Machine()).estimates[0]
    text = build_plan(Workload(1000, {"text": 384}, metadata_bytes=0), Machine()).estimates[0]
    assert both.query_seconds == pytest.approx(clip.query_seconds + text.query_seconds)
    assert both.memory_bytes == pytest.approx(clip.memory_bytes + text.memory_bytes - 1000 * constants.ITEM_BYTES)


def test_more_queries_take_more_machines() -> None:
    few, many = (of(1_000_000, queries_per_second=each)["exact"].machines for each in (1, 10_000))
    assert few == 1
    assert many == pytest.approx(10_000 * of(1_000_000)["exact"].query_seconds / 16 / constants.LOAD_SHARE, abs=1)


@pytest.mark.parametrize("index", ["exact", "hnsw", "ivf", "gpu"])
def test_as_many_items_as_fit_fit_and_one_more_does_not(index: str) -> None:
    most = of(1000)[index].max_items
    assert of(most)[index].machines is not None
    assert of(most + 1)[index].machines is None
    assert of(most)[index].memory_bytes <= 64 * GIB * constants.MEMORY_SHARE


def test_the_simplest_index_that_suits_is_chosen() -> None:
    assert of(100_000)["choice"] == "exact"
    assert of(10_000_000)["choice"] == "hnsw"
    assert of(18_000_000)["choice"] == "gpu"
    assert of(100_000_000)["choice"] == "milvus"
    assert of(100_000, index="ivf")["choice"] == "ivf"


def test_many_queries_choose_a_graph_where_few_leave_the_scan() -> None:
    assert of(1_000_000, queries_per_second=10)["choice"] == "exact"
    assert of(1_000_000, queries_per_second=2000)["choice"] == "hnsw"


@pytest.mark.parametrize(
    ("written", "number"), [("7", 7), ("250k", 250_000), ("1.5M", 1_500_000), ("1B", 10**9), ("1_000", 1000)]
)
def test_counts_are_read_as_people_write_them(written: str, number: int) -> None:
    assert parse_count(written) == number


@pytest.mark.parametrize("written", ["", "M", "-1", "0", "10X", "1e6", "2000B", "ten"])
def test_other_counts_are_refused_by_name(written: str) -> None:
    with pytest.raises(ValueError, match=repr(written)):
        parse_count(written)


def test_spaces_are_read() -> None:
    assert parse_spaces("clip:512, text:384") == {"clip": 512, "text": 384}


@pytest.mark.parametrize("written", ["", "clip", "clip:", ":512", "clip:x", "clip:0", "clip:5000", "a:1,a:2", "a:1,"])
def test_other_spaces_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match="space"):
        parse_spaces(written)


def test_the_command_prints_each_way_and_the_one_suggested() -> None:
    result = told("--items", "10M", "--spaces", "clip:512,text:384", "--memory-gib", "128")
    assert result.exit_code == 0
    for wanted in (
        "10,000,000 items",
        "clip (512), text (384)",
        "exact",
        "hnsw*",
        "Suggested hnsw",
        "A snapshot takes",
    ):
        assert wanted in result.output


def test_the_command_answers_in_json() -> None:
    result = told("--items", "1M", "--items", "1B", "--index", "hnsw", "--json")
    small, large = json.loads(result.output)
    assert (small["workload"]["items"], large["choice"]) == (1_000_000, "hnsw")
    assert [each["index"] for each in large["estimates"]] == ["exact", "hnsw", "ivf", "gpu", "milvus"]
    assert large["estimates"][1]["machines"] is None


def test_what_was_asked_for_and_does_not_fit_is_said() -> None:
    assert "hnsw does not fit" in told("--items", "1B", "--index", "hnsw").output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--items"),
        (["--items", "many"], "many"),
        (["--items", "1M", "--spaces", "clip"], "clip"),
        (["--items", "1M", "--storage", "int4"], "int4"),
        (["--items", "1M", "--index", "flat"], "flat"),
        (["--items", "1M", "--queries-per-second", "0"], "--queries-per-second"),
        (["--items", "1M", "--memory-gib", "-1"], "--memory-gib"),
        (["--items", "1M", "--memory-gib", "nan"], "--memory-gib"),
        (["--items", "1M", "--gpu-memory-gib", "inf"], "--gpu-memory-gib"),
        (["--items", "1M", "--queries-per-second", "inf"], "--queries-per-second"),
        (["--items", "1M", "--metadata-bytes", "-1"], "--metadata-bytes"),
    ],
)
def test_wrong_usage_names_what_is_wrong(arguments: list[str], named: str) -> None:
    result = told(*arguments)
    assert result.exit_code == 2
    assert named in result.output
