"""Trainings from settings, on a tiny SDXL and shards: what is learnt, what stays, what is kept, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from small_shards import photo, settings, write_clip, write_shards
from tests.profiles import P3, display

from photomaker import config, weights
from photomaker.dataset.base import Photo
from photomaker.dataset.shards import FINAL, INDEX, Shards, write_shard, write_table
from photomaker.encoders.adapter_file import read_adapter
from photomaker.errors import OutputError, PromptError, SettingsError, WeightsError
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.training import plan
from photomaker.training.data.albums import ShardAlbum
from photomaker.training.data.frames import Frames, bucket_sides, step_for
from photomaker.training.data.latents import fingerprint
from photomaker.training.data.photos import fitted
from photomaker.training.recipes.reward import RewardSettings
from photomaker.training.running.loop import checkpoints

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def made(shards, clip, tiny_base, tmp_path):
    """Makes settings for this test's folder."""

    def make(name: str = "run", **changes: Any) -> plan.TrainConfig:
        return settings(tmp_path / name, shards, tiny_base, changes.pop("start", clip), **changes)

    return make


def losses(out: Path, name: str = "loss") -> list[float]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [row[name] for row in rows if name in row]


def lines(out: Path) -> list[dict[str, float]]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "samples_per_second"} for row in rows]


def loss_of(recipe: Any) -> float:
    with torch.no_grad():
        found = [
            recipe.loss(rows, np.random.default_rng(0), torch.Generator().manual_seed(0))[0]
            for rows in (recipe.rows[recipe.groups == group] for group in np.unique(recipe.groups))
        ]
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_adapter_learns_leaves_the_base_alone_and_draws(
    version, made, tiny_adapter_file, tiny_adapter_v2_file, tiny_base, photos
):
    start = {"v1": tiny_adapter_file, "v2": tiny_adapter_v2_file}[version]
    given = made(start=start, encoder__version=version, loop__steps=24, loop__batch_size=4, loop__save_every=12,
                 data__keep_latents=False)  # fmt: skip
    recipe = plan.build(given)
    modules = recipe.modules() | {f"text {n}": one for n, one in enumerate(recipe.parts.text_encoders)}
    modules["vae"] = recipe.parts.autoencoder
    before = {f"{k}.{n}": p.detach().clone() for k, m in modules.items() for n, p in m.named_parameters()}
    trained = {f"{k}.{n}" for k, m in modules.items() for n, p in m.named_parameters() if p.requires_grad}
    first = loss_of(recipe)
    figures = plan.train(recipe, given.loop, given.out)
    assert loss_of(recipe) < 0.9 * first
    assert figures["validation_loss"] > 0
    after = {f"{k}.{n}": p for k, m in modules.items() for n, p in m.named_parameters()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    unused = {"id_encoder.vision_model.post_layernorm.weight", "id_encoder.vision_model.post_layernorm.bias"}
    assert changed == trained - (unused if version == "v2" else set())
    assert {name for name in changed if name.startswith("unet.")} == {n for n in trained if ".lora_" in n}
    assert not any(name.startswith(("text", "vae")) for name in changed)

    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base)
    assert fingerprint(pipeline.unet) == fingerprint(plan.BaseParts.load(tiny_base).unet)
    pipeline.load_photomaker_adapter(
        str(given.out / "export"), subfolder="", weight_name="photomaker.safetensors", trigger_word="img"
    )
    assert pipeline.pm_version == version
    faces = {"id_embeds": torch.randn(2, 16)} if version == "v2" else {}
    image = pipeline("a man img in the snow", input_id_images=photos[:2], num_inference_steps=2, start_merge_step=-1,
                     height=64, width=64, **faces).images[0]  # fmt: skip
    assert image.size == (64, 64)
    state = torch.load(checkpoints(given.out)[-1])["average"]
    exported = read_adapter(given.out / "export" / "photomaker.safetensors")
    name = "fuse_module.mlp1.fc1.weight"
    torch.testing.assert_close(
        exported.id_encoder[name].float(), state[f"id_encoder.{name}"], atol=2e-3, rtol=0
    )


