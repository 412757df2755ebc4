"""Random SDXL weights in true widths, the fewest layers that ComfyUI takes for SDXL, and PhotoMaker adapters for them.

The UNet has the layout of KOALA-700M, which ComfyUI knows as a kind of SDXL; both text encoders and the autoencoder
are those of SDXL. All weights are rounded to half precision, in which the files are, so that nobody rounds otherwise.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HALF = torch.float16
RANK = 4


def unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=1, mid_block_type=None,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 5), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


def text_encoders():
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    common = {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "vocab_size": 49408}
    first = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768,
        hidden_act="quick_gelu", **common,
    )  # fmt: skip
    second = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
        hidden_act="gelu", **common,
    )  # fmt: skip
    return CLIPTextModel(first), CLIPTextModelWithProjection(second)


def autoencoder():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=1024,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.13025,
    )  # fmt: skip


def write_base(folder: Path, tokenizer: Path) -> Path:
    """A diffusers folder, once; `tokenizer` is ComfyUI's."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    path = folder / "base"
    if (path / "model_index.json").is_file():
        return path
    torch.manual_seed(0)
    first, second = text_encoders()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder().to(HALF), text_encoder=first.to(HALF), text_encoder_2=second.to(HALF), unet=unet().to(HALF),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer, model_max_length=77),
        tokenizer_2=CLIPTokenizer.from_pretrained(tokenizer, model_max_length=77, pad_token="!"),
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(path)
    del pipeline
    gc.collect()
    return path


def lora(base: Path) -> dict[str, torch.Tensor]:
    """A LoRA under the official names for every attention layer of the base, strong enough to be seen."""
    from safetensors import safe_open

    generator, state = torch.Generator().manual_seed(1), {}
    with safe_open(base / "unet/diffusion_pytorch_model.safetensors", "pt") as file:
        for name in sorted(file.keys()):
            attention, _, part = name.removesuffix(".weight").rpartition(".to_")
            part = part.removesuffix(".0")
            if (
                not attention.endswith(("attn1", "attn2"))
                or part not in ("q", "k", "v", "out")
                or ".bias" in name
            ):
                continue
            out, inner = file.get_slice(name).get_shape()
            prefix = f"unet.{attention}.processor.to_{part}_lora"
            state[f"{prefix}.down.weight"] = (
                torch.randn(RANK, inner, generator=generator) / inner**0.5
            ).half()
            state[f"{prefix}.up.weight"] = (torch.randn(out, RANK, generator=generator) / 16).half()
    return state


def write_adapter(folder: Path, base: Path, version: str) -> Path:
    """A random adapter in the official layout, once; V1 in full size, as core's node wants it."""
    from photomaker.encoders import (
        PhotoMakerIDEncoder,
        PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken,
        vision_config_v2,
    )

    path = folder / f"photomaker-{version}.bin"
    if path.is_file():
        return path
    torch.manual_seed(2)
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = (
        PhotoMakerIDEncoder()
        if version == "v1"
        else PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(vision_config_v2(**small, resampler_depth=1))
    )
    state = {name: tensor.half() for name, tensor in encoder.state_dict().items()}
    torch.save({"id_encoder": state, "lora_weights": lora(base)}, path)
    return path


def checkpoint_graph() -> dict:
    """A graph by which ComfyUI itself puts the parts into one file, in the layout of its checkpoints."""
    return {
        "1": _node("UNETLoader", unet_name="random.safetensors", weight_dtype="default"),
        "2": _node(
            "DualCLIPLoader",
            clip_name1="random_l.safetensors",
            clip_name2="random_g.safetensors",
            type="sdxl",
        ),
        "3": _node("VAELoader", vae_name="random.safetensors"),
        "4": _node("CheckpointSave", model=["1", 0], clip=["2", 0], vae=["3", 0], filename_prefix="random"),
    }


def link_parts(base: Path, models: Path) -> None:
    """Put the parts where ComfyUI's loaders look for them."""
    parts = {
        "diffusion_models/random": "unet/diffusion_pytorch_model",
        "text_encoders/random_g": "text_encoder_2/model",
        "vae/random": "vae/diffusion_pytorch_model",
    }
    for name, place in parts.items():
        link = models / f"{name}.safetensors"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(base / f"{place}.safetensors")
    # today's transformers writes these names without the prefix by which ComfyUI knows them
    first = load_file(base / "text_encoder/model.safetensors")
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in first.items()}
    save_file(named, models / "text_encoders/random_l.safetensors")


def _node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}
