"""The nodes in a real ComfyUI on the CPU; run by `COMFYUI_HOME=... pytest tests/integrations`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from integrations.comfyui import NODE_CLASS_MAPPINGS
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tests.integrations.conftest import CASES, CORE_PROMPT, GUIDANCE, MERGE, NEGATIVE, PROMPTS, SIDE, STEPS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # gigabytes of random weights are made first
WORKFLOWS = Path(__file__).parents[2] / "integrations/comfyui/workflows"
LOADED = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "random.safetensors"}},
}


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def workflow(name):
    return json.loads((WORKFLOWS / f"{name}_api.json").read_text(encoding="utf-8"))


def native(version="v1", folder="random", prompt=PROMPTS["plain"], merge=MERGE):
    """Checkpoint, model, person of photos, encode."""
    return {
        **LOADED,
        "2": node("PhotoMakerModel", model=["1", 0], adapter=f"photomaker-{version}.bin", strength=1.0),
        "3": node("PhotoMakerPhotos", folder=folder),
        "4": node("PhotoMakerPerson", adapter=["2", 1], photos=["3", 0], weights="", face_models="buffalo_l"),
        "5": node(
            "PhotoMakerPrompt", clip=["1", 1], adapter=["2", 1], identity=["4", 0], prompt=prompt, merge=merge
        ),
    }


def sampled(graph, steps=STEPS, seed=0, **more):
    """The same with ComfyUI's own sampler behind it, and its latents saved."""
    return {
        **graph,
        "6": node("CLIPTextEncode", clip=["1", 1], text=NEGATIVE),
        "7": node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1),
        "8": node(
            "KSampler", model=["2", 0], positive=["5", 0], negative=["6", 0], latent_image=["7", 0], seed=seed,
            steps=steps, cfg=GUIDANCE, sampler_name="euler", scheduler="ddim_uniform", denoise=1.0, **more,
        ),
        "9": node("SaveLatent", samples=["8", 0], filename_prefix="tests/latent"),
    }  # fmt: skip


