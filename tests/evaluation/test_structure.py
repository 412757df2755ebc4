"""The part that measures a ControlNet, on fakes that follow the pose of a picture, or do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.fakes import TOOLS, FakeJudge, FakeMethod, FakeWorld

from photomaker.errors import PhotoError, SettingsError
from photomaker.evaluation.plans.evaluate.plan import run
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.running.worker import Worker
from photomaker.types import Identity, Request, Structure

POINTS = np.zeros((5, 2), np.float32)
GREY = 127
"""Of the pictures of the person whose photos show no face, who is the second of the four."""
SETTINGS = EvaluationSettings(
    people=4, gallery=6, prompts=5, seeds=1, steps=2, processes=1, samples=50, method="fake", control="net",
    parts=("structure",),
)  # fmt: skip


def held(picture: Image.Image, at: int) -> Image.Image:
    """The picture with its head so far to the right; 0 has none."""
    pixels = np.array(picture)
    pixels[2, 0] = at
    return Image.fromarray(pixels)


class Posed(FakeWorld):
    def context(self, person: int, seed: int, states: Mapping[str, str], as_class: str = "") -> Image.Image:
        return held(super().context(person, seed, states, as_class), 10 + person % 5)


class Looks(FakeJudge):
    def landmarks(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        at = np.array([np.asarray(one)[2, 0, 0] for one in pictures], np.float32)
        return (
            np.where((at > 0) & (at < GREY), at, np.nan)[:, None, None] * np.array([1.0, 0.0], np.float32)
            + POINTS
        )


class Follows(FakeMethod):
    """Holds the head at 9, and with a ControlNet one pixel beside where it shall be."""

    def generate(
        self, identity: Identity, requests: Sequence[Request], *, watch: object = None
    ) -> list[Image.Image]:
        made = super().generate(identity, requests)
        places = [
            int(np.asarray(one.extras.controls[0].image)[2, 0, 0]) + 1 if one.extras.controls else 9
            for one in requests
        ]
        return [held(one, at) for one, at in zip(made, places, strict=True)]


def follow(model: str, picture: Image.Image, landmarks: np.ndarray, scale: float) -> Structure:
    assert np.isfinite(landmarks).all()
    return Structure(model, picture, scale)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text("{}")
    return tmp_path / "net"


ALL = replace(
    TOOLS, world=lambda _: Posed(), judge=lambda _: Looks(), method=lambda *_: Follows(), follow=follow
)


def test_landmarks_likeness_and_prompts_are_measured_with_and_without_it(net: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, control=str(net), out=tmp_path / "out")
    result = run(settings, lambda *_: None, ALL)
    figures = {name: one["value"] for name, one in result.document["figures"].items()}
    test = Posed().people("test", 6)
    apart = np.mean([10 + test[row + 1] % 5 - 9 for row in (0, 2, 3)])
    for who in ("person", "text"):
        assert figures[f"landmark_error_{who}_free"] == pytest.approx(apart)
        assert figures[f"landmark_error_{who}_followed"] == pytest.approx(1)
        assert figures[f"faces_{who}_followed"] == 0.75
        assert figures[f"accuracy_{who}_free"] == figures[f"accuracy_{who}_followed"] > 0
    assert figures["likeness_change"] == pytest.approx(0)
    assert figures["likeness_free"] == figures["likeness_followed"] > 0.5
    assert result.document["detail"]["structure"] == {"control": "net", "scale": 1.0}
    page = result.markdown.read_text()
    assert "landmark error in pixels, the person with it | 1.0" in page and str(tmp_path) not in page
    made = FakeMethod.generated
    run(settings, lambda *_: None, ALL)
    assert FakeMethod.generated == made


def test_pictures_without_a_face_do_not_count_in_the_error(net: Path, tmp_path: Path) -> None:
    class Turns(Follows):
        def generate(
            self, identity: Identity, requests: Sequence[Request], *, watch: object = None
        ) -> list[Image.Image]:
            first, *others = super().generate(identity, requests)
            return [held(first, 0), *others]

    settings = replace(SETTINGS, control=str(net), out=tmp_path / "out")
    tools = replace(ALL, method=lambda *_: Turns())
    figures = run(settings, lambda *_: None, tools).document["figures"]
    assert figures["landmark_error_person_followed"]["value"] == pytest.approx(1)


def test_a_person_without_a_face_in_any_picture(net: Path) -> None:
    from photomaker.evaluation.running.picture_sets import Followed, Pictures

    class Nobody(Looks):
        def landmarks(self, pictures: Sequence[Image.Image]) -> np.ndarray:
            return np.full((len(pictures), 5, 2), np.nan)

    asked = Pictures((2_000_000,), (), 1, ("a photo",), (1,), 2, None, None)
    worker = Worker(replace(SETTINGS, control=str(net)), replace(ALL, judge=lambda _: Nobody()))
    with pytest.raises(PhotoError, match="person 2000001 shows no face in 10 pictures"):
        Followed(asked, str(net), "hash", 1.0, (2_000_001, 5)).make(worker)


def test_the_part_wants_a_controlnet_and_is_not_run_unasked() -> None:
    with pytest.raises(SettingsError, match="the part structure measures a ControlNet and none is given"):
        EvaluationSettings(parts=("structure",))
    with pytest.raises(SettingsError, match="control_scale is 0"):
        EvaluationSettings(control_scale=0.0)
    assert "structure" not in EvaluationSettings().parts
