"""The nodes without ComfyUI: how they describe themselves, what they give, what they say of mistakes."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from integrations.comfyui.conditioning import parted
from integrations.comfyui.engine_nodes import free_place, mean
from integrations.comfyui.native_nodes import numbers
from integrations.comfyui.pictures import image_of, pictures_of
from PIL import Image
from tests.integrations import stand_ins
from tests.studio import fakes

from photomaker import (
    Engine,
    Identity,
    IdentityError,
    PhotoError,
    PhotoMakerAdapter,
    PhotoMakerError,
    PromptEmbeddings,
    PromptError,
    SettingsError,
    WeightsError,
)
from photomaker.studio.photos.face_backends import Backends

PROMPT = "a photo of a woman img in the (snow:1.3)"
TYPES = {
    "BOOLEAN", "FLOAT", "INT", "STRING", "IMAGE", "MODEL", "CLIP", "CONDITIONING",
    "PHOTOMAKER_ADAPTER", "PHOTOMAKER_ENGINE", "PHOTOMAKER_IDENTITY",
}  # fmt: skip


@pytest.fixture
def comfy(monkeypatch, tmp_path):
    return stand_ins.install(monkeypatch, tmp_path)


@pytest.fixture
def engine():
    method = fakes.FakeMethod()
    return Engine(lambda: method, Backends(fakes.FakeDetector(), fakes.FakeRecogniser()))


@pytest.fixture(scope="module")
def pipe(tiny_base, tiny_adapter_file):
    from photomaker import PhotoMakerStableDiffusionXLPipeline

    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    return pipeline


@pytest.fixture
def model(pipe):
    """A MODEL whose weights have the names of the LoRA's layers."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    return SimpleNamespace(model=unet)


def made(name):
    return NODE_CLASS_MAPPINGS[name]()


def run(name, /, **inputs):
    """A node as ComfyUI calls it: a list for every input where it asks for lists."""
    node = made(name)
    if getattr(node, "INPUT_IS_LIST", False):
        inputs = {key: value if isinstance(value, list) else [value] for key, value in inputs.items()}
    with torch.inference_mode():
        return getattr(node, node.FUNCTION)(**inputs)


def image(*whos, faces=1):
    return image_of([fakes.picture(faces, who) for who in whos])


# ---- how they describe themselves


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_a_node_describes_itself_as_comfyui_reads_it(comfy, name):
    import inspect

    node = NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    assert set(inputs) <= {"required", "optional"}
    told = {key: value for part in inputs.values() for key, value in part.items()}
    for kind, *more in told.values():
        assert isinstance(kind, list) or kind in TYPES
        assert len(more) <= 1
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    assert set(node.RETURN_TYPES) <= TYPES
    taken = inspect.signature(getattr(node, node.FUNCTION)).parameters
    assert set(taken) - {"self"} == set(told)
    optional = {key for key, one in taken.items() if one.default is not inspect.Parameter.empty}
    assert optional == set(inputs.get("optional", {}))
    assert node.DESCRIPTION.endswith(".")
    assert node.CATEGORY.split("/")[0] == "photomaker"


@pytest.mark.parametrize("name", NODE_CLASS_MAPPINGS)
def test_defaults_are_of_their_type_and_in_their_range(comfy, name):
    types = {"FLOAT": float, "INT": int, "STRING": str, "BOOLEAN": bool}
    for part in NODE_CLASS_MAPPINGS[name].INPUT_TYPES().values():
        for kind, *more in part.values():
            if not isinstance(kind, str) or kind not in types or not more:
                continue
            default = more[0]["default"]
            assert isinstance(default, types[kind])
            assert more[0].get("min", default) <= default <= more[0].get("max", default)


def test_names_are_shown_and_do_not_clash_with_cores():
    assert NODE_DISPLAY_NAME_MAPPINGS.keys() == NODE_CLASS_MAPPINGS.keys()
    assert not {"PhotoMakerLoader", "PhotoMakerEncode"} & NODE_CLASS_MAPPINGS.keys()
    assert len(set(NODE_DISPLAY_NAME_MAPPINGS.values())) == len(NODE_CLASS_MAPPINGS)


