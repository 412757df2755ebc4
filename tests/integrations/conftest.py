"""A real ComfyUI where `COMFYUI_HOME` names one, and what our own pipeline makes of the same random weights."""

from __future__ import annotations

import gc
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tests.integrations import comfyui_server, random_sdxl

PROMPTS = {
    "plain": "a photo of a woman img in the snow",
    "weighted": "a photo of a (woman:1.3) img in the (snow:0.6), (red (hat:1.2):1.1)",
    "long": "a photo of a woman img in the snow, " + "wearing a red hat and a blue coat, " * 12 + "at night",
}
CASES = [
    ("v1", "plain", 1), ("v1", "plain", 4), ("v1", "weighted", 4), ("v1", "long", 4),
    ("v2", "plain", 1), ("v2", "weighted", 4),
]  # fmt: skip
"""Version, prompt and number of photos of what is compared."""
# core's node leaves the letters of its own trigger word in the prompt
CORE_PROMPT = "a photo of a woman img photomaker in the snow"
NEGATIVE = "low quality, blurry"
SIDE, STEPS, GUIDANCE, MERGE = 256, 2, 5.0, 0.5


@pytest.fixture(scope="session")
def home():
    place = comfyui_server.home()
    if place is None:
        pytest.skip("COMFYUI_HOME is not set; docs/comfyui.md says how to run these tests")
    if not (place / "main.py").is_file():
        pytest.fail(f"COMFYUI_HOME is {place}, and there is no main.py; give ComfyUI's folder")
    return place.resolve()


@pytest.fixture(scope="session")
def scratch(home):
    """A folder for files of several gigabytes: `COMFYUI_SCRATCH`, which is kept, or one that is removed."""
    del home
    if kept := os.environ.get("COMFYUI_SCRATCH"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="photomaker-comfyui-") as folder:
        yield Path(folder)


@dataclass
class Models:
    """Random SDXL for ComfyUI and for us.

    Attributes:
        weights: The diffusers folder.
        base: ComfyUI's base folder, with the same weights as a checkpoint.
        photos: In its input folder.
    """

    weights: Path
    base: Path
    photos: list[Path]


@dataclass
class World:
    """What our own pipeline makes of it."""

    embeddings: dict[tuple[str, str, int], tuple[torch.Tensor, ...]] = field(default_factory=dict)
    core: torch.Tensor | None = None
    latents: torch.Tensor | None = None


@pytest.fixture(scope="session")
def models(home, scratch):
    base = comfyui_server.base_folder(scratch / "comfy")
    weights = random_sdxl.write_base(scratch, home / "comfy/sd1_tokenizer")
    for version in ("v1", "v2"):
        link = base / "models/photomaker" / f"photomaker-{version}.bin"
        made = random_sdxl.write_adapter(scratch, weights, version)
        if not link.exists():
            link.symlink_to(made)
    _checkpoint(home, base, weights)
    return Models(weights, base, _photos(base / "input"))


@pytest.fixture(scope="session")
def world(models):
    """Minutes of text encoders on a CPU; asked for before the server has loaded SDXL, so that both fit."""
    made = World()
    _expect(made, models)
    gc.collect()
    return made


def _checkpoint(home, base, weights):
    """One file in the layout of ComfyUI's checkpoints, put together by ComfyUI itself."""
    place = base / "models/checkpoints/random.safetensors"
    if place.is_file():
        return
    random_sdxl.link_parts(weights, base / "models")
    server = comfyui_server.Server(home, base)
    try:
        done = server.run(random_sdxl.checkpoint_graph())
    finally:
        server.stop()
    assert not done.error, done.error
    next((base / "output").glob("random_*.safetensors")).rename(place)


def _photos(folder):
    """Four photos of one size that the ID encoder takes as it is, and two of other sizes."""
    from PIL import Image

    from photomaker import Engine  # noqa: F401 - imports Pillow's plug-ins as users have them

    paths = []
    for number, size in enumerate([(224, 224), (224, 224), (224, 224), (300, 260)], 1):
        path = folder / "random" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(number))
        small = Image.fromarray((noise.permute(1, 2, 0) * 255).byte().numpy())
        small.resize(size, Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    one = folder / "one" / "1.png"
    one.parent.mkdir(parents=True, exist_ok=True)
    one.write_bytes(paths[0].read_bytes())
    return paths


def _expect(world, models):
    from photomaker import PhotoMakerStableDiffusionXLPipeline

    pipe = PhotoMakerStableDiffusionXLPipeline.from_pretrained(
        models.weights, torch_dtype=torch.float32, vae=None
    )
    pipe.set_progress_bar_config(disable=True)
    for version in ("v1", "v2"):
        pipe.load_photomaker_adapter(models.base / "models/photomaker" / f"photomaker-{version}.bin")
        faces = torch.randn(4, 512, generator=torch.Generator().manual_seed(5))
        for count in {number for kind, _, number in CASES if kind == version}:
            own = {} if version == "v1" else {"id_embeds": faces[:count]}
            identity = pipe.encode_identity(models.photos[:count], **own)
            folder = models.base / "models/photomaker_identities"
            folder.mkdir(parents=True, exist_ok=True)
            identity.save(folder / f"{version}-{count}.safetensors")
            for name in [name for kind, name, number in CASES if (kind, number) == (version, count)]:
                world.embeddings[version, name, count] = _embeddings(pipe, PROMPTS[name], identity, count)
            if version == "v1" and count == 1:
                world.core = _embeddings(pipe, CORE_PROMPT, identity, 1)
            if version == "v1" and count == 4:
                world.latents = _latents(pipe, identity)


@torch.no_grad()
def _embeddings(pipe, prompt, identity, count):
    rows = pipe.expand_prompts([prompt], [count * pipe.num_tokens], long_prompt=True)
    merged = pipe.condition(rows, [identity])
    before = pipe.encode_prompts(prompt, photos=count, long_prompt=True)
    return (
        merged.embeds,
        merged.pooled,
        before["prompt_embeds_text_only"],
        before["pooled_prompt_embeds_text_only"],
    )


def _latents(pipe, identity):
    """Two steps from the noise of ComfyUI's samplers, which begin in another way with steps of this spacing."""
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.manual_seed(0))
    pipe.scheduler.set_timesteps(STEPS)
    first = pipe.scheduler.sigmas[0]
    return (
        pipe(
            PROMPTS["plain"],
            identity=identity,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            start_merge_step=MERGE,
            latents=noise * first / pipe.scheduler.init_noise_sigma,
            width=SIDE,
            height=SIDE,
            output_type="latent",
        ).images
        / 0.13025
    )


@pytest.fixture(scope="session")
def server(home, models):
    running = comfyui_server.Server(home, models.base)
    yield running
    running.stop()
