"""The networks, their files, and the bundled backends on top, with tiny random weights."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from photomaker.errors import WeightsError
from photomaker.faces import BundledFaces, BundledRecogniser
from photomaker.faces.attributes import AttributeClassifier, AttributeConfig, AttributeNetwork
from photomaker.faces.bundled import decode
from photomaker.faces.networks import (
    AnalyserConfig,
    Analysis,
    ConvConfig,
    ConvRecogniser,
    FaceAnalyser,
    MixerConfig,
    MixerRecogniser,
    NextConfig,
    NextRecogniser,
    load_network,
    save_network,
)
from photomaker.types import Face

WORDS = {"style": ("photo", "sketch"), "hat": ("none", "cap", "beanie")}  # not in the order of the alphabet
FACE = Face((30.0, 20.0, 70.0, 80.0), 1.0, np.zeros((5, 2), np.float32))


def tiny(kind: str):
    torch.manual_seed(0)
    return {
        "conv": lambda: ConvRecogniser(ConvConfig(channels=(4, 6, 8), depths=(1, 1, 1), width=16)),
        "mixer": lambda: MixerRecogniser(
            MixerConfig(channels=8, blocks=1, token_hidden=4, channel_hidden=8, width=16)
        ),
        "next": lambda: NextRecogniser(NextConfig(channels=(4, 6, 8), blocks=(1, 1, 1), width=16, heads=2)),
        "analyser": lambda: FaceAnalyser(AnalyserConfig(channels=(4, 6, 8))),
        "attributes": lambda: AttributeNetwork(AttributeConfig(WORDS, channels=(4, 6, 8))),
    }[kind]()


KINDS = {
    "conv": ConvRecogniser,
    "mixer": MixerRecogniser,
    "next": NextRecogniser,
    "analyser": FaceAnalyser,
    "attributes": AttributeNetwork,
}


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def outputs(network, size):
    with torch.inference_mode():
        result = network.eval()(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)))
    if isinstance(result, Analysis):
        return list(vars(result).values())
    return list(result.values()) if isinstance(result, dict) else [result]


def test_sizes_are_within_what_was_planned():
    words = {f"head{index}": tuple(map(str, range(12))) for index in range(8)}
    assert parameters(ConvRecogniser()) <= 1_000_000
    assert parameters(MixerRecogniser()) <= 1_000_000
    assert parameters(NextRecogniser()) <= 1_000_000
    assert parameters(FaceAnalyser()) <= 300_000
    assert parameters(AttributeNetwork(AttributeConfig(words))) <= 500_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_survives_its_file(kind, tmp_path):
    network = tiny(kind)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.25)
    path = save_network(network, tmp_path / "deep" / "network.safetensors")
    again = load_network(path, KINDS[kind])
    assert again.config == network.config
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())
    for before, after in zip(
        outputs(network, network.config.size), outputs(again, network.config.size), strict=True
    ):
        assert after.dtype == torch.float32
        assert torch.allclose(before, after, atol=0.02)
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match="no model file"):
        BundledFaces.open(tmp_path / "nothing.safetensors")


def test_a_file_of_another_architecture_is_refused(tmp_path):
    path = save_network(tiny("conv"), tmp_path / "network.safetensors")
    with pytest.raises(WeightsError, match="conv-recogniser"):
        BundledFaces.open(path)
    with pytest.raises(WeightsError, match="conv-recogniser"):
        AttributeClassifier.open(path)


@pytest.mark.parametrize("cut", [0, 5, 200, -10])
def test_a_truncated_file_is_refused(cut, tmp_path):
    path = save_network(tiny("mixer"), tmp_path / "network.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError):
        BundledRecogniser.open(path)


def rewritten(network, path, config=None, **tensors):
    held = {name: tensor.contiguous() for name, tensor in {**network.state_dict(), **tensors}.items()}
    described = {"architecture": network.architecture, **asdict(network.config), **(config or {})}
    save_file(held, path, metadata={"config": json.dumps(described)})
    return path


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    network = tiny("conv")
    bad = torch.full_like(network.state_dict()["project.1.weight"], float("nan"))
    path = rewritten(network, tmp_path / "network.safetensors", **{"project.1.weight": bad})
    with pytest.raises(WeightsError, match=r"project\.1\.weight"):
        BundledRecogniser.open(path)


@pytest.mark.parametrize("config", [{"width": 17}, {"unheard_of": 1}, {"channels": "wide"}, {"channels": []}])
def test_weights_that_do_not_fit_their_config_are_refused(config, tmp_path):
    path = rewritten(tiny("conv"), tmp_path / "network.safetensors", config)
    with pytest.raises(WeightsError, match="do not fit"):
        BundledRecogniser.open(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="not a model file of photomaker"):
        BundledRecogniser.open(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("kind", ["conv", "mixer"])
def test_embeddings_have_length_one_and_batches_change_nothing(kind, noise):
    recogniser = BundledRecogniser(tiny(kind))
    images = [noise(100, 100, seed) for seed in range(3)]
    rows = recogniser.embed_batch(images, [FACE] * 3)
    assert rows.shape == (3, recogniser.width) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.abs(rows[1] - recogniser.embed(images[1], FACE)).max() < 1e-5
    assert np.abs(rows[0] - rows[1]).max() > 1e-4
    assert recogniser.embed_batch([], []).shape == (0, recogniser.width)


@pytest.fixture
def noise():
    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))

    return make


def maps(*faces: tuple[int, int, float]) -> Analysis:
    """Maps of a 160 pixel square: faces of 32 x 48 pixels around the middles of cells (column, row) with logits."""
    heat = torch.full((1, 1, 20, 20), -8.0)
    for column, row, logit in faces:
        heat[0, 0, row, column] = logit
    reach = torch.tensor([2.0, 3.0, 2.0, 3.0]).log().view(1, 4, 1, 1).expand(1, 4, 20, 20)
    points = torch.tensor([-1.0, -1, 1, -1, 0, 0, -1, 2, 1, 2]).view(1, 10, 1, 1).expand(1, 10, 20, 20)
    return Analysis(heat, reach, points, torch.full((1, 1, 80, 80), -8.0))


def test_decoding_reads_boxes_and_landmarks_off_the_maps():
    found = decode(maps((5, 7, 2.0), (14, 9, 4.0)))[0]
    assert found.scores == pytest.approx(torch.tensor([4.0, 2.0]).sigmoid().numpy())
    assert found.boxes.tolist() == pytest.approx(np.array([[100, 52, 132, 100], [28, 36, 60, 84]]), abs=1e-3)
    assert found.landmarks[1].tolist() == pytest.approx(
        np.array([[36, 52], [52, 52], [44, 60], [36, 76], [52, 76]]), abs=1e-3
    )


def test_decoding_drops_doubles_neighbours_and_doubts():
    found = decode(maps((5, 7, 2.0), (6, 7, 1.0), (5, 9, 1.5), (15, 15, -2.0)))[0]
    assert len(found.scores) == 1
    assert len(decode(maps())[0].boxes) == 0


class Fixed(FaceAnalyser):
    """Says what it was told, whatever it sees."""

    told: Analysis

    def forward(self, images):
        assert images.shape[1:] == (3, 160, 160)
        return self.told


def told(analysis: Analysis) -> BundledFaces:
    network = Fixed(AnalyserConfig(channels=(4, 4, 4)))
    network.told = analysis
    return BundledFaces(network)


def test_faces_come_in_pixels_of_the_picture():
    faces = told(maps((10, 10, 3.0))).detect(Image.new("RGB", (640, 320)))
    assert len(faces) == 1
    # 640 x 320 fits as 160 x 80 with 40 pixels above: the scale is 4.
    assert faces[0].box == pytest.approx((272, 80, 400, 272), abs=1e-2)
    assert faces[0].landmarks[2].tolist() == pytest.approx([336, 176], abs=1e-2)
    assert faces[0].landmarks.shape == (5, 2)
    assert 0.9 < faces[0].score < 1


def test_boxes_end_at_the_edge_of_the_picture():
    faces = told(maps((0, 10, 3.0))).detect(Image.new("L", (160, 160)))
    assert faces[0].box[0] == 0


def test_nobody_in_the_picture_is_an_empty_list(noise):
    assert told(maps()).detect(noise(50, 90)) == []


@pytest.mark.parametrize("size", [(128, 128), (64, 200), (201, 77)])
def test_the_mask_has_the_shape_of_the_picture(size):
    analysis = maps((10, 10, 3.0))
    analysis.mask[:] = 5.0
    finder = told(analysis)
    image = Image.new("RGB", size)
    mask = finder.person_mask(image, finder.detect(image)[0])
    assert mask.shape == size[::-1] and mask.dtype == np.uint8
    assert (mask == 255).all()


def test_the_mask_is_that_of_the_face_asked_for():
    analysis = maps((4, 10, 3.0), (15, 10, 3.0))
    analysis.mask[:, :, 20:70, 4:76] = 5.0  # the two stand shoulder to shoulder
    analysis.mask[:, :, 2:6, 2:6] = 5.0  # and something in the corner is no part of either
    finder = told(analysis)
    image = Image.new("RGB", (160, 160))
    right, left = sorted(finder.detect(image), key=lambda face: -face.box[0])
    masks = [finder.person_mask(image, face) > 0 for face in (left, right)]
    assert not (masks[0] & masks[1]).any()
    assert masks[0][80, 40] and masks[1][80, 120]
    assert (masks[0] | masks[1])[42:138, 10:150].all()
    assert not masks[0][:12, :12].any()


def test_attributes_are_read_with_their_words(noise, tmp_path):
    classifier = AttributeClassifier.open(
        save_network(tiny("attributes"), tmp_path / "attributes.safetensors")
    )
    assert classifier.words == WORDS
    predicted = classifier.predict([noise(128, 128), noise(256, 256, 1), Image.new("L", (64, 64))])
    assert set(predicted) == set(WORDS)
    for name, indices in predicted.items():
        assert indices.shape == (3,) and indices.dtype == np.int64
        assert (indices < len(WORDS[name])).all()
    chances = classifier.probabilities([noise(128, 128)])
    assert chances["hat"].sum(1) == pytest.approx(1, abs=1e-5)
    assert classifier.predict([])["hat"].shape == (0,)
