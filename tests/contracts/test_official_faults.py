"""Faults of the official package that its own tests would have found, each held here or where the comment says.

Imports with today's diffusers: tests/test_public_names.py. Versions, key order, pickles: tests/encoders/. Batches,
triggers, slots, photos of every kind: tests/pipelines/test_calls.py. Merge steps of second-order schedulers, strength
and denoising_end: tests/pipelines/test_merging.py and test_tasks.py. Faces of V2: tests/pipelines/test_v2.py. Loading
twice, failed loads, saving, fusing, other LoRA: tests/pipelines/test_adapters.py and test_beside_others.py.
"""

import subprocess
import sys

import pytest
import torch
from transformers import CLIPTokenizer

from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline as Pipeline

MAN = "a photo of a man img on the beach"


@pytest.fixture(scope="module")
def pipe(tiny_base, tiny_adapter_file):
    pipeline = Pipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, prompt=MAN, **arguments):
    settings = {"num_inference_steps": 2, "start_merge_step": 0, "output_type": "latent"} | arguments
    return pipeline(prompt, generator=torch.Generator().manual_seed(0), **settings).images


def test_v1_never_imports_insightface(tiny_base, tiny_adapter_file):
    code = (
        "import sys, torch; from photomaker import PhotoMakerStableDiffusionXLPipeline as P\n"
        "pipe = P.from_pretrained(sys.argv[1], add_watermarker=False)\n"
        "pipe.load_photomaker_adapter(sys.argv[2])\n"
        "pipe('a man img', input_id_images=torch.rand(3, 40, 40), num_inference_steps=2, start_merge_step=0)\n"
        "print(sorted({'insightface', 'onnxruntime', 'torchvision', 'cv2'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tiny_base), str(tiny_adapter_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_printed(tiny_base, tiny_adapter_file, photos, capsys):
    pipeline = Pipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    capsys.readouterr()
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    draw(pipeline, input_id_images=photos[:2])
    assert not capsys.readouterr().out


def test_the_trigger_in_a_negative_prompt_is_a_word_like_others(pipe, photos):
    got = draw(pipe, input_id_images=photos[:1], negative_prompt="an ugly img")
    assert bool(torch.isfinite(got).all())


def test_embeddings_that_are_given_stay_as_they_were(pipe, photos):
    encoded = pipe.encode_prompts(MAN, photos=2)
    before = {name: tensor.clone() for name, tensor in encoded.items()}
    draw(pipe, None, input_id_images=photos[:2], **encoded)
    assert all(torch.equal(encoded[name], tensor) for name, tensor in before.items())


def test_the_id_encoder_leaves_its_arguments_as_they_were(pipe):
    pixels = torch.randn(1, 2, 3, 32, 32)
    embeds = torch.randn(1, 77, pipe.id_encoder.width)
    before = embeds.clone()
    mask = torch.zeros(1, 77, dtype=torch.bool)
    mask[:, 4:6] = True
    with torch.no_grad():
        fused = pipe.id_encoder(pixels, embeds, mask)
    assert torch.equal(embeds, before)
    assert not torch.equal(fused[mask], before[mask])
    assert torch.equal(fused[~mask], before[~mask])


@pytest.mark.parametrize("output", ["latent", "pil"])
def test_a_tuple_is_returned_where_one_is_asked_for(pipe, photos, output):
    got = pipe(
        MAN, input_id_images=photos[:1], num_inference_steps=2, start_merge_step=0, output_type=output,
        return_dict=False,
    )  # fmt: skip
    assert isinstance(got, tuple)


def test_guidance_rescale_and_clip_skip_work(pipe, photos):
    plain = draw(pipe, input_id_images=photos[:1])
    assert not torch.equal(draw(pipe, input_id_images=photos[:1], guidance_rescale=0.7), plain)
    assert not torch.equal(draw(pipe, input_id_images=photos[:1], clip_skip=1), plain)


def test_the_step_callback_gets_what_it_asks_for(pipe, photos):
    seen = []

    def look(_pipe, step, _time, tensors):
        seen.append((step, sorted(tensors)))
        return {"add_text_embeds": torch.zeros_like(tensors["add_text_embeds"])}

    plain = draw(pipe, input_id_images=photos[:1], num_inference_steps=3, start_merge_step=5)
    changed = draw(
        pipe, input_id_images=photos[:1], num_inference_steps=3, start_merge_step=5, callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["latents", "add_text_embeds"],
    )  # fmt: skip
    assert seen == [(step, ["add_text_embeds", "latents"]) for step in range(3)]
    assert not torch.equal(changed, plain)


def test_tokenizers_stay_as_they_were(pipe, tiny_base, photos):
    draw(pipe, input_id_images=photos[:2])
    for name in ("tokenizer", "tokenizer_2"):
        fresh = CLIPTokenizer.from_pretrained(tiny_base / name)
        assert getattr(pipe, name)("a man img").input_ids == fresh("a man img").input_ids


def test_offloading_reaches_the_id_encoder(pipe):
    order = pipe.model_cpu_offload_seq.split("->")
    assert order.index("id_encoder") == order.index("unet") - 1
    assert "id_encoder" in pipe.components