def test_only_public_names_of_the_package_are_used():
    import ast
    from pathlib import Path

    import integrations.comfyui as package

    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(one.name.startswith("photomaker") for one in node.names), path
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert not (node.module or "").startswith("photomaker."), path


def test_the_registry_finds_what_it_needs():
    import tomllib
    from pathlib import Path

    import integrations.comfyui as package

    told = tomllib.loads((Path(package.__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[a-z][a-z0-9-]*", told["project"]["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["project"]["version"])
    assert told["project"]["dependencies"] == ["photomaker>=0.1"]
    assert {"PublisherId", "DisplayName"} <= told["tool"]["comfy"].keys()


# ---- pictures


def test_pictures_go_there_and_back_bit_for_bit():
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)) for _ in range(3)]
    image = image_of(pictures)
    assert image.shape == (3, 5, 7, 3)
    assert image.dtype == torch.float32
    for one, wanted in zip(pictures_of(image), pictures, strict=True):
        assert one.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("bad", [torch.zeros(4, 4, 3), torch.zeros(1, 4, 4, 1), "photo", None])
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(PhotoError, match="connect pictures"):
        pictures_of(bad)


def test_alpha_is_left_out_and_values_are_clipped():
    (picture,) = pictures_of(torch.full((1, 2, 2, 4), 1.5))
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(PhotoError, match="not finite"):
        pictures_of(torch.full((1, 2, 2, 3), float("nan")))


# ---- over the engine


def test_photos_of_many_sizes_become_a_person_with_the_coachs_words(comfy, engine):
    photos = [image_of([fakes.picture(1, 0, (64, 64))]), image_of([fakes.picture(1, 9, (80, 48))] * 2)]
    identity, coach = run("PhotoMakerIdentity", engine=engine, photos=photos)
    assert identity.tensors["id_features"].shape[0] == 3
    lines = coach.splitlines()
    assert re.fullmatch(r"\d of 3 photos to keep", lines[0])
    assert sum(line.startswith("picture ") for line in lines) == 3


def test_photos_that_the_coach_drops_may_be_left_out(comfy, engine):
    photos = image(0, 0, 0)
    every, _ = run("PhotoMakerIdentity", engine=engine, photos=[photos], drop=False)
    report = engine.coach(pictures_of(photos))
    some, _ = run("PhotoMakerIdentity", engine=engine, photos=[photos], drop=True)
    assert len(every.tensors["id_features"]) == 3
    assert len(some.tensors["id_features"]) == (len(report.kept) or 3)


def test_without_faces_photos_are_taken_as_they_are(comfy):
    method = fakes.FakeMethod()
    identity, coach = run(
        "PhotoMakerIdentity", engine=Engine(lambda: method, Backends()), photos=[image(0, 5)]
    )
    assert "not checked" in coach
    assert len(identity.tensors["id_features"]) == 2


def test_pictures_come_with_their_likeness(comfy, engine):
    identity, _ = run("PhotoMakerIdentity", engine=engine, photos=[image(0, 0)])
    images, likeness, report = run(
        "PhotoMakerGenerate", engine=engine, identity=identity, prompt=PROMPT, number=3, seed=7, steps=2
    )
    wanted = engine.generate(identity, PROMPT, n=3, sampling=_seeded(7))
    assert images.shape == (3, 64, 64, 3)
    assert torch.equal(images, image_of([one.image for one in wanted]))
    assert likeness == pytest.approx(mean([one.likeness for one in wanted]))
    assert report.splitlines()[2] == "no face to compare"  # the fake draws none for a seed that ends in 9
    again, told = run("PhotoMakerLikeness", engine=engine, identity=identity, images=images)
    assert again == pytest.approx(likeness)
    assert told == report


def _seeded(seed):
    from photomaker import Sampling

    return Sampling(steps=2, seed=seed)


