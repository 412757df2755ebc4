"""The recipes of the compared methods: they learn, leave the base alone, and what they export opens and draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from PIL import Image
from test_adapter import SIZES
from test_base import tiny_parts

from photomaker.encoders.anydoor import read_anydoor
from photomaker.encoders.fastcomposer import read_fastcomposer
from photomaker.encoders.flashface import read_flashface
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.encoders.instantid import read_instantid, scaled
from photomaker.encoders.ip_adapter import read_ip_adapter
from photomaker.encoders.photoverse import read_photoverse
from photomaker.encoders.pulid import read_pulid
from photomaker.encoders.subject_tower import SubjectTower
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError
from photomaker.faces import Seen
from photomaker.methods.anydoor import AnyDoor
from photomaker.methods.fastcomposer import FastComposer
from photomaker.methods.flashface import FlashFace
from photomaker.methods.instantid import InstantID
from photomaker.methods.ip_adapter import IPAdapter
from photomaker.methods.photoverse import PhotoVerse
from photomaker.methods.pulid import PuLID
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.pipelines.structures.identity_nets import open_identity_net
from photomaker.pipelines.structures.landmarks import Pencil, draw_landmarks
from photomaker.training.data.frames import Frames
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.photos import SMALL as SMALL_PHOTOS
from photomaker.training.losses.diffusion import DiffusionSettings, Noising, make_scheduler
from photomaker.training.recipes.anydoor import AnyDoorRecipe, AnyDoorSettings, Pair
from photomaker.training.recipes.fastcomposer import (
    FastComposerRecipe,
    FastComposerSettings,
    localisation_loss,
)
from photomaker.training.recipes.flashface import FlashFaceRecipe, FlashFaceTraining
from photomaker.training.recipes.id_tower import tower_config
from photomaker.training.recipes.instantid import InstantIDRecipe, InstantIDSettings, kept_faces, seen_faces
from photomaker.training.recipes.ip_adapter import IPAdapterRecipe, IPAdapterSettings
from photomaker.training.recipes.people import AdapterSettings, Condition, Ingredients
from photomaker.training.recipes.photoverse import PhotoVerseRecipe, PhotoVerseSettings, random_fusion
from photomaker.training.recipes.pulid import PuLIDRecipe, PuLIDSettings
from photomaker.training.running.loop import TrainSettings, train
from photomaker.types import Extras, Face, Identity, Reference, Request, Sampling, Start

SETTINGS = AdapterSettings(rank=4, lr=1e-2, fusion_lr=1e-2, vision_lr=1e-3, text_only=0.2, photo=SMALL_PHOTOS)
STEPS = TrainSettings(steps=24, batch_size=8, ema_decay=0.8, log_every=6, save_every=0)
KINDS = (
    "ip_adapter", "ip_adapter plus", "fastcomposer", "photoverse", "instantid", "pulid", "flashface", "anydoor",
)  # fmt: skip
PENCIL = Pencil(2.5, 1.0)


def likeness(pictures: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Stands for a recogniser: the mean colour of each face."""
    means = [
        one[:, int(y0) : int(y1), int(x0) : int(x1)].mean((1, 2))
        for one, (x0, y0, x1, y1) in zip(pictures, boxes.tolist(), strict=True)
    ]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


class MeanColours:
    """The same as what a method sees faces by; they are in the middle."""

    notes: ClassVar = {"face_models": "fake"}

    def see(self, photos: Any, faces: Any) -> list[Seen]:
        del faces
        return [self._one(photo) for photo in photos]

    def _one(self, photo: Image.Image) -> Seen:
        world, box = FakeWorld(), (36.0, 32.0, 92.0, 96.0)
        points = (world.landmarks[0] - world.landmarks[0].mean(0) + 64).astype(np.float32)
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
        embedding = likeness(pixels, torch.tensor([box]))[0].numpy()
        return Seen(embedding, Face(box, 1.0, points))


