"""SDXL in its released sizes, or tiny, with random weights made on the spot: time and memory depend on shapes alone."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from photomaker.apps.flops import quick_dtype
from photomaker.encoders import PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken
from photomaker.encoders.id_encoder_v2 import vision_config_v2
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.types import Identity
from photomaker.weights import bundled

RANK = 64


_VOCABULARY = 49408


@dataclass(frozen=True)
class Sizes:
    """Sizes of the random model; the defaults are SDXL's and those of the released V2 adapter."""

    blocks: tuple[int, ...] = (320, 640, 1280)
    transformers: tuple[int, ...] = (1, 2, 10)
    layers: int = 2
    heads: tuple[int, ...] = (5, 10, 20)
    texts: tuple[int, int] = (768, 1280)
    text_layers: tuple[int, int] = (12, 32)
    text_heads: tuple[int, int] = (12, 20)
    vae: tuple[int, ...] = (128, 256, 512, 512)
    time: int = 256
    encoder: dict[str, int | str] = field(default_factory=dict)

    @classmethod
    def tiny(cls) -> Sizes:
        """Sizes for a rehearsal in seconds."""
        encoder: dict[str, int | str] = {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "patch_size": 16, "image_size": 32, "projection_dim": 32, "projection_dim_2": 64,
            "id_embeddings_dim": 16, "resampler_depth": 1, "resampler_head": 16, "resampler_ff": 1,
            "resampler_ratio": 2,
        }  # fmt: skip
        return cls(
            (32, 64, 64), (1, 1, 1), 1, (2, 4, 4), (32, 64), (2, 2), (2, 4), (32, 32, 32, 32), 8, encoder
        )


@contextmanager
def bare(dtype: torch.dtype) -> Iterator[None]:
    """Build modules without filling their weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


def filled(module: nn.Module, device: str, spread: float = 0.02) -> Any:  # noqa: ANN401 - any module
    """Give a bare module random weights: small, and ones where a norm scales."""
    module = module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.uniform_(-spread, spread, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand_as(buffer))
    return module.eval()


def make_unet(sizes: Sizes) -> UNet2DConditionModel:
    """The UNet of SDXL."""
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=sizes.blocks,
        layers_per_block=sizes.layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=sizes.transformers,
        attention_head_dim=sizes.heads,
        cross_attention_dim=sum(sizes.texts),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes.time,
        projection_class_embeddings_input_dim=6 * sizes.time + sizes.texts[1],
    )


def make_vae(sizes: Sizes, force_upcast: bool) -> AutoencoderKL:
    """The autoencoder of SDXL."""
    return AutoencoderKL(
        block_out_channels=sizes.vae, layers_per_block=sizes.layers, latent_channels=4, force_upcast=force_upcast,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025,
    )  # fmt: skip


def make_text_encoders(sizes: Sizes) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two text encoders of SDXL."""
    configs = [
        CLIPTextConfig(
            vocab_size=_VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, projection_dim=width, hidden_act=act, bos_token_id=0, eos_token_id=2,
            pad_token_id=1,
        )
        for width, layers, heads, act in zip(
            sizes.texts, sizes.text_layers, sizes.text_heads, ("quick_gelu", "gelu"), strict=True
        )
    ]  # fmt: skip
    return CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])


def _lora(unet: UNet2DConditionModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random LoRA weights on every attention layer, under official names."""
    state: dict[str, Tensor] = {}
    for name, module in unet.named_modules():
        if not name.endswith((".attn1", ".attn2")):
            continue
        layers = {"q": module.to_q, "k": module.to_k, "v": module.to_v, "out": module.to_out[0]}
        for part, layer in layers.items():
            key = f"unet.{name}.processor.to_{part}_lora"
            state[f"{key}.down.weight"] = torch.randn(RANK, layer.in_features).mul(0.01).to(dtype)
            state[f"{key}.up.weight"] = torch.randn(layer.out_features, RANK).mul(0.01).to(dtype)
    return state


def build(
    sizes: Sizes, device: str, photo_count: int
) -> tuple[PhotoMakerStableDiffusionXLPipeline, Identity, dict[str, float]]:
    """SDXL and a V2 adapter with random weights, an identity, and the seconds that things took once."""
    dtype = quick_dtype(device)
    with bare(dtype):
        unet, texts = make_unet(sizes), make_text_encoders(sizes)
        vae = make_vae(sizes, force_upcast=False)
        encoder = PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(vision_config_v2(**sizes.encoder))
    unet, vae, encoder = (filled(part, device) for part in (unet, vae, encoder))
    first, second = (filled(part, device) for part in texts)
    base = bundled("base")
    pipeline = PhotoMakerStableDiffusionXLPipeline(
        vae=vae, text_encoder=first, text_encoder_2=second, unet=unet,
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    state = {name: tensor.cpu() for name, tensor in encoder.state_dict().items()}
    start = time.perf_counter()
    if sizes.encoder:  # sizes that a released file does not have are noted in a config
        pipeline._load_lora(_lora(unet, dtype))
        pipeline.register_modules(id_encoder=encoder)
    else:
        pipeline.load_photomaker_adapter({"id_encoder": state, "lora_weights": _lora(unet, dtype)})
    seconds = {"load_adapter": time.perf_counter() - start}
    del state, encoder
    gc.collect()
    photos = [torch.rand(3, 256, 256) for _ in range(photo_count)]
    assert pipeline.id_encoder is not None
    faces = torch.randn(photo_count, int(pipeline.id_encoder.config.id_embeddings_dim))
    start = time.perf_counter()
    identity = pipeline.encode_identity(photos, id_embeds=faces)
    seconds["encode_identity"] = time.perf_counter() - start
    return pipeline, identity, seconds
