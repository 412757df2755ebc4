"""The calls that articles and notebooks about the official package show, as they are written there."""

import os

import pytest
import torch
from diffusers.utils import load_image

SCHEDULERS = ["EulerDiscreteScheduler", "DDIMScheduler"]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_notebook(scheduler, tiny_base, tiny_adapter_file, photos, tmp_path):
    input_folder_name = tmp_path / "newton_man"
    input_folder_name.mkdir()
    for number, photo in enumerate(photos[:3]):
        photo.save(input_folder_name / f"newton_{number}.png")

    # from here on as in a notebook
    import diffusers

    from photomaker import PhotoMakerStableDiffusionXLPipeline, image_grid

    pipe = PhotoMakerStableDiffusionXLPipeline.from_pretrained(
        tiny_base,  # base model
        torch_dtype=torch.bfloat16,
        use_safetensors=True,
        variant=None,
    ).to("cpu")
    pipe.load_photomaker_adapter(
        os.path.dirname(tiny_adapter_file),
        subfolder="",
        weight_name=os.path.basename(tiny_adapter_file),
        trigger_word="img",
    )
    pipe.id_encoder.to("cpu")
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    pipe.fuse_lora()

    image_basename_list = os.listdir(input_folder_name)
    image_path_list = sorted([os.path.join(input_folder_name, basename) for basename in image_basename_list])
    input_id_images = []
    for image_path in image_path_list:
        input_id_images.append(load_image(image_path))

    prompt = "a half-body portrait of a man img wearing the sunglasses in the city, best quality"
    negative_prompt = "(asymmetry, worst quality, low quality, illustration, 3d, 2d, painting), bad"
    generator = torch.Generator(device="cpu").manual_seed(42)
    num_steps, style_strength_ratio = 5, 20
    start_merge_step = int(float(style_strength_ratio) / 100 * num_steps)
    start_merge_step = min(start_merge_step, 30)
    images = pipe(
        prompt=prompt,
        input_id_images=input_id_images,
        negative_prompt=negative_prompt,
        num_images_per_prompt=4,
        num_inference_steps=num_steps,
        start_merge_step=start_merge_step,
        generator=generator,
    ).images
    grid = image_grid(images, 1, 4, size_after_resize=64)
    assert grid.size == (256, 64)
