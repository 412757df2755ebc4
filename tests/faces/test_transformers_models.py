"""Segmenters, captioners and CLIP on random models: the whole loading path, without a network."""

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tests.faces import tiny_models

from photomaker.errors import WeightsError
from photomaker.faces.plugins import PlugIn
from photomaker.types import Face

FACE = Face((20.0, 10.0, 50.0, 45.0), 1.0, np.zeros((5, 2), np.float32))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("models"), {}

    def get(name):
        if name not in made:
            made[name] = getattr(tiny_models, name)(root / name)
        return made[name]

    return get


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(low, low + 100, (height, width, 3), dtype=np.uint8))
        for low, height, width in ((0, 60, 80), (150, 80, 60), (60, 64, 64))
    ]


class Segments:
    """Stands in for a processor: the segments are given."""

    def __init__(self, segmentation, people):
        import torch

        info = [{"id": number, "label_id": label} for number, label in people.items()]
        self.found = {"segmentation": torch.tensor(segmentation), "segments_info": info}

    def __call__(self, images, return_tensors):
        import torch

        return {"pixel_values": torch.zeros(1, 3, 64, 64)}

    def post_process_panoptic_segmentation(self, outputs, target_sizes):
        assert target_sizes == [self.found["segmentation"].shape]
        return [self.found]


@pytest.mark.parametrize("name", ["mask2former", "eomt"])
def test_a_segmenter_gives_a_mask_of_the_pictures_size(name, folders, pictures):
    segmenter = PlugIn(name, str(folders(name))).open("segmenter")
    for picture in pictures:
        mask = segmenter.person_mask(picture, FACE)
        assert mask.shape == (picture.height, picture.width) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}


def test_the_person_whose_segment_overlaps_the_face_most_is_taken(folders, pictures):
    segmenter = PlugIn("eomt", str(folders("eomt"))).open("segmenter")
    segmentation = np.full((60, 80), -1)
    segmentation[:, :30], segmentation[:, 30:55], segmentation[:, 55:] = 1, 2, 3
    segmenter._processor = Segments(segmentation, {1: 0, 2: 0, 3: 2})
    assert np.array_equal(segmenter.person_mask(pictures[0], FACE) > 0, segmentation == 2)
    segmenter._processor = Segments(segmentation, {1: 0, 2: 1, 3: 2})
    assert np.array_equal(segmenter.person_mask(pictures[0], FACE) > 0, segmentation == 1)
    segmenter._processor = Segments(segmentation, {1: 1, 2: 2, 3: 2})
    assert not segmenter.person_mask(pictures[0], FACE).any()


def test_a_model_without_people_is_refused(tmp_path):
    place = tiny_models.eomt(tmp_path, labels={0: "cat", 1: "dog"})
    with pytest.raises(WeightsError, match="no class 'person' among its 2"):
        PlugIn("eomt", str(place)).open("segmenter")


@pytest.mark.parametrize("name", ["blip2", "florence2"])
def test_captions_are_the_same_for_a_seed_whatever_stands_beside(name, folders, pictures):
    captioner = PlugIn(name, str(folders(name))).open("captioner")
    likely = captioner.caption_batch(pictures)
    assert likely == captioner.caption_batch(pictures) and len(likely) == 3
    assert all(caption == " ".join(caption.split()) and "<" not in caption for caption in likely)
    drawn = captioner.caption_batch(pictures, [7, 8, 9])
    assert drawn[1:] == captioner.caption_batch(pictures[1:], [8, 9])
    assert drawn != captioner.caption_batch(pictures, [17, 18, 19])
    assert captioner.caption_batch([]) == []


def test_clip_scores_lie_between_0_and_1_and_depend_on_both(folders, pictures):
    scorer = PlugIn("clip", str(folders("clip"))).open("text-image scorer")
    texts = ["a man in the snow", "woman", "a red hat", "portrait of a boy", "sea"]
    first, second = scorer.score(pictures[0], texts), scorer.score(pictures[1], texts)
    assert all(0 <= value <= 1 for value in first + second)
    assert len(set(first)) > 2 and first != second
    assert scorer.score(pictures[0], texts[1:2]) == pytest.approx(first[1:2], abs=1e-5)


def test_clip_gives_the_cosine(folders, pictures):
    import torch
    from transformers import CLIPModel, CLIPProcessor

    model, processor = (
        CLIPModel.from_pretrained(folders("clip")),
        CLIPProcessor.from_pretrained(folders("clip")),
    )
    texts = ["a man", "a woman in a red hat"]
    with torch.no_grad():
        outputs = model(**processor(text=texts, images=pictures[0], padding=True, return_tensors="pt"))
    expected = (outputs.logits_per_image[0] / model.logit_scale.detach().exp()).clamp(0).tolist()
    assert PlugIn("clip", str(folders("clip"))).open("text-image scorer").score(
        pictures[0], texts
    ) == pytest.approx(expected, abs=1e-5)


def test_folders_that_hold_no_model(folders, tmp_path):
    with pytest.raises(WeightsError, match="not a model folder"):
        PlugIn("mask2former", str(tmp_path)).open("segmenter")
    with pytest.raises(WeightsError, match="not a model folder"):
        PlugIn("clip", "nowhere at all").open("text-image scorer")
    with pytest.raises(WeightsError, match="cannot be downloaded from the hub"):
        PlugIn("blip2", "nobody/nothing").open("captioner")
    (tmp_path / "config.json").write_text('{"model_type": "eomt"}')
    with pytest.raises(WeightsError, match="cannot be loaded"):
        PlugIn("eomt", str(tmp_path)).open("segmenter")


def test_weights_that_could_run_code_are_refused(folders, tmp_path):
    import shutil

    import torch

    shutil.copytree(folders("clip"), tmp_path / "clip")
    weights = tmp_path / "clip" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "clip" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        PlugIn("clip", str(tmp_path / "clip")).open("text-image scorer")


def test_damaged_weights_are_told_in_one_sentence(folders, tmp_path):
    import shutil

    shutil.copytree(folders("clip"), tmp_path / "clip")
    weights = tmp_path / "clip" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be loaded") as told:
        PlugIn("clip", str(tmp_path / "clip")).open("text-image scorer")
    assert "\n" not in str(told.value)