def make(kind: str, tmp_path: Path) -> Any:  # noqa: PLR0911 - a line a kind
    world = FakeWorld()
    parts = tiny_parts(world)
    torch.manual_seed(1)
    encoder = PhotoMakerIDEncoder(tower_config(SIZES, (32, 32)))
    latents = cached_latents(parts.autoencoder, world, tmp_path / "latents")
    given = Ingredients(world, latents, parts, encoder, SETTINGS)
    if kind == "fastcomposer":
        return FastComposerRecipe(given, own=FastComposerSettings(localisation=0.1))
    if kind == "photoverse":
        own = PhotoVerseSettings(layers=(-1, -2), hidden=32, face_noise=0.6)
        return PhotoVerseRecipe(given, own=own, face=likeness)
    if kind == "instantid":
        sizes = InstantIDSettings(
            queries=3, hidden=64, net_lr=1e-3, hint=(4, 4, 8, 8), pencil=PENCIL, recogniser="fake"
        )
        return InstantIDRecipe(given, embeddings=seen_faces(world, likeness), own=sizes)
    if kind == "pulid":
        small = PuLIDSettings((-1, -2), queries=3, dim=64, hidden=32, depth=2, id_tokens=2, recogniser="fake")
        return PuLIDRecipe(given, embeddings=seen_faces(world, likeness), own=small)
    if kind == "anydoor":
        return AnyDoorRecipe(given, own=AnyDoorSettings(hint=(4, 4, 8, 8)))
    if kind == "flashface":
        return FlashFaceRecipe(given, own=FlashFaceTraining(side=32, crop=1.2, no_place=0.5))
    form = "plus" if "plus" in kind else "base"
    return IPAdapterRecipe(given, own=IPAdapterSettings(form=form, queries=3, hidden=64))


def opened(kind: str, folder: Path, base: Path, tower: ImageTower) -> Any:  # noqa: PLR0911
    from diffusers import StableDiffusionXLPipeline

    pipeline = open_pipeline(StableDiffusionXLPipeline, base, torch.float32)
    if kind == "fastcomposer":
        return FastComposer(pipeline, read_fastcomposer(folder / "fastcomposer.safetensors"))
    if kind == "photoverse":
        return PhotoVerse(pipeline, read_photoverse(folder / "photoverse.safetensors"), tower)
    if kind == "instantid":
        net = open_identity_net(folder / "ControlNetModel", torch.float32)
        return InstantID(pipeline, read_instantid(folder / "ip-adapter.safetensors"), net, MeanColours())
    if kind == "pulid":
        return PuLID(pipeline, read_pulid(folder / "pulid.safetensors"), tower, MeanColours())
    if kind == "anydoor":
        subjects = SubjectTower(tower.vision_model, True, int(tower.config.image_size))
        return AnyDoor(pipeline, read_anydoor(folder / "anydoor.safetensors"), subjects)
    if kind == "flashface":
        return FlashFace(pipeline, read_flashface(folder / "flashface.safetensors"))
    return IPAdapter(pipeline, read_ip_adapter(folder / "ip_adapter.safetensors"), tower)


def seen_reference(world: FakeWorld, row: int) -> Reference:
    face = Face(tuple(map(float, world.boxes[row])), 1.0, world.landmarks[row])
    return Reference(Image.fromarray(world.images[row]), face=face)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_learns_leaves_the_base_alone_and_its_export_draws(kind: str, tmp_path: Path) -> None:
    recipe = make(kind, tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())

    def measured() -> float:
        with torch.no_grad():
            return float(
                recipe.loss(np.arange(24), np.random.default_rng(0), torch.Generator().manual_seed(0))[0]
            )

    before = measured()
    modules = {**recipe.modules(), "tower": recipe.id_encoder.vision_model}
    frozen = {
        f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters() if not p.requires_grad
    }
    trained = {
        f"{k}.{n}": p for k, m in recipe.modules().items() for n, p in m.named_parameters() if p.requires_grad
    }
    kept = {name: one.detach().clone() for name, one in {**frozen, **trained}.items()}
    in_groups = {id(one) for group in recipe.parameter_groups() for one in group["params"]}
    assert in_groups == {id(one) for one in trained.values()}
    figures = train(recipe, STEPS, tmp_path / "run")
    assert measured() < 0.95 * before
    assert figures["validation_loss"] > 0 and figures["validation_loss_of_stranger"] > 0
    assert frozen and all(torch.equal(kept[name], one) for name, one in frozen.items())
    assert all(
        not torch.equal(kept[name], one) for name, one in trained.items() if "post_layernorm" not in name
    )

    method = opened(
        kind, tmp_path / "run" / "export", tmp_path / "base", ImageTower.of_encoder(recipe.id_encoder)
    )
    people = [method.fit([seen_reference(recipe.data, row) for row in rows]) for rows in ([0, 1], [7])]
    hole = Extras(start=Start(Image.new("RGB", (128, 128)), mask=Image.new("L", (128, 128), "white")))
    extras = hole if kind == "anydoor" else Extras()
    request = Request(
        "a photo of a man img in the snow", Sampling(steps=2, guidance=2.0, merge=0.0), extras=extras
    )
    one, two = (np.array(method.generate(person, [request])[0]).astype(int) for person in people)
    assert np.abs(one - two).max() > 0


