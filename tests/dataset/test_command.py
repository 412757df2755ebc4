"""`photomaker dataset`: from drawn people to shards with the bundled models, and orders that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from tests.dataset import fakes
from typer.testing import CliRunner

from photomaker import weights
from photomaker.apps.cli import app
from photomaker.dataset.shards import Shards

ROOT = Path(__file__).parents[2]
shipped = pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(app, ["dataset", *map(str, words)], prog_name="photomaker")

    return run


@pytest.fixture
def config(tmp_path):
    """The example for drawn people, with an input of this test."""
    stated = yaml.safe_load((ROOT / "examples/configs/dataset_small.yaml").read_text())
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({**stated, "input": {"folders": str(tmp_path / "in")}, "out": str(tmp_path / "out")})
    )
    return path


def refused(run, *words):
    result = run(*words)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert line.startswith("photomaker: ")
    return line


@pytest.mark.bundled
@pytest.mark.slow
@shipped
def test_from_drawn_people_to_shards(run, config, tmp_path):
    from photomaker.apps.people import draw
    from photomaker.synthetic import TEST

    for index in range(TEST + 700_000, TEST + 700_003):
        folder = tmp_path / "in" / str(index)
        folder.mkdir(parents=True)
        for place, picture in enumerate(draw(index, 4, 256, style="photo")):
            picture.save(folder / f"{place}.png")
    fakes.photo(1, (256, 256)).save(folder / "wall.png")
    options = ["--set", "run.workers=1"]
    first = run("build", config, *options, "--stages", "gather:dedupe")
    assert first.exit_code == 0, first.output
    shown = run("stages", config).stdout
    assert "1 of 1" in shown
    assert "0 of 1" in shown
    result = run("build", config, *options)
    assert result.exit_code == 0, result.output
    assert "no face" in result.stdout
    data = Shards.open(tmp_path / "out" / "shards")
    assert 9 <= len(data) <= 12
    for row in data.table.to_pylist():
        assert row["caption"][row["class_start"] : row["class_end"]].lower() == row["class_word"]
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 < x1 <= row["width"]
        assert 0 <= y0 < y1 <= row["height"]
    made = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert {one["for"] for one in made["models"]} >= {"detector", "recogniser", "segmenter", "captioner"}
    assert all(one["licence"] for one in made["models"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Apache-2.0" in page
    (tmp_path / "out" / "report.html").unlink()
    assert run("report", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "report.html").read_text() == page
    line = refused(run, "build", config, "--set", "detect.smallest=48")
    assert "detect.smallest was 32.0 and is 48.0" in line
    assert "--paper" in run("build", "--help").output


def test_a_dry_run_writes_nothing(run, config, tmp_path):
    fakes.album(tmp_path / "in")
    result = run("build", config, "--dry-run", "--stages", "detect:segment", "--paper")
    assert result.exit_code == 0, result.output
    rows = {
        line.split("│")[1].strip(): line.split("│")[2].strip()
        for line in result.stdout.splitlines()
        if "│" in line
    }
    assert [name for name, wanted in rows.items() if wanted == "yes"] == ["detect", "verify", "segment"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "gather.shortside=9"], "did you mean gather.short_side?"),
        (["--set", "gather.short_side=few"], "gather.short_side in "),
        (["--set", "input.folders=null"], "give one of urls, folders, img2dataset"),
        (["--set", "input.folders=/none"], "there is no folder /none"),
        (["--stages", "detekt"], "there is no stage 'detekt'; the stages are gather, dedupe, detect"),
        (["--fresh", "detekt"], "there is no stage 'detekt'"),
        (["--set", "run.workers=0"], "run.workers is 0"),
        (["--set", "unit=0"], "unit is 0"),
        (["--set", "run.executor=slurm"], "run.executor in "),
        (["--set", "out=/proc/self/out"], "cannot write to /proc/self/out"),
    ],
)
def test_orders_that_are_refused(run, config, tmp_path, words, told):
    fakes.album(tmp_path / "in")
    assert told in refused(run, "build", config, *words)
    assert not (tmp_path / "out").exists()


def test_a_config_that_is_none(run, tmp_path):
    assert "cannot read the settings file" in refused(run, "build", tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    assert "lacks input; add it" in refused(run, "build", tmp_path / "empty.yaml")
    assert "has no dataset built by photomaker" in refused(run, "report", tmp_path)


def test_without_the_extra_it_is_named(run, config, monkeypatch):
    monkeypatch.setattr("photomaker.apps.dataset.find_spec", lambda name: None if name == "pyarrow" else name)
    assert "needs pyarrow; install with: pip install 'photomaker[data]'" in refused(run, "build", config)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "configs").glob("dataset_*.yaml")), ids=lambda p: p.stem
)
def test_the_examples_are_settings(path):
    from photomaker.config import read
    from photomaker.dataset.settings import BuildSettings

    assert read(path, BuildSettings).steps()


def test_every_command_of_the_page_has_its_options_and_settings():
    from photomaker.config import plain
    from photomaker.dataset.listing import Input
    from photomaker.dataset.settings import BuildSettings

    text = (ROOT / "docs" / "dataset.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("photomaker ")]
    assert len(lines) >= 6
    for line in lines:
        words = line.split()
        command = words[1:3] if words[1] == "dataset" else words[1:2]
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).output
        assert all(word in shown for word in words if word.startswith("--")), line
    stated = plain(BuildSettings(Input(folders=Path("in")), Path("out")))
    for name in re.findall(
        r"`((?:gather|dedupe|detect|verify|segment|caption|shard|run|input)\.[a-z_.]+)[`:]", text
    ):
        table = stated
        for part in name.split("."):
            assert part in table, name
            table = table[part]
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
