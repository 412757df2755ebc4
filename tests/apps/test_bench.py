"""The speed benchmark, rehearsed with a tiny model: what is counted, compared and written."""

import json

import pytest
import torch

from photomaker.apps import bench
from photomaker.encoders import PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken
from photomaker.errors import SettingsError


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    settings = bench.settings_of((64,), steps=2, rounds=1, photos=2, device="cpu", tiny=True)
    return bench.run(settings, out), out


def test_every_way_is_timed_and_compared(document):
    found, out = document
    (picture,) = found["pictures"]
    assert set(picture["seconds"]) > {bench.PLAIN, bench.FUSED}
    assert all(took > 0 for took in picture["seconds"].values())
    assert picture["over_plain"][bench.PLAIN] == 1
    assert picture["difference"]["the same, keys and values of the prompt kept"] == 0
    assert picture["floor_seconds"] > 0
    assert json.loads((out / "sdxl_speed.json").read_text())["pictures"] == found["pictures"]
    page = (out / "sdxl_speed.md").read_text()
    assert "REHEARSAL" in page
    assert "64 x 64" in page


def test_full_sizes_are_those_of_sdxl():
    with torch.device("meta"):
        unet = bench.make_unet(bench.Sizes())
        encoder = PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken()
    assert sum(parameter.numel() for parameter in unet.parameters()) == 2_567_463_684
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 543_395_840


@pytest.mark.parametrize(
    ("change", "words"),
    [({"sides": (60,)}, "multiples of 8"), ({"sides": ()}, "sides"), ({"steps": 0}, "steps is 0")],
)
def test_numbers_out_of_range_are_told(change, words):
    with pytest.raises(SettingsError, match=words):
        bench.BenchSettings(**change)


def test_less_work_is_counted_and_timed(document):
    found, out = document
    (picture,) = found["pictures"]
    work = picture["work_tflop"]
    assert 0 < work["turbo"] < work["fast"] < work["exact"]
    assert picture["seconds"]["the same as the third, speed fast"] > 0
    assert "TFLOP (fast)" in (out / "sdxl_speed.md").read_text()
