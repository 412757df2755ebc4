"""`from_single_file`: a checkpoint in one file, as the community shares SDXL models."""

import re

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from photomaker import PhotoMakerStableDiffusionXLPipeline as Pipeline

PREFIX = "model.diffusion_model."
WHOLE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
INSIDE = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip


def one_file_name(name, layers, attention):
    """The name of a UNet weight in a single file; `attention` says which blocks have attention."""
    module, _, kind = name.rpartition(".")
    if module in WHOLE:
        return f"{PREFIX}{WHOLE[module]}.{kind}"
    block, part, rest = re.fullmatch(
        r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(\w+)\.(.+)", name
    ).groups()
    number, inner = rest.split(".", 1)
    number = int(number)
    if part == "resnets":
        head, tail = inner.rsplit(".", 1)
        inner = f"{INSIDE[head]}.{tail}"
    if block == "mid_block":
        return f"{PREFIX}middle_block.{2 * number if part == 'resnets' else 1}.{inner}"
    side, index = block.split("_blocks.")
    index = int(index)
    if side == "down":
        if part == "downsamplers":
            return f"{PREFIX}input_blocks.{(layers + 1) * (index + 1)}.0.op.{kind}"
        return f"{PREFIX}input_blocks.{(layers + 1) * index + number + 1}.{0 if part == 'resnets' else 1}.{inner}"
    if part == "upsamplers":
        place = 2 if attention[index] else 1
        return f"{PREFIX}output_blocks.{(layers + 1) * index + layers}.{place}.{inner}"
    return f"{PREFIX}output_blocks.{(layers + 1) * index + number}.{0 if part == 'resnets' else 1}.{inner}"


def test_a_single_file_is_the_folder(tiny_base, tiny_adapter_file, photos, tmp_path):
    folder = Pipeline.from_pretrained(tiny_base, add_watermarker=False)
    config = folder.unet.config
    attention = ["CrossAttn" in kind for kind in config.up_block_types]
    state = load_file(tiny_base / "unet/diffusion_pytorch_model.safetensors")
    renamed = {
        one_file_name(name, config.layers_per_block, attention): tensor for name, tensor in state.items()
    }
    assert len(renamed) == len(state)
    save_file(renamed, tmp_path / "model.safetensors")
    single = Pipeline.from_single_file(
        tmp_path / "model.safetensors",
        config=str(tiny_base),
        vae=AutoencoderKL.from_pretrained(tiny_base / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(tiny_base / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(tiny_base / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(tiny_base / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(tiny_base / "tokenizer_2"),
        scheduler=EulerDiscreteScheduler.from_pretrained(tiny_base / "scheduler"),
        add_watermarker=False,
    )
    drawn = []
    for pipeline in (folder, single):
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = EulerDiscreteScheduler.from_config(folder.scheduler.config)
        pipeline.load_photomaker_adapter(tiny_adapter_file)
        drawn.append(
            pipeline(
                "a photo of a man img on the beach",
                input_id_images=photos[:2],
                num_inference_steps=2,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
            ).images
        )
    assert torch.equal(*drawn)