def test_likeness_is_minus_one_where_there_is_no_face(comfy, engine):
    identity, _ = run("PhotoMakerIdentity", engine=engine, photos=[image(0)])
    likeness, report = run("PhotoMakerLikeness", engine=engine, identity=identity, images=image(0, faces=0))
    assert likeness == -1.0
    assert report == "no face to compare"


def test_steps_are_shown_and_a_stop_ends_the_node(comfy, monkeypatch, tiny_base, tiny_adapter_file, photos):
    engine = Engine.open(tiny_base, tiny_adapter_file, faces="none", device="cpu", dtype="fp32")
    identity, _ = run("PhotoMakerIdentity", engine=engine, photos=[image_of([photos[0].resize((64, 64))])])
    order = {"engine": engine, "identity": identity, "prompt": PROMPT, "number": 1, "seed": 0, "steps": 3}
    run("PhotoMakerGenerate", **order)
    assert [(value, total) for value, total, _ in comfy.bar.last.told] == [(1, 3), (2, 3), (3, 3)]
    kind, preview, most = comfy.bar.last.told[-1][2]
    assert (kind, most) == ("JPEG", 512)
    assert isinstance(preview, Image.Image)
    comfy.stopped = True
    with pytest.raises(stand_ins.Stopped):
        run("PhotoMakerGenerate", **order)


def test_people_are_kept_and_never_overwritten(comfy, engine):
    identity, _ = run("PhotoMakerIdentity", engine=engine, photos=[image(0, 5)])
    names = [run("PhotoMakerSave", identity=identity, name="ada")["result"][0] for _ in range(2)]
    assert names == ["ada.safetensors", "ada-2.safetensors"]
    assert NODE_CLASS_MAPPINGS["PhotoMakerLoad"].INPUT_TYPES()["required"]["file"][0] == sorted(names)
    (loaded,) = run("PhotoMakerLoad", file=names[0])
    for key, tensor in identity.tensors.items():
        assert torch.equal(loaded.tensors[key], tensor)


