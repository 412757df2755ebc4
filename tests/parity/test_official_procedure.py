"""The official procedure, written out step by step on stock parts, against the pipeline.

Loop, prompt handling and fusion here are those of the released v1 code, with none of the package's own: the trigger is
a token of the tokenizer, the class token is found by its id, ID embeddings go in where `i > start_merge_step`, and the
pooled embedding then is that of the expanded prompt.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import VISION, WIDTH, WIDTH_2
from torch.nn.functional import gelu, layer_norm, linear
from transformers import CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

PROMPTS = ["a half body portrait of a man img wearing sunglasses, best quality", "A photo of a Woman img"]


class Official:
    """One prompt, one person."""

    def __init__(self, base, adapter_file):
        from diffusers import StableDiffusionXLPipeline

        self.stock = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
        weights = load_file(adapter_file)
        lora = {
            name.removeprefix("lora_weights."): one
            for name, one in weights.items()
            if name.startswith("lora")
        }
        self.stock.load_lora_weights(lora, adapter_name="photomaker")
        self.encoder = {
            name.removeprefix("id_encoder."): one
            for name, one in weights.items()
            if name.startswith("id_enc")
        }
        self.tokenizers = [
            CLIPTokenizer.from_pretrained(base / name) for name in ("tokenizer", "tokenizer_2")
        ]
        for tokenizer in self.tokenizers:
            tokenizer.add_tokens(["img"], special_tokens=True)

    def expanded(self, prompt, copies):
        parts, pooled, mask = [], None, None
        for tokenizer, encoder in zip(
            self.tokenizers, (self.stock.text_encoder, self.stock.text_encoder_2), strict=True
        ):
            ids = tokenizer.encode(prompt)
            place = ids.index(tokenizer.convert_tokens_to_ids("img")) - 1
            del ids[place + 1]
            ids = ids[:place] + [ids[place]] * copies + ids[place + 1 :]
            ids = (ids + [tokenizer.pad_token_id] * 77)[:77]
            output = encoder(torch.tensor([ids]), output_hidden_states=True)
            parts.append(output.hidden_states[-2])
            pooled, mask = output[0], slice(place, place + copies)
        return torch.cat(parts, dim=-1), pooled, mask

    def features(self, photos):
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(**{name: value for name, value in VISION.items() if name != "projection_dim_2"})
        ).eval()
        missing = vision.load_state_dict(self.encoder, strict=False).missing_keys
        assert not missing
        mean = np.array([0.48145466, 0.4578275, 0.40821073])
        deviation = np.array([0.26862954, 0.26130258, 0.27577711])
        pixels = torch.stack(
            [
                torch.from_numpy((np.array(photo) / 255 - mean) / deviation).permute(2, 0, 1).float()
                for photo in photos
            ]
        )
        pooled = vision.vision_model(pixels).pooler_output
        return torch.cat(
            [pooled @ self.encoder[f"visual_projection{which}.weight"].T for which in ("", "_2")], dim=-1
        )

    def fused(self, rows, features):
        def part(name, x):
            weight, bias = (self.encoder[f"fuse_module.{name}.{kind}"] for kind in ("weight", "bias"))
            return layer_norm(x, x.shape[-1:], weight, bias) if "norm" in name else linear(x, weight, bias)

        def mlp(name, x):
            return part(f"{name}.fc2", gelu(part(f"{name}.fc1", part(f"{name}.layernorm", x))))

        x = mlp("mlp1", torch.cat([rows, features], dim=-1)) + rows
        return part("layer_norm", mlp("mlp2", x) + x)

    @torch.no_grad()
    def draw(self, prompt, photos, steps, start_merge_step, guidance, seed, text=None, text_pooled=None):
        embeds, pooled, mask = self.expanded(prompt, len(photos))
        embeds[:, mask] = self.fused(embeds[0, mask], self.features(photos))
        tokens = self.tokenizers[0].encode(prompt, add_special_tokens=False)
        tokens.remove(self.tokenizers[0].convert_tokens_to_ids("img"))
        text, negative, text_pooled, negative_pooled = self.stock.encode_prompt(
            self.tokenizers[0].decode(tokens),
            prompt_embeds=text,
            pooled_prompt_embeds=text_pooled,
        )
        scheduler = self.stock.scheduler
        scheduler.set_timesteps(steps)
        latents = (
            torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
            * scheduler.init_noise_sigma
        )
        times = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(2, 1)
        for i, t in enumerate(scheduler.timesteps):
            late = i > start_merge_step
            condition = torch.cat([negative, embeds if late else text])
            added = {
                "text_embeds": torch.cat([negative_pooled, pooled if late else text_pooled]),
                "time_ids": times,
            }
            given = scheduler.scale_model_input(torch.cat([latents] * 2), t)
            noise = self.stock.unet(given, t, encoder_hidden_states=condition, added_cond_kwargs=added).sample
            unconditional, conditional = noise.chunk(2)
            noise = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(noise, t, latents).prev_sample
        return latents


@pytest.fixture(scope="module")
def official(tiny_base, tiny_adapter_file):
    return Official(tiny_base, tiny_adapter_file)


@pytest.fixture(scope="module")
def pipe(tiny_base, tiny_adapter_file):
    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("start_merge_step", [-1, 0, 2])
@pytest.mark.parametrize(("prompt", "count"), [(PROMPTS[0], 1), (PROMPTS[0], 3), (PROMPTS[1], 2)])
def test_latents_are_the_official_ones(official, pipe, photos, prompt, count, start_merge_step):
    square = [photo.resize((32, 32)) for photo in photos[:count]]  # no resampling, which both would share
    wanted = official.draw(prompt, square, 5, start_merge_step, 5.0, seed=3)
    got = pipe(
        prompt,
        input_id_images=square,
        num_inference_steps=5,
        start_merge_step=start_merge_step,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)
    assert (got.std() > 1).item()


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_embeddings_for_the_steps_before_merging(official, pipe, photos, guidance):
    """`prompt_embeds_text_only` and its pooled sibling of the second official release, beside a prompt."""
    square = [photo.resize((32, 32)) for photo in photos[:2]]
    source = torch.Generator().manual_seed(11)
    text, pooled = (torch.randn(1, *shape, generator=source) for shape in ((77, WIDTH), (WIDTH_2,)))
    wanted = official.draw(PROMPTS[0], square, 5, 2, guidance, seed=3, text=text, text_pooled=pooled)
    got = pipe(
        PROMPTS[0], input_id_images=square, num_inference_steps=5, start_merge_step=2, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3), output_type="latent", prompt_embeds_text_only=text,
        pooled_prompt_embeds_text_only=pooled,
    ).images  # fmt: skip
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)
    without = official.draw(PROMPTS[0], square, 5, 2, guidance, seed=3)
    assert (without - wanted).abs().max() > 0.1