def test_what_is_trained_is_what_is_drawn_with(tmp_path: Path) -> None:
    """The UNet of the recipe and that of the opened method predict the same for the same condition."""
    recipe = make("ip_adapter", tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())
    train(recipe, STEPS, tmp_path / "run")
    method = opened(
        "ip_adapter", tmp_path / "run" / "export", tmp_path / "base", ImageTower.of_encoder(recipe.id_encoder)
    )
    rows, rng = np.array([0, 7]), np.random.default_rng(0)
    from photomaker.pipelines.drawing.changes import image_projection_in, processors_in

    unet = method.pipeline.unet
    state = torch.load(sorted((tmp_path / "run/checkpoints").glob("step*.pt"))[-1])["average"]
    with torch.no_grad():
        for name, one in recipe.parts.unet.named_parameters():
            if one.requires_grad:
                one.copy_(state[f"unet.{name}"])
        condition = recipe.condition(
            ["a photo of a man img in the snow"] * 2,
            [np.array([1, 2]), np.array([8])],
            np.zeros(2, bool),
            rng,
        )
        noised = recipe.noised(rows, torch.Generator().manual_seed(0))
        wanted = recipe.predict(noised, condition)
        recipe.parts.unet = unet
        with processors_in(unet, method.processors), image_projection_in(unet, method.projection):
            found = recipe.predict(noised, condition)
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)
    assert (found - wanted).abs().mean() < 0.2 * wanted.abs().mean()


def test_what_instantid_is_trained_with_is_what_is_drawn_with(tmp_path: Path) -> None:
    """For the same person, text and landmarks the recipe's models and the opened method's predict the same."""
    recipe = make("instantid", tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())
    train(recipe, replace(STEPS, steps=6), tmp_path / "run")
    tower = ImageTower.of_encoder(recipe.id_encoder)
    method = opened("instantid", tmp_path / "run" / "export", tmp_path / "base", tower)
    assert method.pencil == PENCIL and method.file.config["recogniser"] == "fake"
    state = torch.load(sorted((tmp_path / "run/checkpoints").glob("step*.pt"))[-1])["average"]
    rows, references = np.array([0, 7]), [np.array([1, 2]), np.array([8])]
    from photomaker.pipelines.drawing.changes import image_projection_in, processors_in
    from photomaker.pipelines.structures.identity_nets import Structured

    with torch.no_grad():
        for part, module in recipe.modules().items():
            for name, one in module.named_parameters():
                if one.requires_grad:
                    one.copy_(state[f"{part}.{name}"])
        prompts = ["a photo of a man img in the snow"] * 2
        condition = recipe.condition(prompts, references, np.zeros(2, bool), np.random.default_rng(0))
        noised = recipe.noised(rows, torch.Generator().manual_seed(0))
        wanted = recipe.predict(noised, condition)
        embeds = scaled(recipe.embeddings(np.array([1, 2, 8])))
        person = torch.stack([embeds[:2].mean(0), embeds[2]])[:, None, None]
        torch.testing.assert_close(condition.more["person"], person)
        unet = method.pipeline.unet
        tokens = method.projection.image_projection_layers[0](person[:, 0])
        structured = Structured(method.net, tokens, recipe.drawings(rows), 1.0)
        for processor in method.processors.values():
            processor.scale = [1.0]
        with (
            processors_in(unet, method.processors),
            image_projection_in(unet, method.projection),
            structured.attached(unet),
        ):
            found = unet(
                noised.noisy,
                noised.steps,
                encoder_hidden_states=condition.embeds,
                added_cond_kwargs={
                    "text_embeds": condition.pooled,
                    "time_ids": recipe.frames.time_ids(rows),
                    "image_embeds": [person],
                },
                return_dict=False,
            )[0]
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)
    assert (found - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def test_what_pulid_is_trained_with_is_what_is_drawn_with(tmp_path: Path) -> None:
    """The same tokens of the same photos, and the same prediction; rows without photos are the base itself."""
    recipe = make("pulid", tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())
    captions, rows = ["a photo of a man img in the snow"] * 2, np.array([0, 7])
    without = np.array([False, True])
    references = [np.array([1, 2]), np.array([8])]
    recipe.export(tmp_path)
    tower = ImageTower.of_encoder(recipe.id_encoder)
    method = opened("pulid", tmp_path, tmp_path / "base", tower)
    assert method.mode == "plain" and method.own_notes["recogniser"] == "fake"
    with torch.no_grad():
        condition = recipe.condition(captions, references, without, np.random.default_rng(0))
        noised = recipe.noised(rows, torch.Generator().manual_seed(0))
        wanted = recipe.predict(noised, condition)
        unet = method.pipeline.unet
        recipe.parts.unet = unet
        base = super(PuLIDRecipe, recipe).predict(noised, condition)
        for layer in method.processors.values():
            layer.tokens, layer.scale = condition.more["tokens"], condition.more["there"][..., None]
        from photomaker.pipelines.drawing.changes import processors_in

        with processors_in(unet, method.processors):
            found = super(PuLIDRecipe, recipe).predict(noised, condition)
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)
    torch.testing.assert_close(found[1], base[1])
    assert not torch.allclose(found[0], base[0], atol=1e-3)
    nobody = condition.kept(torch.tensor([False, True])).more["tokens"]
    torch.testing.assert_close(nobody[0], method._tokens(_person(condition), 1, True)[0], atol=2e-2, rtol=0)