@pytest.mark.parametrize(
    "name", ["", "  ", "../ada", "a/b", "/etc/ada", ".hidden", "a\\b", "x" * 200, "a\0b"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="the name is"):
        free_place(tmp_path, name)


@pytest.mark.parametrize("file", ["nobody.safetensors", "../../secret.safetensors", "/etc/passwd"])
def test_a_file_that_is_not_listed_is_not_opened(comfy, file):
    with pytest.raises(SettingsError, match="there is no person"):
        run("PhotoMakerLoad", file=file)


def test_folders_of_photos_are_listed_and_read(comfy):
    folder = comfy.root / "input" / "ada"
    folder.mkdir()
    fakes.save(folder / "2.png", who=2)
    fakes.picture(1, 1, (32, 48)).save(folder / "1.png")
    (folder / "notes.txt").write_text("no photo")
    (comfy.root / "input" / "empty").mkdir()
    node = NODE_CLASS_MAPPINGS["PhotoMakerPhotos"]
    assert node.INPUT_TYPES()["required"]["folder"][0] == ["ada"]
    (photos,) = run("PhotoMakerPhotos", folder="ada")
    assert [tuple(one.shape) for one in photos] == [(1, 48, 32, 3), (1, 64, 64, 3)]
    before = node.IS_CHANGED("ada")
    fakes.save(folder / "3.png")
    assert node.IS_CHANGED("ada") != before
    for other in ("ben", "..", "../.."):
        with pytest.raises(SettingsError, match="no folder"):
            run("PhotoMakerPhotos", folder=other)


def test_people_are_mixed_with_what_measures_their_likeness(comfy, engine):
    first, _ = run("PhotoMakerIdentity", engine=engine, photos=[image(0)])
    second, _ = run("PhotoMakerIdentity", engine=engine, photos=[image(200)])
    (mixed,) = run("PhotoMakerMix", first=first, second=second, share=0.5, how="blend")
    assert len(mixed.tensors["face_embeddings"]) == 2
    with pytest.raises(SettingsError, match="the share"):
        run("PhotoMakerMix", first=first, second=second, share=1.5, how="blend")
    with pytest.raises(SettingsError, match="choose blend or proportion"):
        run("PhotoMakerMix", first=first, second=second, share=0.5, how="half")


def test_the_engine_is_opened_from_files_that_are_listed(comfy, tiny_base, tiny_adapter_file):
    (comfy.root / "models/diffusers/tiny").symlink_to(tiny_base)
    (comfy.root / "models/photomaker/tiny.safetensors").symlink_to(tiny_adapter_file)
    listed = NODE_CLASS_MAPPINGS["PhotoMakerEngine"].INPUT_TYPES()["required"]
    assert listed["base"][0] == ["bundled", "tiny"]
    assert listed["adapter"][0] == ["bundled", "tiny.safetensors"]
    settings = {"faces": "none", "dtype": "fp32", "memory": "auto"}
    (engine,) = run("PhotoMakerEngine", base="tiny", adapter="tiny.safetensors", **settings)
    assert isinstance(engine, Engine)
    with pytest.raises(SettingsError, match="an adapter is missing"):
        run("PhotoMakerEngine", base="tiny", adapter="bundled", **settings)


# ---- native


@pytest.fixture
def adapter(comfy, tiny_adapter_file, model):
    (comfy.root / "models/photomaker/tiny.safetensors").symlink_to(tiny_adapter_file)
    return run("PhotoMakerModel", model=model, adapter="tiny.safetensors", strength=0.8)


def test_the_model_gets_the_lora(comfy, adapter, model):
    patched, opened = adapter
    assert patched.patched
    ((weights, strength),) = comfy.patches
    assert strength == 0.8
    assert weights.keys() == opened.lora.keys()
    same, _ = run("PhotoMakerModel", model=model, adapter="tiny.safetensors", strength=0.0)
    assert same is model


def test_a_model_of_another_kind_is_refused(comfy, tiny_adapter_file):
    (comfy.root / "models/photomaker/tiny.safetensors").symlink_to(tiny_adapter_file)
    other = SimpleNamespace(model=torch.nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="the model has no such layer"):
        run("PhotoMakerModel", model=other, adapter="tiny.safetensors", strength=1.0)
    assert not comfy.patches


def test_what_is_no_adapter_is_refused(comfy, model):
    (comfy.root / "models/photomaker/broken.bin").write_bytes(b"nothing")
    with pytest.raises(WeightsError):
        run("PhotoMakerModel", model=model, adapter="broken.bin", strength=1.0)


@pytest.mark.parametrize("prompt", [PROMPT, "a (woman:1.4) img " + "with a red hat " * 30])
@pytest.mark.parametrize("count", [1, 3])
def test_the_conditioning_is_the_pipelines(pipe, adapter, photos, prompt, count):
    images = [image_of([photo]) for photo in photos[:count]]
    (identity,) = run("PhotoMakerPerson", adapter=adapter[1], photos=images)
    clip = stand_ins.StandInClip(pipe)
    both, alone, complete = run(
        "PhotoMakerPrompt", clip=clip, adapter=adapter[1], identity=identity, prompt=prompt, merge=0.25
    )
    rows = pipe.expand_prompts([prompt], [count], long_prompt=True)
    with torch.no_grad():
        wanted = pipe.condition(rows, [pipe.encode_identity(photos[:count])])
    plain = pipe.encode_prompts(prompt, photos=count, long_prompt=True)
    (before, first), (after, second) = both
    assert complete == prompt
    torch.testing.assert_close(after, wanted.embeds, atol=1e-4, rtol=0)
    torch.testing.assert_close(second["pooled_output"], wanted.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(before, plain["prompt_embeds_text_only"], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        first["pooled_output"], plain["pooled_prompt_embeds_text_only"], atol=1e-5, rtol=0
    )
    assert torch.equal(alone[0][0], before)
    assert (before - after).abs().max() > 0.1


def test_photos_may_be_weighed(adapter, photos):
    images = [image_of([photo]) for photo in photos[:2]]
    (identity,) = run("PhotoMakerPerson", adapter=adapter[1], photos=images, weights="1, 0.5")
    assert identity.tensors["weights"].tolist() == [1.0, 0.5]
    for text, words in {"1": "one number from 0 up for each photo", "a, b": "write numbers such as"}.items():
        with pytest.raises(SettingsError, match=words):
            run("PhotoMakerPerson", adapter=adapter[1], photos=images, weights=text)
    assert numbers(" ") is None


def test_textual_inversions_are_read(pipe, adapter, photos):
    (identity,) = run("PhotoMakerPerson", adapter=adapter[1], photos=[image_of([photos[0]])])
    clip = stand_ins.StandInClip(pipe)
    inputs = {"clip": clip, "adapter": adapter[1], "identity": identity, "merge": 0.0}
    run("PhotoMakerPrompt", prompt="a woman img, (embedding:known:1.2), in the snow", **inputs)
    for name, width in (("l", 32), ("g", 48)):
        vectors = [one for one, _ in clip.asked[0][name][0] if torch.is_tensor(one)]
        assert [tuple(one.shape) for one in vectors] == [(width,), (width,)]
    with pytest.raises(PromptError, match="no textual inversion 'unknown'"):
        run("PhotoMakerPrompt", prompt="a woman img, embedding:unknown", **inputs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"prompt": "a house"}, PromptError, "no class word"),
        ({"clip": SimpleNamespace(tokenizer=None)}, WeightsError, "the CLIP of an SDXL checkpoint"),
        ({"identity": Identity("ip_adapter", {})}, IdentityError, "made by ip_adapter"),
    ],
)
def test_mistakes_are_told_in_one_sentence_before_a_model_runs(pipe, adapter, photos, change, error, words):
    (identity,) = run("PhotoMakerPerson", adapter=adapter[1], photos=[image_of([photos[0]])])
    clip = stand_ins.StandInClip(pipe)
    inputs = {"clip": clip, "adapter": adapter[1], "identity": identity, "prompt": PROMPT, "merge": 0.2}
    with pytest.raises(error, match=words) as caught:
        run("PhotoMakerPrompt", **(inputs | change))
    assert isinstance(caught.value, PhotoMakerError)
    assert "\n" not in str(caught.value)
    assert not clip.asked


