"""The recipes of the small networks on crude drawn people: what they feed, what they lose, and that they learn."""

import numpy as np
import pytest
import torch
from scripts.train_small import analyser, attributes, recogniser
from tests.faces.fake_world import fake_world

from photomaker.errors import SettingsError
from photomaker.faces import BundledFaces, BundledRecogniser
from photomaker.faces.attributes import AttributeClassifier, AttributeConfig, AttributeNetwork
from photomaker.faces.bundled import decode
from photomaker.faces.networks import AnalyserConfig, Analysis, ConvConfig, ConvRecogniser, FaceAnalyser
from photomaker.training.recipes.small_networks import rows_of_people, settled, span
from photomaker.training.running.loop import TrainSettings, train


@pytest.fixture(scope="module")
def world():
    return fake_world()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("text", ["", "5", "5:5", "6:2", "a:b", "-1:4"])
def test_a_wrong_range_of_people_is_named(text):
    with pytest.raises(SettingsError, match="not a range of people"):
        span(text)


def test_rows_are_those_of_the_people(world):
    rows = rows_of_people(world, span("2:4"))
    assert set(world.person[rows]) == {2, 3} and len(rows) == 12
    with pytest.raises(SettingsError, match="0:12"):
        rows_of_people(world, (50, 60))


def test_settled_statistics_are_put_back():
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    network.eval()
    batches = [torch.randn(64, 3, generator=generator()) + 5 for _ in range(4)]
    with settled(network, batches):
        assert not network.training
        assert float((network[0].running_mean - 5).abs().max()) < 0.5
    assert float(network[0].running_mean.abs().max()) == 0 and int(network[0].num_batches_tracked) == 0
    assert network[0].momentum == pytest.approx(0.1)


def test_collages_hold_what_they_say(world):
    collage = analyser.Composer(world, np.arange(len(world.person)), 160)(np.arange(60), generator())
    assert collage.images.shape == (60, 3, 160, 160) and collage.masks.shape == (60, 1, 160, 160)
    assert float(collage.images.min()) >= 0 and float(collage.images.max()) <= 1
    assert set(collage.present.sum(1).tolist()) == {0, 1, 2}
    nobody = ~collage.present.any(1)
    assert float(collage.masks[nobody].max()) == 0
    seen = (collage.present & ~collage.hidden).nonzero()
    widths = [float(collage.boxes[i, k, 2] - collage.boxes[i, k, 0]) / 160 for i, k in seen]
    assert min(widths) < 0.25 and max(widths) > 0.6
    for i, k in seen:
        x, y = collage.landmarks[i, k, 2].long().clamp(0, 159).tolist()
        assert collage.masks[i, 0, y, x] > 0.5 or bool(collage.present[i].all())


def test_what_the_targets_say_is_decoded_to_the_same_faces(world):
    collage = analyser.Composer(world, np.arange(len(world.person)), 160)(np.arange(40), generator(1))
    wanted = analyser.targets(collage)
    logits = torch.logit(wanted.heat.clamp(1e-4, 1 - 1e-4))[:, None]
    found = decode(Analysis(logits, wanted.reach, wanted.points, collage.masks), threshold=0.9)
    for index, faces in enumerate(found):
        seen = collage.present[index] & ~collage.hidden[index]
        assert len(faces.boxes) == int(seen.sum())
        for box, points in zip(collage.boxes[index][seen], collage.landmarks[index][seen], strict=True):
            nearest = np.abs(faces.boxes - box.numpy()).max(1).argmin()
            assert np.abs(faces.boxes[nearest] - box.numpy()).max() < 0.1
            assert np.abs(faces.landmarks[nearest] - points.numpy()).max() < 0.1


