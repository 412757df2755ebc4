"""The benchmark with the real rooms around it: synthetic people, PhotoMaker on a tiny random pipeline, small judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny import tiny_adapter, tiny_pipeline

from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.evaluation.judges.bundled import BundledJudge
from photomaker.evaluation.people.references import FaceReferences
from photomaker.evaluation.people.world import SyntheticWorld
from photomaker.evaluation.plans.evaluate.plan import run
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.prompts import ATTRIBUTES, PROMPTS
from photomaker.evaluation.running.methods import Entry, base_and_adapter, open_method
from photomaker.evaluation.running.worker import Tools, Worker
from photomaker.faces import BundledFaces, BundledRecogniser
from photomaker.faces.attributes import AttributeClassifier, AttributeConfig, AttributeNetwork
from photomaker.faces.crops import face_crop
from photomaker.faces.networks import MixerConfig, MixerRecogniser, NextConfig, NextRecogniser
from photomaker.synthetic.marks import MARKS
from photomaker.types import Face

WORDS = {
    name: tuple(sorted({"none", *(prompt.states[name] for prompt in PROMPTS if name in prompt.states)}))
    for name in ATTRIBUTES
}


class MiddleFace(BundledFaces):
    """Finds a face in the middle of every picture that is not of one colour."""

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: Image.Image) -> list[Face]:
        self.seen += 1
        if np.ptp(np.asarray(image)) == 0:
            return []
        w, h = image.size
        small = Face((0.0, 0.0, w / 8, h / 8), 0.9, np.zeros((5, 2)))
        return [small, Face((w / 4, h / 4, 3 * w / 4, 3 * h / 4), 0.5, np.zeros((5, 2)))]

    def person_mask(self, image: Image.Image, face: Face) -> np.ndarray:
        assert face.score == 0.5
        return np.full((image.height, image.width), 255, np.uint8)


def open_judge() -> BundledJudge:
    network = MixerRecogniser(MixerConfig(channels=8, blocks=1, token_hidden=4, channel_hidden=8, width=16))
    attributes = AttributeNetwork(AttributeConfig(WORDS, channels=(4, 6, 8)))
    return BundledJudge(MiddleFace(), BundledRecogniser(network), AttributeClassifier(attributes), "random")


def test_the_judge_takes_the_largest_face_and_leaves_zeros_where_there_is_none() -> None:
    judge = open_judge()
    world = SyntheticWorld()
    photos = world.photos(world.people("test", 1)[0], "unseen", 2)
    blank = Image.new("RGB", photos[0].size)
    measured = judge.measure([photos[0], blank, photos[1]])
    assert measured.found.tolist() == [True, False, True]
    assert np.allclose(np.linalg.norm(measured.embeddings[[0, 2]], axis=1), 1, atol=1e-5)
    assert set(measured.labels) == set(ATTRIBUTES)
    assert all(word in WORDS[name] for name, words in measured.labels.items() for word in words)
    assert judge.measure([blank, blank]).embeddings.shape == measured.embeddings[:2].shape
    assert (measured.more["sharpness"] > 0).tolist() == [True, False, True]
    width = measured.more["face_features"].shape[1]
    assert width > 8
    assert np.any(measured.more["face_features"] != 0, axis=1).tolist() == [True, False, True]
    assert judge.measure([blank]).more["face_features"].shape == (1, width)
    assert "third" not in measured.more


def test_a_third_recogniser_is_measured_with_where_there_is_one() -> None:
    network = NextRecogniser(NextConfig(width=16, channels=(8, 8, 8), blocks=(1, 1, 1)))
    attributes = AttributeNetwork(AttributeConfig(WORDS, channels=(4, 6, 8)))
    third = BundledRecogniser(network)
    judge = BundledJudge(MiddleFace(), third, AttributeClassifier(attributes), "random", third)
    world = SyntheticWorld()
    measured = judge.measure(world.photos(world.people("test", 1)[0], "unseen", 2))
    assert np.allclose(measured.more["third"], measured.embeddings)


def test_marks_are_read_off_faces_where_there_is_a_classifier_for_them() -> None:
    network = MixerRecogniser(MixerConfig(channels=8, blocks=1, token_hidden=4, channel_hidden=8, width=16))
    attributes = AttributeClassifier(AttributeNetwork(AttributeConfig(WORDS, channels=(4, 6, 8))))
    marks = AttributeClassifier(AttributeNetwork(AttributeConfig(MARKS, size=96, channels=(4, 6, 8))))
    judge = BundledJudge(MiddleFace(), BundledRecogniser(network), attributes, "random", marks=marks)
    photo = SyntheticWorld().photos(2_000_000, "unseen", 1)[0]
    measured = judge.measure([photo, Image.new("RGB", photo.size)])
    face = next(iter(MiddleFace().detect(photo)[1:]))
    seen = marks.predict([face_crop(photo, face, 96)])
    for name, words in MARKS.items():
        assert measured.labels[name].tolist() == [words[int(seen[name][0])], ""]


def test_references_have_the_largest_face_and_a_mask_and_need_a_face() -> None:
    prepare = FaceReferences(MiddleFace())
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    blank = Image.new("RGB", (16, 16))
    made = prepare([blank, photo], "Ada")
    assert [reference.name for reference in made] == ["Ada, photo 2"]
    assert made[0].face is not None
    assert made[0].face.score == 0.5
    assert made[0].mask is not None
    assert made[0].mask.shape == (16, 16)
    with pytest.raises(PhotoError, match="no face was found in any photo of Ada"):
        prepare([blank], "Ada")


def test_photomaker_runs_on_a_random_pipeline(tmp_path: Path) -> None:
    settings = EvaluationSettings(
        base=tiny_pipeline(tmp_path), adapter=tiny_adapter(tmp_path), out=tmp_path / "out", people=3, gallery=3,
        sweep_people=2, prompts=2, seeds=1, references=2, unseen=2, steps=2, merges=(0.5,), guidances=(), samples=10,
        processes=1, device="cpu", parts=("sweep", "main"),
    )  # fmt: skip
    tools = Tools(judge=lambda _: open_judge(), references=lambda _: FaceReferences(MiddleFace()))
    result = run(settings, lambda *_: None, tools)
    found = result.document["figures"]
    assert found["likeness_cosine"]["value"] is not None
    assert 0 <= found["prompt_accuracy"]["value"] <= 1
    assert result.document["chosen"]["merge"] == 0.5
    assert str(tmp_path) not in result.json.read_text()
    assert str(tmp_path) not in result.markdown.read_text()
    worker = Worker(settings, tools)
    assert worker.method(settings.entry).name == "photomaker"


def test_an_unknown_method_is_refused_before_any_model_is_opened() -> None:
    for opens in (open_method, base_and_adapter):
        with pytest.raises(SettingsError, match="there is no method 'photomakr'; did you mean 'photomaker'"):
            opens(Entry("photomakr"), EvaluationSettings())


def test_hashes_name_what_is_there_and_what_is_on_a_hub(tmp_path: Path) -> None:
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(b"1")
    settings = EvaluationSettings(base="someone/sdxl", adapter=weights)
    first = base_and_adapter(settings.entry, settings)
    assert first["base"] == "someone/sdxl"
    assert len(first["adapter"]) == 16
    weights.write_bytes(b"2")
    assert base_and_adapter(settings.entry, settings)["adapter"] != first["adapter"]
    with pytest.raises(WeightsError, match="nowhere"):
        base_and_adapter(settings.entry, replace(settings, base=tmp_path / "nowhere"))