def _person(condition: Condition) -> Identity:
    tokens = condition.more["tokens"][:1]
    return Identity("pulid", {"id_features": tokens, "weights": torch.ones(1)})


def test_what_flashface_is_trained_with_is_what_is_drawn_with(tmp_path: Path) -> None:
    """For the same crops, text and place the recipe's models and the opened method's predict the same."""
    from photomaker.pipelines.attention.references import Guidance, Referenced, placed
    from photomaker.pipelines.drawing.changes import processors_in, weights_in

    recipe = make("flashface", tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())
    train(recipe, replace(STEPS, steps=6), tmp_path / "run")
    method = opened(
        "flashface", tmp_path / "run" / "export", tmp_path / "base", ImageTower.of_encoder(recipe.id_encoder)
    )
    state = torch.load(sorted((tmp_path / "run/checkpoints").glob("step*.pt"))[-1])["average"]
    rows, references = np.array([0, 7]), [np.array([1, 2]), np.array([8])]
    unet, prompts = method.pipeline.unet, ["a photo of a man img in the snow"] * 2
    with torch.no_grad():
        for part, module in recipe.modules().items():
            for name, one in module.named_parameters():
                if one.requires_grad:
                    one.copy_(state[f"{part}.{name}"])
        condition = recipe.condition(prompts, references, np.zeros(2, bool), np.random.default_rng(0))
        noised = recipe.noised(rows[:1], torch.Generator().manual_seed(0))
        one = Condition(
            condition.embeds[:1], condition.pooled[:1], {k: v[:1] for k, v in condition.more.items()}
        )
        wanted = recipe.predict(noised, one)
        assert one.more["bias"][0].exp().sum() == pytest.approx(4)
        told = (one.embeds, one.pooled)
        # all of the references at once, and no guidance of their own
        guidance = Guidance(1.0, early=1.0, launch=-1.0)
        crops = one.more["photos"][0, :2]
        referenced = Referenced(
            method.reference, method.bank, crops, torch.tensor([0.5, 0.5]), told, [0], guidance
        )
        maps = recipe.maps(rows[:1]) * one.more["told"][0]
        with (
            weights_in(unet, method.unet),
            processors_in(unet, method.processors),
            placed(unet, method.place, lambda _rows: maps),
            referenced.attached(unet),
        ):
            added = {"text_embeds": one.pooled, "time_ids": recipe.frames.time_ids(rows[:1])}
            found = unet(
                noised.noisy,
                noised.steps[0],
                encoder_hidden_states=one.embeds,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)
    assert (found - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def test_what_anydoor_is_trained_with_is_what_is_drawn_with(tmp_path: Path) -> None:
    """For the same subject and hole the recipe's models and the opened method's predict the same."""
    from photomaker.pipelines.drawing.changes import weights_in
    from photomaker.pipelines.structures.identity_nets import Structured

    recipe = make("anydoor", tmp_path)
    tiny_parts(FakeWorld()).save(tmp_path / "base", DiffusionSettings())
    train(recipe, replace(STEPS, steps=6), tmp_path / "run")
    tower = ImageTower.of_encoder(recipe.id_encoder)
    method = opened("anydoor", tmp_path / "run" / "export", tmp_path / "base", tower)
    assert method.zoom == 0 and method.file.config["tower"] == "bundled"
    state = torch.load(sorted((tmp_path / "run/checkpoints").glob("step*.pt"))[-1])["average"]
    rows, unet = np.array([0, 7]), method.pipeline.unet
    with torch.no_grad():
        for part, module in recipe.modules().items():
            for name, one in module.named_parameters():
                if one.requires_grad:
                    one.copy_(state[f"{part}.{name}"])
        condition = recipe.told([Pair(0, 1), Pair(7, 8)], np.random.default_rng(0))
        noised = recipe.noised(rows, torch.Generator().manual_seed(0))
        wanted = recipe.predict(noised, condition)
        tokens = method.projector(condition.more["tokens"])
        structured = Structured(method.net, tokens, condition.more["hint"], 1.0)
        with weights_in(unet, method.unet), structured.attached(unet):
            found = unet(
                noised.noisy,
                noised.steps,
                encoder_hidden_states=tokens,
                added_cond_kwargs={
                    "text_embeds": condition.pooled,
                    "time_ids": recipe.frames.time_ids(rows),
                },
                return_dict=False,
            )[0]
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)
    assert (found - wanted).abs().mean() < 0.05 * wanted.abs().mean()


