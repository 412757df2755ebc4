"""Delayed merging: which denoising steps see the identity, with which scheduler, and that nothing stays behind."""

import warnings

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionXLPipeline,
)

from photomaker.pipelines import Conditioning, DelayedMerging

PROMPT = "a photo of a man img on the beach"


class Spy:
    """What the UNet really gets, after the merging hook."""

    def __init__(self, pipe):
        self.pipe, self.seen = pipe, []

    def __enter__(self):
        unet, original = self.pipe.unet, self.pipe.unet.forward

        def forward(*args, **kwargs):
            self.seen.append((kwargs["encoder_hidden_states"], kwargs["added_cond_kwargs"]["text_embeds"]))
            return original(*args, **kwargs)

        unet.forward = forward
        return self

    def __exit__(self, *_):
        del self.pipe.unet.forward

    def merged(self):
        """Per UNet call, whether the conditional rows are the merged ones (those of the last call)."""
        first = self.seen[0][0]
        return [not torch.equal(tokens, first) for tokens, _ in self.seen]


@pytest.fixture
def scheduler(pipe):
    """Puts the pipeline's own scheduler back."""
    own = pipe.scheduler
    yield lambda kind: setattr(pipe, "scheduler", kind.from_config(own.config))
    pipe.scheduler = own


@pytest.mark.parametrize(
    "kind", [EulerDiscreteScheduler, DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler]
)
@pytest.mark.parametrize("merge_step", [0, 2])
def test_denoising_steps_are_counted_not_unet_calls(pipe, photos, draw, scheduler, kind, merge_step):
    scheduler(kind)
    with Spy(pipe) as spy:
        draw(PROMPT, input_id_images=photos[:2], num_inference_steps=4, start_merge_step=merge_step)
    order = pipe.scheduler.order
    wanted = [call // order > merge_step for call in range(len(spy.seen))]
    assert spy.merged() == wanted
    assert len(spy.seen) == (4 if order == 1 else 7)


def test_only_the_conditional_rows_change_tokens_and_pooled(pipe, photos, draw):
    with Spy(pipe) as spy:
        draw(PROMPT, input_id_images=photos[:2], num_inference_steps=2)
    (before, pooled_before), (after, pooled_after) = spy.seen
    assert torch.equal(before[0], after[0])
    assert torch.equal(pooled_before[0], pooled_after[0])
    assert not torch.equal(before[1], after[1])
    assert not torch.equal(pooled_before[1], pooled_after[1])


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_merging_from_the_start_is_the_stock_pipeline_with_merged_embeddings(pipe, photos, draw, guidance):
    identity = pipe.encode_identity(photos[:3])
    rows = pipe.expand_prompts([PROMPT], [3])
    with torch.no_grad():
        merged = pipe.condition(rows, [identity])
        wanted = StableDiffusionXLPipeline.__call__(
            pipe,
            prompt_embeds=merged.embeds,
            pooled_prompt_embeds=merged.pooled,
            negative_prompt_embeds=torch.zeros_like(merged.embeds),
            negative_pooled_prompt_embeds=torch.zeros_like(merged.pooled),
            guidance_scale=guidance,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images
    got = draw(PROMPT, identity=identity, start_merge_step=-1, guidance_scale=guidance)
    assert torch.equal(got, wanted)


def test_a_merge_step_past_the_end_is_told_and_is_the_text_only_picture(pipe, photos, draw, told):
    with told("the photos had no effect"):
        late = draw(PROMPT, input_id_images=photos[:1], start_merge_step=3)
    text_only = StableDiffusionXLPipeline.__call__(
        pipe,
        "a photo of a man on the beach",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    assert torch.equal(late, text_only)


def test_denoising_end_counts_the_steps_that_are_run(pipe, photos, draw):
    with Spy(pipe) as spy:
        draw(PROMPT, input_id_images=photos[:1], num_inference_steps=6, denoising_end=0.5, start_merge_step=0)
    assert spy.merged() == [False, True]


def test_hooks_are_gone_after_a_call_and_after_an_error(pipe, photos, draw):
    def stop(*_):
        raise KeyboardInterrupt

    draw(PROMPT, input_id_images=photos[:1])
    assert not pipe.unet._forward_pre_hooks
    with pytest.raises(KeyboardInterrupt):
        draw(PROMPT, input_id_images=photos[:1], callback_on_step_end=stop)
    assert not pipe.unet._forward_pre_hooks


def test_a_callback_may_switch_guidance_off_midway(pipe, photos, draw):
    def switch(pipeline, step, _time, tensors):
        if step == 1:
            pipeline._guidance_scale = 0.0
            return {name: tensor.chunk(2)[-1] for name, tensor in tensors.items() if name != "latents"}
        return {}

    names = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    with Spy(pipe) as spy:
        draw(
            PROMPT,
            input_id_images=photos[:1],
            num_inference_steps=4,
            callback_on_step_end=switch,
            callback_on_step_end_tensor_inputs=names,
        )
    assert [len(tokens) for tokens, _ in spy.seen] == [2, 2, 1, 1]
    assert torch.equal(spy.seen[1][0][1], spy.seen[2][0][0])


def test_rows_without_identity_pass_through_bit_for_bit():
    given, merged = torch.randn(4, 5, 6), torch.randn(2, 5, 6)
    conditioning = Conditioning(merged, torch.randn(2, 3), torch.tensor([True, False]))
    swapped = DelayedMerging(conditioning, -1)._swap(given, merged)
    assert torch.equal(swapped, torch.stack([given[0], given[1], merged[0], given[3]]))


def test_default_merge_step_gives_one_text_only_step(pipe, photos, draw):
    with Spy(pipe) as spy, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        draw(PROMPT, input_id_images=photos[:1], start_merge_step=None)
    assert spy.merged() == [False, True, True]