def probed(server, graph, source, name="probed"):
    """The CONDITIONING that an output of a graph gives: tensors and ranges."""
    done = server.run({**graph, "probe": node("Probe", conditioning=source, name=name)})
    assert not done.error, done.error
    with safe_open(server.base / "output" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 - not a dict


def latents_of(server, done):
    assert not done.error, done.error
    told = done.outputs["9"]["latents"][0]
    with safe_open(server.base / "output" / told["subfolder"] / told["filename"], "pt") as file:
        return file.get_tensor("latent_tensor")


def picture_of(server, told):
    with Image.open(server.base / "output" / told["subfolder"] / told["filename"]) as picture:
        return picture.convert("RGB")


def away(got, wanted):
    return float((got - wanted).abs().max())


# ---- listed


def test_every_node_is_listed_as_it_describes_itself(server):
    listed = server.call("/object_info")
    for name, kind in NODE_CLASS_MAPPINGS.items():
        assert listed[name]["output"] == list(kind.RETURN_TYPES)
        assert listed[name]["output_name"] == list(kind.RETURN_NAMES)
        assert listed[name]["category"] == kind.CATEGORY
        assert listed[name]["description"]
    assert listed["PhotoMakerModel"]["input"]["required"]["adapter"][0] == [
        "bundled", "photomaker-v1.bin", "photomaker-v2.bin",
    ]  # fmt: skip


# ---- over the engine


def test_the_bundled_model_from_end_to_end(server):
    graph = workflow("bundled")
    graph["4"]["inputs"] |= {"number": 2, "steps": 8, "seed": 3}
    done = server.run(graph)
    assert not done.error, done.error
    assert "4 of 4 photos to keep" in done.outputs["6"]["text"][0]
    report = done.outputs["7"]["text"][0].splitlines()
    assert len(report) == 2
    for told, line, wanted in zip(done.outputs["5"]["images"], report, _by_engine(server.base), strict=True):
        picture = picture_of(server, told)
        assert np.abs(np.asarray(picture, int) - np.asarray(wanted.image, int)).max() <= 2
        assert f"likeness {wanted.likeness:.2f}" in line


def _by_engine(base):
    """The same order without ComfyUI."""
    from photomaker import Engine, Sampling

    prompt = workflow("bundled")["4"]["inputs"]["prompt"]
    return Engine.open().generate(base / "input/ada", prompt, n=2, sampling=Sampling(steps=8, seed=3))


def test_two_people_are_mixed_kept_and_loaded(server):
    graph = workflow("mixing")
    graph["7"]["inputs"] |= {"number": 1, "steps": 4}
    done = server.run(graph)
    assert not done.error, done.error
    assert done.outputs["10"]["text"][0].startswith("likeness ")
    file = done.outputs["13"]["text"][0].removeprefix("saved as ")
    loaded = {
        "1": graph["1"],
        "2": node("PhotoMakerLoad", file=file),
        "3": {**graph["7"], "inputs": {**graph["7"]["inputs"], "identity": ["2", 0]}},
        "4": node("PreviewImage", images=["3", 0]),
        "5": node("PreviewAny", source=["3", 1]),
    }
    again = server.run(loaded)
    assert not again.error, again.error
    assert -1 < float(again.outputs["5"]["text"][0]) < 1


# ---- native


@pytest.mark.parametrize(("version", "name", "count"), CASES)
def test_conditioning_is_our_pipelines(world, server, version, name, count):
    graph = native(version, "one" if count == 1 else "random", PROMPTS[name])
    if version == "v2":  # what embeds faces is not in the package
        graph["4"] = node("PhotoMakerLoad", file=f"v2-{count}.safetensors")
    tensors, ranges = probed(server, graph, ["5", 0])
    names = ["1.embeds", "1.pooled", "0.embeds", "0.pooled"]
    wanted = world.embeddings[version, name, count]
    found = {key: away(tensors[key], one) for key, one in zip(names, wanted, strict=True)}
    print(version, name, count, found)  # noqa: T201 - figures for docs/comfyui.md
    assert max(found.values()) < 1e-3
    assert away(wanted[0], wanted[2]) > 0.1
    assert ranges == {"0": "0.0 0.49995", "1": "0.49995 1.0"}


def test_without_a_person_it_is_comfyuis_own_encoding(server):
    graph = {**LOADED, "2": node("CLIPTextEncode", clip=["1", 1], text="a photo of a woman in the snow")}
    own, _ = probed(server, graph, ["2", 0])
    ours, _ = probed(server, native(), ["5", 1])
    assert away(own["0.embeds"], ours["0.embeds"]) < 1e-5
    assert away(own["0.pooled"], ours["0.pooled"]) < 1e-5


def test_cores_v1_node_with_one_photo_is_ours(world, server):
    graph = {
        **LOADED,
        "2": node("PhotoMakerLoader", photomaker_model_name="photomaker-v1.bin"),
        "3": node("PhotoMakerPhotos", folder="one"),
        "4": node(
            "PhotoMakerEncode", photomaker=["2", 0], image=["3", 0], clip=["1", 1],
            text="a photo of a woman photomaker in the snow",
        ),
    }  # fmt: skip
    core, _ = probed(server, graph, ["4", 0])
    ours, _ = probed(server, native(folder="one", prompt=CORE_PROMPT, merge=0.0), ["5", 0])
    print("core", away(core["0.embeds"], ours["0.embeds"]), away(core["0.pooled"], ours["0.pooled"]))  # noqa: T201
    assert away(core["0.embeds"], ours["0.embeds"]) < 1e-3
    assert away(core["0.pooled"], ours["0.pooled"]) < 1e-3
    assert away(world.core[0], ours["0.embeds"]) < 1e-3


def test_comfyuis_sampler_draws_what_our_pipeline_draws(world, server):
    got = latents_of(server, server.run(sampled(native())))
    print("latents", away(got, world.latents), float(world.latents.std()))  # noqa: T201
    assert away(got, world.latents) < 1e-3 * float(world.latents.std())


def test_photos_merge_point_and_strength_change_the_picture(server):
    def drawn(strength=1.0, **changes):
        graph = once(native(**{"merge": 0.0, **changes}))
        graph["2"]["inputs"]["strength"] = strength
        return latents_of(server, server.run(graph))

    plain = drawn()
    for changes in ({"folder": "one"}, {"merge": 1.0}, {"strength": 0.5}):
        assert away(drawn(**changes), plain) > 1e-2 * float(plain.std())


def once(graph):
    """One step of ComfyUI's sampler, from the first timestep."""
    graph = sampled(graph, steps=1)
    graph["8"]["inputs"]["scheduler"] = "normal"
    return graph


def test_comfyuis_own_loras_add_up_with_the_persons(server, models):
    """PhotoMaker's LoRA as a LoRA of ComfyUI's at half strength, beside half of the node's own, is the whole."""
    loaded = torch.load(models.base / "models/photomaker/photomaker-v1.bin", weights_only=True)[
        "lora_weights"
    ]
    place = models.base / "models/loras/half.safetensors"
    place.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in loaded.items()}, place)
    graph = once(native(merge=0.0))
    whole = latents_of(server, server.run(graph))
    graph["lora"] = node(
        "LoraLoaderModelOnly", model=["1", 0], lora_name="half.safetensors", strength_model=0.5
    )
    graph["2"]["inputs"] |= {"model": ["lora", 0], "strength": 0.5}
    both = latents_of(server, server.run(graph))
    print("LoRA", away(both, whole), float(whole.std()))  # noqa: T201
    assert away(both, whole) < 1e-3 * float(whole.std())