class Wardrobe(FakeWorld):
    """People who wear hats: everybody's in each picture is at the top left, in one of two colours."""

    def __init__(self) -> None:
        super().__init__()
        hats = np.arange(len(self.person)) % 2
        self.attributes |= {
            "hat": hats,
            "hat_colour": hats,
            "clothing": 0 * hats,
            "clothing_colour": 0 * hats - 1,
        }

    def item_mask(self, row: int, item: str) -> np.ndarray:
        mask = np.zeros((128, 128), np.uint8)
        mask[10:40, 10:50] = 255
        return mask


def test_a_hat_is_taken_from_somebody_else_who_wears_the_same(tmp_path: Path) -> None:
    recipe, rng = make("anydoor", tmp_path), np.random.default_rng(0)
    recipe.data = world = Wardrobe()
    recipe.own = AnyDoorSettings(hint=(4, 4, 8, 8), items=1.0, shape=0.0)
    for _ in range(50):
        row = int(rng.integers(len(world.person)))
        pair = recipe.choose(row, rng)
        if pair.kind == "hat":
            assert world.attributes["hat"][row] == world.attributes["hat"][pair.reference]
            assert world.person[row] != world.person[pair.reference] and world.is_photo[pair.reference]
        else:  # clothes have no colour here, so that nobody wears the same
            assert pair.kind == "person" and world.person[row] == world.person[pair.reference]
    hint = recipe.told([Pair(0, 7, "hat")], rng).more["hint"][0]
    inside = hint[3] > 0
    assert inside[10:40, 10:50].all() and int(inside.sum()) < 36 * 48 + 200
    scene = torch.from_numpy(world.images[0]).permute(2, 0, 1) / 127.5 - 1
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[7:44, 6:54] = False
    assert torch.equal(hint[:3][:, outside], scene[:, outside])
    with pytest.raises(SettingsError, match="has no masks of hats"):
        given = Ingredients(FakeWorld(), recipe.latents, recipe.parts, recipe.id_encoder, SETTINGS)
        AnyDoorRecipe(given, own=AnyDoorSettings(hint=(4, 4, 8, 8), items=0.5))


