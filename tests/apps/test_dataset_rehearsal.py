"""The whole builder on a planted world, by the command, with the bundled plug-ins."""

import json
import socket
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from photomaker.apps.cli import app
from photomaker.dataset.ground_truth import compare_build, read_truth
from photomaker.dataset.shards import Shards

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "dataset.md"
pytestmark = pytest.mark.bundled


def call(*arguments):
    return CliRunner().invoke(app, ["dataset", "rehearse", *map(str, arguments)])


def test_a_small_rehearsal(tmp_path):
    sizes = ("--people", 4, "--photos", 9, "--size", 160, "--groups", 0)
    result = call("--out", tmp_path, *sizes)
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "rehearsal.json").read_text())
    found = {one["what"]: one for one in told["accuracy"]}
    assert [stage["name"] for stage in told["stages"]] == [
        "gather", "dedupe", "detect", "verify", "segment", "caption", "mark", "shard",
    ]  # fmt: skip
    assert told["stages"][0]["in"] == 36
    for what in ("photo that arrives", "gather: corrupt", "duplicate", "face"):
        assert found[what]["precision"] in (None, 1.0) and found[what]["recall"] in (None, 1.0), what
    assert found["overlap of the mask with the true one"]["mean"] > 0.9
    assert found["class word that is true of the person"]["mean"] > 0.7

    shards = Shards.open(tmp_path / "build" / "shards")
    assert len(shards) == told["stages"][-1]["kept"] > 15
    for row in shards.table.to_pylist():
        assert row["caption"][row["class_start"] : row["class_end"]].lower() == row["class_word"]
        assert len(row["embedding"]) == 128 and len(row["landmarks"]) == 10
        area = (row["box"][2] - row["box"][0]) * (row["box"][3] - row["box"][1])
        assert area / (row["width"] * row["height"]) > 0.0999

    before = (tmp_path / "build" / "shards" / "00000.tar").stat().st_mtime_ns
    assert call("--out", tmp_path, *sizes).exit_code == 0
    assert (tmp_path / "build" / "shards" / "00000.tar").stat().st_mtime_ns == before
    # a build of which a part is missing is compared as far as it goes
    for path in (tmp_path / "build" / "mark").glob("*.parquet"):
        path.unlink()
    part = compare_build(tmp_path / "world", tmp_path / "build")
    assert "class word" not in part.markdown() and "mask" in part.markdown()


def test_a_small_rehearsal_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sizes = ("--people", 2, "--photos", 12, "--size", 96, "--groups", 0, "--served", "--port", port)
    result = call("--out", tmp_path, *sizes)
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "rehearsal.json").read_text())
    due = Counter(one["due"] for one in read_truth(tmp_path / "world").values())
    found = {one["what"]: one for one in told["accuracy"]}
    assert {
        what.removeprefix("gather: "): one["true"] for what, one in found.items() if "gather" in what
    } == {reason: count for reason, count in due.items() if reason}
    assert len(due) > 4
    for what, one in found.items():
        if "gather" in what or what == "photo that arrives":
            assert (one["precision"], one["recall"]) == (1.0, 1.0), what
    (gather, *later) = told["stages"]
    assert (gather["in"], gather["kept"]) == (24, due[""]) and later[-1]["kept"] > 5
    assert "--served`" in (tmp_path / "rehearsal.md").read_text()
    sources = [row["source"] for row in Shards.open(tmp_path / "build" / "shards").table.to_pylist()]
    assert all(source.startswith(f"http://127.0.0.1:{port}/") for source in sources)

    # the figures of the rules can be kept from an earlier run, on as many people
    sizes = [40 if one == 0 else one for one in sizes]
    result = call("--out", tmp_path, *sizes, "--measured", PUBLISHED.with_suffix(".json"))
    assert result.exit_code == 0, result.output
    kept, published = (
        path.read_text().split("## Rules")[1] for path in (tmp_path / "rehearsal.md", PUBLISHED)
    )
    assert kept.split("Wrong photos")[1:] == published.split("Wrong photos")[1:]
    assert "measured in an earlier run" in kept
    both = (tmp_path / "rehearsal.json", PUBLISHED.with_suffix(".json"))
    rows, before = (json.loads(path.read_text())["verification"] for path in both)
    assert rows == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--groups", 2), "groups is 2"),
        (("--workers", 0), "workers is 0"),
        (("--photos", 2), "is not a planted world"),
        (("--groups", 3, "--measured", PUBLISHED.with_suffix(".json")), "on 40 people, not 3"),
        (("--measured", PUBLISHED), "is not the result of a rehearsal"),
    ],
)
def test_sizes_out_of_range(tmp_path, arguments, message):
    from photomaker.errors import SettingsError

    result = call("--out", tmp_path / "out", *arguments)
    assert result.exit_code != 0
    assert message in (
        result.output if not isinstance(result.exception, SettingsError) else str(result.exception)
    )
    assert not (tmp_path / "out").exists()