def test_comfyuis_controlnet_guides_both_parts_of_the_conditioning(server):
    """Of random weights: the picture changes with the control, before the merge point and after it."""

    def drawn(strength, end):
        graph = sampled(native())
        graph["net"] = node("RandomControl", model=["1", 0])
        graph["hint"] = node("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=0x40C0FF)
        graph["control"] = node(
            "ControlNetApplyAdvanced", positive=["5", 0], negative=["6", 0], control_net=["net", 0], image=["hint", 0],
            strength=strength, start_percent=0.0, end_percent=end,
        )  # fmt: skip
        graph["8"]["inputs"] |= {"positive": ["control", 0], "negative": ["control", 1]}
        return latents_of(server, server.run(graph))

    without, first, both = drawn(0.0, 1.0), drawn(1.0, 0.4995), drawn(1.0, 1.0)
    spread = float(without.std())
    print("control", away(first, without) / spread, away(both, first) / spread)  # noqa: T201
    assert away(first, without) > 1e-3 * spread
    assert away(both, first) > 1e-3 * spread


def test_the_sdxl_workflow_runs_as_it_is_but_for_its_size(server):
    graph = workflow("sdxl")
    graph["1"]["inputs"]["ckpt_name"] = "random.safetensors"
    graph["7"]["inputs"] |= {"width": SIDE, "height": SIDE}
    graph["8"]["inputs"] |= {"steps": STEPS}
    done = server.run(graph)
    assert not done.error, done.error
    told = done.outputs["10"]["images"][0]
    assert picture_of(server, told).size == (SIDE, SIDE)


def test_a_mistake_is_one_sentence(server):
    graph = workflow("bundled")
    graph["4"]["inputs"] |= {"prompt": "a house by the sea"}
    assert "has no class word for the person" in server.run(graph).error
    wrong = {**native(prompt="a house by the sea"), "6": node("Probe", conditioning=["5", 0], name="none")}
    error = server.run(wrong).error
    assert "has no class word for the person" in error
    assert len(error.splitlines()) == 1