def test_the_identity_net_sees_the_landmarks_of_the_picture(tmp_path: Path) -> None:
    recipe = make("instantid", tmp_path)
    drawn = recipe.drawings(np.array([3, 4]))
    assert drawn.shape == (2, 3, 128, 128)
    own = np.asarray(draw_landmarks(recipe.data.landmarks[3], (128, 128), PENCIL))
    assert np.array_equal((drawn[0].permute(1, 2, 0).numpy() * 255).round(), own)
    # a picture that is made half as large and cut has its landmarks where its face is
    boxes = np.array([[20.0, 60.0, 60.0, 100.0]])
    frames = Frames(np.array([[200, 100]]), boxes, [(64, 64)])
    points = frames.points(np.array([0]), np.array([[[40.0, 80.0]]]))
    box = frames.boxes(np.array([0]))[0]
    assert points[0, 0] == pytest.approx([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    known = kept_faces(np.eye(3, dtype=np.float32))
    assert known(np.array([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    del recipe.data.landmarks
    given = Ingredients(recipe.data, recipe.latents, recipe.parts, recipe.id_encoder, SETTINGS)
    with pytest.raises(SettingsError, match="landmarks"):
        InstantIDRecipe(given, embeddings=known)


def test_fastcomposer_has_no_other_loss_on_attention(tmp_path: Path) -> None:
    recipe = make("fastcomposer", tmp_path)
    with pytest.raises(SettingsError, match=r"recipe\.attention"):
        FastComposerRecipe(
            Ingredients(
                recipe.data, recipe.latents, recipe.parts, recipe.id_encoder, replace(SETTINGS, attention=0.1)
            )
        )


def test_localisation_loss_by_hand() -> None:
    attention = torch.zeros(2, 4, 3)
    attention[0, :, 1] = torch.tensor([0.8, 0.6, 0.1, 0.3])
    tokens = torch.tensor([[False, True, False], [False, False, False]])
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2)
    assert localisation_loss(attention, tokens, mask).item() == pytest.approx(0.2 - 0.7)
    assert localisation_loss(attention, tokens & False, mask).item() == 0


def test_rows_without_a_condition_have_nothing(tmp_path: Path) -> None:
    value = torch.ones(2, 3)
    condition = Condition(torch.ones(2, 4, 5), torch.ones(2, 6), {"a": value, "b": value}, {"b": value * 7})
    kept = condition.kept(torch.tensor([True, False]))
    assert kept.embeds[0].all() and not kept.embeds[1].any() and not kept.pooled[1].any()
    assert kept.more["a"].sum(1).tolist() == [3, 0] and kept.more["b"].sum(1).tolist() == [3, 21]


def test_random_fusion_draws_each_branch_a_third() -> None:
    drawn = random_fusion(3000, np.random.default_rng(0))
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert found.tolist() == [[0, 2], [1, 1], [2, 0]] and counts.min() > 900


def test_the_clean_picture_is_found_again() -> None:
    settings = DiffusionSettings()
    noising = Noising(settings, make_scheduler(settings))
    clean = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    noisy, steps, target, _ = noising(clean, torch.Generator().manual_seed(1))
    torch.testing.assert_close(noising.clean(noisy, target, steps), clean, atol=1e-4, rtol=0)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        lambda: IPAdapterSettings(hidden=100),
        lambda: IPAdapterSettings(queries=0),
        lambda: FastComposerSettings(localisation=-1),
        lambda: InstantIDSettings(queries=0),
        lambda: InstantIDSettings(hidden=100),
        lambda: InstantIDSettings(net_lr=-1.0),
        lambda: InstantIDSettings(hint=(4, 4)),
        lambda: Pencil(radius=0.0),
        lambda: PuLIDSettings(queries=0),
        lambda: PuLIDSettings(layers=()),
        lambda: PuLIDSettings(dim=100),
        lambda: PuLIDSettings(depth=7),
        lambda: AnyDoorSettings(hint=(4,)),
        lambda: AnyDoorSettings(items=2.0),
        lambda: AnyDoorSettings(inside=0.0),
        lambda: FlashFaceTraining(side=30),
        lambda: FlashFaceTraining(crop=0.0),
        lambda: FlashFaceTraining(no_place=2.0),
        lambda: FlashFaceTraining(captioned=-1.0),
        lambda: PhotoVerseSettings(layers=()),
        lambda: PhotoVerseSettings(face_noise=2),
    ):
        with pytest.raises(SettingsError):
            wrong()