def test_an_encoder_starts_from_a_clip_model(made, clip):
    from transformers import CLIPVisionModelWithProjection

    recipe = plan.build(made())
    trained = CLIPVisionModelWithProjection.from_pretrained(clip)
    assert fingerprint(recipe.id_encoder.vision_model) == fingerprint(trained.vision_model)
    assert torch.equal(recipe.id_encoder.visual_projection.weight, trained.visual_projection.weight)
    again = plan.build(made())
    assert fingerprint(again.id_encoder) == fingerprint(recipe.id_encoder)
    wide = plan.from_clip(str(clip), "v2", (16, 24), seed=0)
    assert wide.version == "v2" and wide.width == 40


def test_of_an_adapter_the_image_encoder_alone_may_be_started_from(made, tiny_adapter_file):
    given, anew = (plan.build(made(start=tiny_adapter_file, encoder__anew=anew)) for anew in (False, True))
    state, fresh = (recipe.id_encoder.state_dict() for recipe in (given, anew))
    kept = {name for name in state if torch.equal(state[name], fresh[name])}
    assert kept >= {name for name in state if name.startswith("vision_model.")}
    new = {
        name
        for name in state
        if name.startswith(("fuse_module.", "visual_projection")) and state[name].ndim == 2
    }
    assert not kept & new
    assert fingerprint(given.parts.unet) != fingerprint(anew.parts.unet)  # the adapter's LoRA, and a new one
    again = plan.build(made(start=tiny_adapter_file, encoder__anew=True))
    assert fingerprint(again.id_encoder) == fingerprint(anew.id_encoder)


@pytest.mark.parametrize(("vision", "layers"), [("all", {"0", "1"}), (1, {"1"}), ("none", set())])
def test_as_much_of_the_image_encoder_is_trained_as_asked_for(made, vision, layers):
    recipe = plan.build(made(recipe__vision=vision))
    names = [n for n, p in recipe.id_encoder.vision_model.named_parameters() if p.requires_grad]
    assert {name.split(".")[2] for name in names if name.startswith("encoder.layers.")} == layers
    assert any("embeddings" in name for name in names) == (vision == "all")
    assert any("post_layernorm" in name for name in names) == (vision != "none")
    assert all(p.requires_grad for p in recipe.id_encoder.fuse_module.parameters())


def test_what_is_trained_is_held_in_full_precision_beside_a_base_in_half(made):
    given = made(base__dtype="bf16", loop__precision="bf16", recipe__vision="none", loop__steps=2)
    recipe = plan.build(given)
    kinds = {(p.requires_grad, p.dtype) for module in recipe.modules().values() for p in module.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    frozen = {n: p.clone() for n, p in recipe.parts.unet.named_parameters() if not p.requires_grad}
    assert np.isfinite(plan.train(recipe, given.loop, given.out)["loss"])
    assert all(torch.equal(frozen[n], p) for n, p in recipe.parts.unet.named_parameters() if n in frozen)
    assert read_adapter(given.out / "export" / "photomaker.safetensors").version == "v1"


def test_computing_activations_again_changes_no_loss(made):
    plan.run(made("kept"))
    plan.run(made("again", recipe__gradient_checkpointing=True))
    assert losses(made("kept").out) == pytest.approx(losses(made("again").out), rel=1e-5)


def test_kept_latents_and_texts_change_no_loss(made):
    plain = {"loop__batch_size": 1, "loop__steps": 6, "recipe__text_only": 0.3, "data__keep_latents": False}
    plan.run(made("plain", **plain))
    plan.run(made("texts", **(plain | {"data__keep_texts": True})))
    assert losses(made("plain").out) == losses(made("texts").out)
    plan.run(made("latents", **(plain | {"data__keep_latents": True})))
    # encoded with other pictures beside them, and rounded to half precision either way
    assert losses(made("plain").out) == pytest.approx(losses(made("latents").out), rel=1e-3)
    kept = {path.name.split("_")[0] for path in (made("texts").out / "cache").iterdir()}
    assert kept == {"texts"}
    assert len(list((made("latents").out / "cache").glob("latents_*x*"))) == 3


def test_a_kill_is_gone_on_from_bit_for_bit(made, tmp_path):
    changes = {"loop__steps": 16, "loop__save_every": 1}
    plan.run(made("whole", **changes))
    given = made("killed", **changes)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.plain(given)))
    command = [sys.executable, "-m", "photomaker.apps.cli", "train", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(checkpoints(given.out)) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (given.out / "done.json").exists()
    plan.run(given)
    assert lines(given.out) == lines(made("whole").out)
    one, other = (torch.load(checkpoints(made(name).out)[-1]) for name in ("whole", "killed"))
    for part in ("weights", "average"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])