def test_the_margin_rises_and_travels_with_the_weights():
    head = recogniser.IdentityHead(4, 3, 2)
    assert [head.margin(0.4, 4) for _ in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert int(head.state_dict()["steps"]) == 6


def test_the_margin_lowers_only_the_right_answer():
    head = recogniser.IdentityHead(4, 3, 2)
    features, labels = torch.randn(5, 4, generator=generator()), torch.tensor([0, 1, 2, 0, 1])
    change = head.logits(features, labels, 0.0) - head.logits(features, labels, 0.25)
    expected = 0.25 * head.scale * torch.nn.functional.one_hot(labels, 3)
    assert torch.allclose(change, expected.float(), atol=1e-4)


def test_the_recogniser_trains_on_its_own_people_only(world):
    recipe = recogniser.RecogniserRecipe(
        world, small_recogniser(), (3, 7), recogniser.Options(other_styles=0.5)
    )
    assert set(world.person[recipe.rows]) == {3, 4, 5, 6}
    assert int((~world.is_photo[recipe.rows]).sum()) == 2
    assert recipe.head.people.shape[0] == 4


def test_area_under_the_curve():
    assert recogniser._auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert recogniser._auc(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.5


def small_recogniser() -> ConvRecogniser:
    torch.manual_seed(0)
    return ConvRecogniser(ConvConfig(channels=(8, 8, 8), depths=(1, 1, 1), width=16))


SETTINGS = TrainSettings(12, 16, warmup=2, ema_decay=0.5, clip=5.0, save_every=0, log_every=6)


def test_a_recogniser_is_trained_exported_and_read(world, tmp_path):
    options = recogniser.Options(ramp=4, validation=(world, (8, 12)))
    recipe = recogniser.RecogniserRecipe(world, small_recogniser(), (0, 8), options)
    figures = train(recipe, SETTINGS, tmp_path)
    assert {"validation_auc", "validation_same", "validation_different", "validation_top1"} <= set(figures)
    exported = BundledRecogniser.open(tmp_path / "export" / "recogniser.safetensors")
    measured = recogniser.measure(exported, world, (8, 12))
    assert measured["auc"] == pytest.approx(figures["validation_auc"], abs=0.05)


def test_attributes_are_trained_exported_and_read(world, tmp_path):
    torch.manual_seed(0)
    network = AttributeNetwork(AttributeConfig(world.attribute_names, channels=(8, 8, 8)))
    recipe = attributes.AttributesRecipe(world, network, (0, 8), validation=(world, (8, 12)))
    figures = train(recipe, SETTINGS, tmp_path)
    assert np.isfinite(figures["loss"])
    exported = AttributeClassifier.open(tmp_path / "export" / "attributes.safetensors")
    measured = attributes.measure(exported, world, (8, 12))
    assert set(measured) == {*world.attribute_names, "mean"}
    assert all(0 <= value <= 1 for value in measured.values())


def test_pictures_without_an_attribute_give_no_gradient(world):
    torch.manual_seed(0)
    network = AttributeNetwork(AttributeConfig(world.attribute_names, channels=(8, 8, 8)))
    recipe = attributes.AttributesRecipe(world, network, (0, 12))
    bare = np.flatnonzero(world.attributes["hat_colour"] == -1)[:8]
    loss, figures = recipe.loss(bare, np.random.default_rng(0), generator())
    assert figures["hat_colour"] == 0 and torch.isfinite(loss)


def test_an_analyser_is_trained_exported_and_read(world, tmp_path):
    torch.manual_seed(0)
    recipe = analyser.AnalyserRecipe(world, FaceAnalyser(AnalyserConfig(channels=(8, 8, 8))), (0, 8))
    rng = np.random.default_rng(0)
    before = recipe.loss(recipe.rows[:32], rng, generator())[0].detach()
    train(recipe, SETTINGS, tmp_path)
    assert recipe.loss(recipe.rows[:32], rng, generator())[0].detach() < before
    exported = BundledFaces.open(tmp_path / "export" / "analyser.safetensors")
    measured = analyser.measure(exported, world, (8, 12), 160)
    assert {"collage_recall", "collage_false_positives", "photo_mask_iou", "drawing_recall"} <= set(measured)