def test_v2_without_its_face_models_is_told(comfy, tiny_adapter_v2_file, photos, monkeypatch):
    from photomaker import registry

    def missing(kind, name):
        raise SettingsError(f"{kind} {name!r} needs insightface")

    monkeypatch.setattr(registry, "find", missing)
    adapter = PhotoMakerAdapter.open(tiny_adapter_v2_file)
    with pytest.raises(SettingsError, match="needs insightface"):
        run("PhotoMakerPerson", adapter=adapter, photos=[image_of([photos[0]])])


# ---- the merge point


def embeddings():
    one = torch.zeros(1, 77, 8)
    return PromptEmbeddings(one + 1, one[0, :1] + 1, one, one[0, :1], PROMPT)


@pytest.mark.parametrize("merge", [1e-6, 0.2, 0.5, 0.999])
def test_both_parts_meet_in_one_point_just_before_the_step(merge):
    (before, first), (after, second) = parted(embeddings(), merge)
    assert first["start_percent"] == 0.0
    assert first["end_percent"] == second["start_percent"]
    assert 0 < merge - second["start_percent"] <= 5e-5
    assert second["end_percent"] == 1.0
    assert before.max() == 0
    assert after.min() == 1


@pytest.mark.parametrize(("merge", "value"), [(0.0, 1.0), (1.0, 0.0)])
def test_at_the_ends_there_is_one_part_for_all_steps(merge, value):
    ((embeds, options),) = parted(embeddings(), merge, {"hooks": "kept"})
    assert embeds.unique().tolist() == [value]
    assert options.keys() == {"pooled_output", "hooks"}
