"""diffusers' AutoPipelines with our classes: of one task made into another, with the person."""

import subprocess
import sys

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    ControlNetModel,
)
from PIL import Image

from photomaker import pipelines as ours

MAN = "a photo of a man img on the beach"
XL = "PhotoMakerStableDiffusionXL"


@pytest.mark.parametrize(
    ("auto", "wanted"),
    [
        (AutoPipelineForText2Image, f"{XL}Pipeline"),
        (AutoPipelineForImage2Image, f"{XL}Img2ImgPipeline"),
        (AutoPipelineForInpainting, f"{XL}InpaintPipeline"),
    ],
)
@pytest.mark.parametrize("start", ["", "Img2Img", "Inpaint"])
def test_every_task_from_every_other(pipe, auto, wanted, start):
    given = getattr(ours, f"{XL}{start}Pipeline").from_pipe(pipe)
    made = auto.from_pipe(given)
    assert type(made) is getattr(ours, wanted)
    assert made.unet is pipe.unet
    assert made.id_encoder is pipe.id_encoder
    assert made.trigger_word == "img"


@pytest.mark.parametrize(
    ("auto", "wanted"),
    [
        (AutoPipelineForText2Image, f"{XL}ControlNetPipeline"),
        (AutoPipelineForImage2Image, f"{XL}ControlNetImg2ImgPipeline"),
    ],
)
def test_with_a_controlnet_and_without_again(pipe, auto, wanted):
    unet = type(pipe.unet).from_config(pipe.unet.config)  # without LoRA
    made = auto.from_pipe(pipe, controlnet=ControlNetModel.from_unet(unet))
    assert type(made) is getattr(ours, wanted)
    assert type(auto.from_pipe(made, controlnet=None)) is getattr(ours, wanted.replace("ControlNet", ""))


def test_the_person_is_drawn_over_a_picture(pipe, photos):
    scene = Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 30).convert("RGB")
    pictures = []
    for made in (
        AutoPipelineForImage2Image.from_pipe(pipe),
        ours.PhotoMakerStableDiffusionXLImg2ImgPipeline.from_pipe(pipe),
    ):
        made.set_progress_bar_config(disable=True)
        pictures.append(
            made(
                MAN, image=scene, input_id_images=photos[:2], num_inference_steps=4, start_merge_step=0,
                output_type="latent", generator=torch.Generator().manual_seed(0),
            ).images
        )  # fmt: skip
    assert torch.equal(*pictures)


def test_a_saved_pipeline_opens_as_any_task(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    made = AutoPipelineForInpainting.from_pretrained(tmp_path, add_watermarker=False)
    assert type(made) is ours.PhotoMakerStableDiffusionXLInpaintPipeline
    assert made.id_encoder is not None


ORDERS = {
    "ours first": "import photomaker.pipelines as ours; assert 'diffusers.pipelines.auto_pipeline' not in sys.modules; "
    "from diffusers import AutoPipelineForText2Image as Auto",
    "theirs first": "from diffusers import AutoPipelineForText2Image as Auto; import photomaker.pipelines as ours",
}


@pytest.mark.parametrize("order", ORDERS)
def test_whichever_is_imported_first(tiny_base, order):
    """And the lists are not imported for ours."""
    code = (
        f"import sys; {ORDERS[order]}\n"
        f"pipe = ours.{XL}Pipeline.from_pretrained({str(tiny_base)!r}, add_watermarker=False)\n"
        f"assert type(Auto.from_pipe(pipe)) is ours.{XL}Pipeline\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
