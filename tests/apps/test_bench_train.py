"""The training benchmark, rehearsed with a tiny model: every way takes steps, alone in its process."""

import json

import pytest

from photomaker.apps import bench, bench_train
from photomaker.errors import SettingsError

TINY = {"side": 64, "steps": 1, "rank": 4, "sizes": bench.Sizes.tiny()}


@pytest.mark.parametrize("number", [1, 5, 6])
def test_a_way_takes_steps_and_trains_what_it_says(number):
    found = bench_train.measured(bench_train.TrainBenchSettings(**TINY), bench_train.WAYS[number])
    lora = bench_train.measured(bench_train.TrainBenchSettings(**TINY), bench_train.REFERENCE)["trained"]
    assert found["seconds"] > 0 and found["peak_gib"]["process"] > 0
    assert found["trained"] > lora


def test_ways_run_apart_and_are_told(tmp_path):
    document = bench_train.run(bench_train.TrainBenchSettings(**TINY, ways=(0,)), tmp_path)
    assert [one["way"] for one in document["ways"]] == ["diffusers' LoRA step"]
    assert all(one["seconds"] > 0 for one in document["ways"])
    page = (tmp_path / "train_speed.md").read_text()
    assert "REHEARSAL" in page and "| 1.000 |" in page
    assert json.loads((tmp_path / "train_speed.json").read_text())["ways"] == document["ways"]


def test_a_way_that_dies_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_train, "_apart", lambda *_: {"failed": "ended with status -9"})
    document = bench_train.run(bench_train.TrainBenchSettings(**TINY, ways=(0,)), tmp_path)
    assert document["ways"][0]["failed"] == "ended with status -9"
    assert "ended with status -9" in (tmp_path / "train_speed.md").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"side": 100}, "multiple of 32"), ({"steps": 0}, "steps is 0"), ({"ways": (99,)}, "no way 99")],
)
def test_numbers_out_of_range_are_told(change, words):
    with pytest.raises(SettingsError, match=words):
        bench_train.TrainBenchSettings(**change)
