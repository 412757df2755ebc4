"""Every task over the one mixin: the identity takes effect, and a batch of two is two batches of one."""

import pytest
import torch
from diffusers import ControlNetModel, MultiControlNetModel, T2IAdapter
from PIL import Image

from photomaker.pipelines import (
    PhotoMakerStableDiffusionXLAdapterPipeline,
    PhotoMakerStableDiffusionXLControlNetPipeline,
    PhotoMakerStableDiffusionXLImg2ImgPipeline,
    PhotoMakerStableDiffusionXLInpaintPipeline,
)

MAN, WOMAN = "a photo of a man img on the beach", "a photo of a woman img in the snow"


@pytest.fixture(scope="module")
def controlnet(pipe):
    pipe.unload_photomaker_adapter()  # a ControlNet is made from the base alone
    torch.manual_seed(0)
    net = ControlNetModel.from_unet(pipe.unet, conditioning_channels=3)
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.2)
    return net.eval()


@pytest.fixture(scope="module")
def adapter():
    torch.manual_seed(0)
    return T2IAdapter(
        channels=[16, 32], num_res_blocks=1, downscale_factor=16, adapter_type="full_adapter_xl"
    ).eval()


@pytest.fixture(scope="module")
def tasks(pipe, controlnet, adapter, tiny_adapter_file):
    """Task name -> pipeline and its further arguments."""
    scene = Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 30).convert("RGB")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 64, 32))
    parts = pipe.components

    def make(cls, **more):
        made = cls(**parts, **more)
        made.load_photomaker_adapter(tiny_adapter_file)
        made.set_progress_bar_config(disable=True)
        return made

    control = make(PhotoMakerStableDiffusionXLControlNetPipeline, controlnet=controlnet)
    several = make(
        PhotoMakerStableDiffusionXLControlNetPipeline,
        controlnet=MultiControlNetModel([controlnet, controlnet]),
    )
    return {
        "img2img": (make(PhotoMakerStableDiffusionXLImg2ImgPipeline), {"image": scene, "strength": 0.7}),
        "inpaint": (make(PhotoMakerStableDiffusionXLInpaintPipeline), {"image": scene, "mask_image": mask}),
        "controlnet": (control, {"image": scene}),
        "controlnet without guidance": (control, {"image": scene, "guidance_scale": 1.0}),
        "controlnet guessing": (control, {"image": scene, "guess_mode": True}),
        "several controlnets": (
            several,
            {"image": [scene, scene], "controlnet_conditioning_scale": [0.5, 0.5]},
        ),
        "t2i adapter": (make(PhotoMakerStableDiffusionXLAdapterPipeline, adapter=adapter), {"image": scene}),
    }


NAMES = [
    "img2img", "inpaint", "controlnet", "controlnet without guidance", "controlnet guessing", "several controlnets",
    "t2i adapter",
]  # fmt: skip


def run(task, prompt, seeds, **arguments):
    pipeline, own = task
    by_row = PhotoMakerStableDiffusionXLInpaintPipeline | PhotoMakerStableDiffusionXLAdapterPipeline
    if isinstance(pipeline, by_row):
        # these stock pipelines do not spread a single picture over the rows
        own = {name: [picture] * len(seeds) for name, picture in own.items()}
    settings = {"num_inference_steps": 4, "output_type": "latent", "start_merge_step": 0, **own, **arguments}
    if isinstance(
        pipeline, PhotoMakerStableDiffusionXLAdapterPipeline | PhotoMakerStableDiffusionXLControlNetPipeline
    ):
        settings |= {"height": 64, "width": 64}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipeline(prompt, generator=generators, **settings).images


@pytest.mark.parametrize("name", NAMES)
def test_the_identity_takes_effect_and_rows_do_not_mix(tasks, photos, name):
    people = [photos[:1], photos[1:4]]
    first = run(tasks[name], MAN, (0,), input_id_images=people[0])
    second = run(tasks[name], WOMAN, (1,), input_id_images=people[1])
    both = run(tasks[name], [MAN, WOMAN], (0, 1), input_id_images=people)
    torch.testing.assert_close(both, torch.cat([first, second]), atol=5e-3, rtol=0)
    assert (first - run(tasks[name], MAN, (0,), input_id_images=people[1])).abs().max() > 0.05
    assert not tasks[name][0].unet._forward_pre_hooks


def test_the_controlnet_gets_merged_pooled_but_text_only_tokens(tasks, photos):
    pipeline, _ = tasks["controlnet"]
    seen = []

    def spy(_module, _args, kwargs):
        seen.append((kwargs["encoder_hidden_states"], kwargs["added_cond_kwargs"]["text_embeds"]))

    # inside the call this hook comes before ours, so the ControlNet's own first layer is watched through its forward
    original = pipeline.controlnet.forward
    pipeline.controlnet.forward = lambda *args, **kwargs: (
        spy(None, args, kwargs),
        original(*args, **kwargs),
    )[1]
    try:
        run(tasks["controlnet"], MAN, (0,), input_id_images=photos[:2], num_inference_steps=3)
    finally:
        del pipeline.controlnet.forward
    tokens, pooled = zip(*seen, strict=True)
    assert all(torch.equal(one, tokens[0]) for one in tokens)
    assert [torch.equal(one, pooled[0]) for one in pooled] == [True, False, False]
    assert torch.equal(pooled[1][0], pooled[0][0])


def test_img2img_counts_the_steps_that_its_strength_leaves(tasks, photos, told):
    pipeline, _ = tasks["img2img"]
    identity = pipeline.encode_identity(photos[:1])
    with told("only 2 steps were run"):
        run(tasks["img2img"], MAN, (0,), identity=identity, strength=0.5, start_merge_step=1)