def test_two_processes_take_the_steps_of_one(made, tmp_path):
    plan.run(made("one", loop__accumulate=2))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.plain(made("two"))))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "photomaker.apps.cli", "train", str(tmp_path / "config.yaml")]
    done = subprocess.run(command, env=ENVIRONMENT, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("loss", "gradient", "validation_loss"):
        assert losses(made("one").out, name) == pytest.approx(losses(made("two").out, name), rel=1e-4)
    one, two = (torch.load(checkpoints(made(name).out)[-1])["weights"] for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def fsdp_environment() -> dict[str, str]:
    """What `accelerate launch` makes of the example's settings; it starts no processes on CPUs, but torchrun does."""
    stated = yaml.safe_load((ROOT / "examples/configs/accelerate_fsdp.yaml").read_text())
    found = {name.upper(): str(value).lower() for name, value in stated["fsdp_config"].items()}
    names = stated["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    policy = stated["fsdp_config"]["fsdp_auto_wrap_policy"]
    return {
        **found, "ACCELERATE_USE_FSDP": "true", "FSDP_AUTO_WRAP_POLICY": policy, "FSDP_TRANSFORMER_CLS_TO_WRAP": names,
    }  # fmt: skip


def test_two_processes_that_share_every_weight_take_the_steps_of_one(made, tmp_path):
    changes = {"loop__steps": 4, "loop__keep": 4, "loop__save_every": 1, "loop__preview_every": 4}
    plan.run(made("one", **changes, loop__accumulate=2))
    given = made("two", **changes)
    # what one process began is gone on with shared
    shutil.copytree(made("one").out, given.out)
    for path in [*checkpoints(given.out)[1:], *(given.out / "previews").iterdir(), given.out / "done.json"]:
        path.unlink()
    shutil.rmtree(given.out / "export")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.plain(given)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "photomaker.apps.cli", "train", str(tmp_path / "config.yaml")]

    def compared(name: str) -> None:
        for figure in ("loss", "gradient", "validation_loss"):
            assert losses(made("one").out, figure) == pytest.approx(losses(made(name).out, figure), rel=1e-4)
        one, other = (torch.load(checkpoints(made(folder).out)[-1]) for folder in ("one", name))
        for part in ("weights", "average"):
            # AdamW makes whole steps of gradients near 0, where the order of a sum decides the sign
            assert all(torch.allclose(one[part][key], other[part][key], atol=5e-4) for key in one[part])
        drawn, known = (
            read_adapter(made(folder).out / "export" / "photomaker.safetensors").id_encoder
            for folder in ("one", name)
        )
        assert all(torch.allclose(known[key].float(), drawn[key].float(), atol=2e-3) for key in known)

    done = subprocess.run(
        command,
        env=ENVIRONMENT | fsdp_environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compared("two")
    assert (given.out / "previews" / "step_00000004.png").is_file()
    # and what was shared by one process again
    shutil.copytree(given.out, made("unshared").out)
    checkpoints(made("unshared").out)[-1].unlink()
    plan.run(made("unshared", **changes, loop__accumulate=2))
    compared("unshared")


def test_pictures_and_likeness_go_to_tensorboard(made):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = made(loop__preview_every=2, loop__tensorboard=True, loop__steps=2)
    asked = []

    def score(drawn, known):
        asked.append((len(drawn), len(known), drawn[0].size))
        return 0.25

    figures = plan.run(given, score)
    assert figures["preview_likeness"] == 0.25
    assert asked == [(1, 2, (64, 64))]
    assert (given.out / "previews" / "step_00000002.png").is_file()
    board = EventAccumulator(str(given.out / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"loss", "validation/loss", "preview_likeness"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["pictures"]


def test_pictures_of_a_v2_adapter_in_half_precision(made, tiny_adapter_v2_file):
    given = made(start=tiny_adapter_v2_file, encoder__version="v2", loop__preview_every=1, loop__steps=1,
                 base__dtype="bf16", loop__precision="bf16", data__keep_texts=True)  # fmt: skip
    plan.run(given)
    assert (given.out / "previews" / "step_00000001.png").is_file()


def test_drawing_on_the_way_changes_no_loss(made):
    plan.run(made("with", loop__preview_every=1))
    plan.run(made("without"))
    assert losses(made("with").out) == losses(made("without").out)


def test_a_full_disk_is_told_and_gone_on_from(made):
    given = made(loop__steps=6)
    plan.run(made("whole", loop__steps=6))
    part = given.out / "checkpoints" / "step_00000004.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")  # every write fails as on a full disk
    with pytest.raises(OutputError, match=r"step_00000004.pt: .*make room and give the same command again"):
        plan.run(given)
    assert [path.name for path in (given.out / "checkpoints").iterdir() if "best" not in path.name] == [
        "step_00000002.pt"
    ]
    plan.run(given)
    assert losses(given.out) == losses(made("whole").out)


@pytest.mark.bundled
@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")
def test_the_bundled_adapter_goes_on_learning_from_synthetic_people(tmp_path):
    from photomaker.synthetic.dataset import WorldPlan, write_world

    people = write_world(tmp_path / "people", WorldPlan(0, 4, 3), workers=1)
    changes = [
        "steps=2",
        "batch_size=2",
        "save_every=0",
        "preview_every=0",
        "tensorboard=false",
        "log_every=1",
    ]
    folders = [f"data.folder={people}", f"data.cache={tmp_path / 'cache'}", f"out={tmp_path / 'run'}"]
    path = ROOT / "examples" / "configs" / "train_small.yaml"
    given = config.read(path, plan.TrainConfig, [*folders, *(f"loop.{change}" for change in changes)])
    kept = losses(plan.run(given) and given.out)
    start = read_adapter(weights.bundled("adapter/photomaker.safetensors"))
    made = read_adapter(given.out / "export" / "photomaker.safetensors")
    assert made.config == dict(start.config)
    assert made.lora.keys() == start.lora.keys()
    away = replace(given, out=tmp_path / "away", data=replace(given.data, keep_latents=False))
    plan.run(away)
    assert losses(away.out) == pytest.approx(kept, rel=1e-2)


EXPORTED = {"instantid": {"ip-adapter.safetensors", "ControlNetModel"}}
"""Files of methods that write more than one named as they are."""


def of_method(given, method):
    """The settings for another method, of sizes that suit the tiny models."""
    small = replace(given.instantid, width=16, queries=3, hidden=64, hint=(4, 4, 8, 8), net_lr=1e-3)
    face = replace(given.flashface, side=32)
    door = replace(given.anydoor, hint=(4, 4, 8, 8))
    return replace(
        given,
        method=method,
        photoverse=replace(given.photoverse, layers=(-1, -2)),
        instantid=small,
        flashface=face,
        anydoor=door,
    )


@pytest.mark.parametrize(
    "method", ["ip_adapter", "fastcomposer", "photoverse", "instantid", "flashface", "anydoor"]
)
def test_a_compared_method_is_trained_from_settings(method, made, clip):
    given = of_method(made(loop__steps=2, loop__save_every=0, data__keep_latents=False), method)
    figures = plan.run(given, face=lambda images, boxes: images.mean((2, 3)))
    wanted = EXPORTED.get(method, {f"{method}.safetensors"})
    assert figures["finished"] and {path.name for path in (given.out / "export").iterdir()} == wanted


@pytest.mark.parametrize("method", ["photomaker", "ip_adapter", "fastcomposer", "photoverse", "instantid"])
def test_what_was_trained_is_gone_on_from_in_another_folder(method, made, tmp_path):
    given = of_method(made(loop__steps=2, loop__save_every=0, data__keep_latents=False), method)
    plan.run(given)
    given = replace(given, instantid=replace(given.instantid, net_lr=0.0))
    still = replace(given.recipe, lr=0.0, fusion_lr=0.0, vision="none")
    after = replace(given, out=tmp_path / "after", start=given.out, recipe=still)
    plan.run(after)
    assert exported(after.out) == exported(given.out)
    plan.run(replace(after, out=tmp_path / "anew", start=None))
    assert exported(tmp_path / "anew") != exported(given.out)


def exported(out: Path) -> bytes:
    files = sorted((out / "export").rglob("*.safetensors"))
    assert files
    return b"".join(
        one.float().numpy().tobytes() for path in files for _, one in sorted(load_file(path).items())
    )


def test_an_earlier_training_must_be_there_and_of_the_same_method(made, tmp_path):
    given = made(loop__steps=1, loop__save_every=0, data__keep_latents=False)
    with pytest.raises(WeightsError, match="has no training checkpoint"):
        plan.run(replace(given, start=tmp_path / "nothing"))
    plan.run(given)
    other = replace(given, out=tmp_path / "other", method="ip_adapter", start=given.out)
    with pytest.raises(WeightsError, match="was trained for adapter, not for ip_adapter"):
        plan.run(other)


def test_settings_of_methods_that_contradict_each_other_are_refused(made):
    given = made()
    for changes in (
        {"method": "ip_adapter", "loop": replace(given.loop, preview_every=1)},
        {"method": "photoverse", "data": replace(given.data, keep_texts=True)},
        {"method": "base", "data": replace(given.data, keep_texts=True)},
        {"method": "base", "reward": RewardSettings(steps=2)},
    ):
        with pytest.raises(SettingsError, match=r"set (loop|keep_texts|base.dtype|reward.likeness)"):
            replace(given, **changes)


# ---- sizes of pictures


def test_sizes_have_the_area_asked_for():
    sides = bucket_sides(1024, step_for(1024, 3))
    assert (1024, 1024) in sides and (896, 1152) in sides and (1344, 768) in sides
    assert all(h % 64 == w % 64 == 0 and 0.5 <= h / w <= 2 for h, w in sides)
    assert all(0.9 * 1024**2 < h * w <= 1024**2 for h, w in sides)
    with pytest.raises(SettingsError, match="resolution is 1000; give a multiple of 32"):
        step_for(1000, 3)


def test_a_picture_covers_its_frame_and_tells_where_it_was_cut():
    frames = Frames(np.array([[100, 200]]), np.array([[150.0, 20, 190, 60]]), [(32, 32), (32, 64)])
    assert frames.time_ids(np.array([0])).tolist() == [[100, 200, 0, 0, 32, 64]]
    square = Frames(np.array([[100, 200]]), np.array([[150.0, 20, 190, 60]]), [(32, 32)])
    assert square.time_ids(np.array([0])).tolist() == [[100, 200, 0, 32, 32, 32]]
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 150:190] = 255
    framed = square.picture(0, image)
    assert framed.shape == (32, 32, 3)
    x0, y0, x1, y1 = square.boxes(np.array([0]))[0]
    assert np.all(framed[round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2] > 240)
    assert framed[:, : round(x0) - 2].max() < 20
    with pytest.raises(SettingsError, match="is 90 x 200, but its index says 100 x 200"):
        square.picture(0, image[:90])


def test_steps_take_pictures_of_one_size(made, shards):
    recipe = plan.build(made())
    assert len(set(recipe.groups)) == 3
    album = recipe.data
    for row in recipe.rows:
        height, width = recipe.frames.targets[row]
        assert (height > width) == (album.sizes[row][0] > album.sizes[row][1])
        latents = recipe.latents[np.array([row])]
        assert latents.shape == (1, 4, height // 8, width // 8)
        masked = recipe.weight(np.array([row]), np.array([True]))
        assert masked.shape == (1, 1, height // 8, width // 8) and 0 < masked.mean() < 0.6
    assert len(set(plan.build(made(data__buckets=False)).groups)) == 1


def test_an_id_photo_is_made_small_as_at_inference():
    image = np.zeros((60, 100, 3), np.uint8)
    image[20:40, 60:80] = 255
    mask, box = image[:, :, 0].copy(), np.array([60.0, 20, 80, 40], np.float32)
    small, person, moved = fitted(image, mask, box, 30)
    assert small.shape == (30, 30, 3) and person.shape == (30, 30)
    assert moved.tolist() == [20, 10, 30, 20]
    assert small[12:18, 22:28].min() > 250 and small[:, :17].max() < 20
    near, _, face = fitted(image, mask, box, 30, crop=2.0)
    x0, y0, x1, y1 = (round(float(edge)) for edge in face)
    assert near[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() > 200
    assert (x1 - x0) == pytest.approx(near.shape[0] / 2.5, abs=1)


# ---- mistakes


def test_the_caption_is_cut_where_the_dataset_says(shards):
    album = ShardAlbum(Shards.open(shards))
    caption = album.caption(0, np.random.default_rng(0), 1.0)
    assert (caption.before, caption.after) == ("a photo of a man", ", in (the snow)")
    assert caption.class_word == "man"
    assert album.faces(16).shape == (16, 16)


def test_training_sees_srgb_whatever_a_photos_colour_profile_is(tmp_path):
    one = photo("000000", 0, (64, 64), np.random.default_rng(0))
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (230, 60, 50)).save(data, "PNG", icc_profile=display(P3))
    rows = write_shard(tmp_path, 0, [Photo(one.row, {**one.files, "png": data.getvalue()})])
    write_table(tmp_path / INDEX, rows, FINAL)
    seen = ShardAlbum(Shards.open(tmp_path)).images[0]
    assert np.abs(seen.astype(int) - (250, 31, 34)).max() <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_start": None}, "row 000000 .* has no class word marked"),
        ({"class_end": 99}, "row 000000 .* has no class word marked"),
        ({"class_start": 12, "class_end": 13}, "the class word marked in row 000000 .* is empty"),
        ({"box": None}, "row 000000 .* needs a face box of 4 numbers, but has none"),
    ],
)
def test_faulty_rows_are_named(tmp_path, changes, words):
    folder = write_shards(tmp_path / "faulty", **changes)
    with pytest.raises(SettingsError, match=words):
        ShardAlbum(Shards.open(folder))


def test_class_words_that_cannot_be_read_are_found_before_training(tmp_path, tiny_base):
    caption = "very " * 90 + "old man"
    folder = write_shards(
        tmp_path / "long", caption=caption, class_start=len(caption) - 3, class_end=len(caption)
    )
    with pytest.raises(PromptError, match="class word 'man'"):
        ShardAlbum(Shards.open(folder)).check_captions(plan.BaseParts.load(tiny_base).tokenizers)


def test_v2_needs_face_embeddings_of_the_right_length(tmp_path, tiny_base, tiny_adapter_v2_file):
    for value, got in (([1.0] * 3, "3 numbers"), ([], "none"), (None, "none")):
        folder = write_shards(tmp_path / f"faces {got} {value is None}", embedding=value)
        given = settings(tmp_path / "run", folder, tiny_base, tiny_adapter_v2_file, encoder__version="v2")
        with pytest.raises(SettingsError, match=f"needs a face embedding of 16 numbers, but has {got}"):
            plan.build(given)


def test_people_with_one_photo(tmp_path, tiny_base, clip, caplog):
    alone = write_shards(tmp_path / "alone", people=3, each=1)
    with pytest.raises(
        SettingsError, match=r"no person in the data has two pictures \(3 people have one each\)"
    ):
        plan.build(settings(tmp_path / "run", alone, tiny_base, clip))
    among = plan.build(settings(tmp_path / "run", alone, tiny_base, clip, recipe__target_among=True))
    assert len(among.rows) == 3
    mixed = write_shards(tmp_path / "mixed", people=3, each=2, person="someone else")
    recipe = plan.build(settings(tmp_path / "run", mixed, tiny_base, clip))
    assert len(recipe.rows) == 4
    assert "2 people have only one picture" in caplog.text


def test_pieces_that_do_not_fit_are_refused(made, tmp_path, tiny_base, tiny_adapter_file, shards, clip):
    with pytest.raises(WeightsError, match=r"is a v1 adapter and encoder\.version is v2"):
        plan.build(made(start=tiny_adapter_file, encoder__version="v2"))
    with pytest.raises(SettingsError, match="rank is 8, but the adapter to continue from has 4"):
        plan.build(made(start=tiny_adapter_file, recipe__rank=8))
    with pytest.raises(WeightsError, match="is not a model folder"):
        plan.build(made(start="runs/id_tower/export"))
    with pytest.raises(SettingsError, match="vision is 3, but the image encoder has 2"):
        plan.build(made(recipe__vision=3))
    other = tmp_path / "other"
    other.mkdir()
    (other / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(WeightsError, match="is a StableDiffusionPipeline; PhotoMaker needs an SDXL"):
        plan.build(settings(tmp_path / "run", shards, other, clip))
    with pytest.raises(WeightsError, match="not a diffusers model folder"):
        plan.build(settings(tmp_path / "run", shards, tmp_path, clip))


def test_a_checkpoint_of_another_training_is_not_gone_on_from(made, tiny_adapter_file, tiny_adapter_v2_file):
    plan.run(made(start=tiny_adapter_file, loop__steps=2))
    with pytest.raises(WeightsError, match=r"another version \(v1, now v2\)"):
        plan.run(made(start=tiny_adapter_v2_file, encoder__version="v2"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base__dtype": "bf16"}, "base.dtype is bf16, but loop.precision is fp32"),
        ({"data__kind": "world", "encoder__version": "v2"}, "V2 needs a face embedding"),
        ({"data__kind": "world", "data__keep_texts": True}, "cannot be cached"),
        ({"recipe__rank": 0}, "rank is 0"),
        ({"recipe__masked": 1.5}, "masked is 1.5"),
        ({"recipe__vision": 0}, "vision is 0"),
        ({"loop__accumulate": 0}, "accumulate is 0"),
        ({"recipe__ranks": 3}, "did you mean recipe.rank?"),
        ({"data__composed": Path("pairs")}, "composed is pairs; that needs data.kind world"),
        ({"preview__prompts": ["a man"]}, "needs the place of the class word"),
        ({"preview__likeness": "magic"}, "likeness is 'magic'"),
    ],
)
def test_contradictions_and_wrong_values_are_told(made, changes, words):
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")):
        made(**changes)


def test_the_command_refuses_in_one_sentence(tmp_path, shards, clip, tiny_base):
    from typer.testing import CliRunner

    from photomaker.apps.cli import app

    given = settings(tmp_path / "run", shards, tiny_base, clip)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.plain(given)))

    def refused(*words: str) -> str:
        result = CliRunner().invoke(app, ["train", str(path), *words], prog_name="photomaker")
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert not (tmp_path / "run").exists()
        return result.stderr.splitlines()[-1]

    assert "there is no setting recipe.rang" in refused("--set", "recipe.rang=3")
    assert "did you mean recipe.rank?" in refused("--set", "recipe.rang=3")
    assert "has no finished dataset" in refused("--set", f"data.folder={tmp_path}")
    cut = write_shards(tmp_path / "cut")
    (cut / "00001.tar").unlink()
    assert "00001.tar is missing or cut short" in refused("--set", f"data.folder={cut}")


def test_the_examples_are_whole():
    found = {
        path.name: config.read(path, plan.TrainConfig)
        for path in (ROOT / "examples/configs").glob("train_*.yaml")
    }
    assert set(found) == {
        "train_folders.yaml",
        "train_small.yaml",
        "train_small_anydoor.yaml",
        "train_small_base_reward.yaml",
        "train_small_fastcomposer.yaml",
        "train_small_flashface.yaml",
        "train_small_instantid.yaml",
        "train_small_controlnet.yaml",
        "train_small_pulid.yaml",
        "train_small_ip_adapter.yaml",
        "train_small_photoverse.yaml",
        "train_small_reward.yaml",
        "train_small_same_budget.yaml",
        "train_sdxl_v1.yaml",
        "train_sdxl_v2.yaml",
    }
    bundled = found["train_small.yaml"]
    assert found["train_small_reward.yaml"].reward.steps and not bundled.reward.steps
    for method in ("anydoor", "fastcomposer", "flashface", "instantid", "ip_adapter", "photoverse"):
        other = found[f"train_small_{method}.yaml"]
        assert other.method == method and other.data == bundled.data
        assert other.loop == replace(bundled.loop, steps=1200, preview_every=0, tensorboard=False)
        assert other.recipe.photo == bundled.recipe.photo
    for name in ("train_sdxl_v1.yaml", "train_sdxl_v2.yaml"):
        recipe = found[name].recipe
        assert (recipe.rank, recipe.lr, recipe.fusion_lr, recipe.vision_lr) == (64, 1e-4, 1e-5, 1e-5)
        assert (recipe.masked, recipe.diffusion.null_text, recipe.photos, recipe.photo.noise) == (
            0.5,
            0.1,
            4,
            1.0,
        )
    assert found["train_sdxl_v2.yaml"].encoder.version == "v2"
