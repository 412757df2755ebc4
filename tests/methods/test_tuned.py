"""What all methods share that are tuned per person: the recipe, the words for the person, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker.errors import IdentityError, PhotoError, PromptError, SettingsError, WeightsError
from photomaker.methods.lora import Lora
from photomaker.methods.tuned import SMALL_GUIDANCE
from photomaker.prompts import with_person
from photomaker.training.recipes.tuning import (
    PersonRecipe,
    Prior,
    PriorSettings,
    TuningSettings,
    examples_of,
    filled,
    fixed,
    frozen,
    prior_of,
    tune,
)
from photomaker.types import Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))
QUICK = replace(Lora.small, tuning=TuningSettings(steps=2, lr=1e-2, batch_size=2))


@pytest.fixture(scope="module")
def method(tiny_base):
    return Lora.open(tiny_base, device="cpu", settings=QUICK)


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a photo of a man img on the beach", "a photo of a sks man on the beach"),
        ("a photo of an old man in the snow", "a photo of an old sks man in the snow"),
        ("a sketch of a woman", "a sketch of a sks woman"),
        ("a boyimg in red", "a sks boy in red"),
        ("a photo of a (man:1.3) img, smiling", "a photo of a sks man, smiling"),
    ],
)
def test_the_person_s_words_take_the_place_of_class_word_and_trigger(prompt, text):
    assert with_person(prompt, "sks {}".format) == text


def test_a_caption_has_the_right_article():
    assert filled("a photo of a {}", "old sks man") == "a photo of an old sks man"
    assert filled("a photo of the {}", "old man") == "a photo of the old man"


def test_training_captions_and_prompts_call_the_person_alike(method):
    notes = {"token": "sks"}
    assert method.captions(notes, "old man") == ["a photo of an old sks man"]
    assert method.captions(notes, "woman") == ["a photo of a sks woman"]


def test_the_loss_falls(tiny_base, references):
    """One photo, many steps: what is learned is this photo's noise."""
    settings = replace(QUICK, tuning=TuningSettings(steps=60, lr=3e-3, batch_size=4))
    told = []
    identity = Lora.open(tiny_base, device="cpu", settings=settings).fit(
        references[:1], progress=lambda *figures: told.append(figures)
    )
    assert identity.notes["loss_last"] < 0.9 * identity.notes["loss_first"]
    assert [done for done, _, _ in told] == list(range(1, 61))


def test_the_loss_is_that_of_the_formula(method, references):
    """Against the definition, written out: the mean square of (predicted - noise), noised by the schedule."""
    pipe, settings = method.pipeline, QUICK.tuning
    with frozen(pipe), torch.no_grad():
        examples = examples_of(pipe, references[:2])
        condition = fixed(pipe, ["a photo of a man"])
        prior = Prior(examples.latents[:1] * 0, condition(torch.tensor([0])), 0.5)
        recipe = PersonRecipe(pipe, {}, examples, condition, settings, prior)
        loss, figures = recipe.loss(np.arange(2), np.random.default_rng(0), torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(3)
        clean = torch.cat([examples.latents, prior.latents.expand(2, -1, -1, -1)])
        steps = (torch.rand(4, generator=generator) * 1000).long()
        noise = torch.randn(clean.shape, generator=generator)
        bar = pipe.scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1).float()
        embeds, pooled = condition(torch.zeros(4, dtype=torch.long))
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 4)}
        noisy = bar.sqrt() * clean + (1 - bar).sqrt() * noise
        predicted = pipe.unet(noisy, steps, embeds, added_cond_kwargs=added).sample
        errors = (predicted - noise).square().mean((1, 2, 3))
    assert float(loss) == pytest.approx(float(errors[:2].mean() + 0.5 * errors[2:].mean()), rel=1e-4)
    assert figures["prior"] == pytest.approx(float(errors[2:].mean()), rel=1e-4)


def test_a_mask_takes_the_background_s_weight(method, references):
    picture = references[0].image
    mask = np.zeros(picture.size[::-1], np.uint8)
    mask[:, : picture.width // 2] = 255
    seen = examples_of(method.pipeline, [replace(references[0], mask=mask)], background=0.25)
    assert seen.cells[0, 0, :, :3].min() > 0.9
    assert seen.cells[0, 0, :, -3:].max() < 0.35
    with pytest.raises(PhotoError, match="give a mask of the photo's size"):
        examples_of(method.pipeline, [replace(references[0], mask=mask[1:])])


def test_mirrored_photos_are_further_examples(method, references):
    plain = examples_of(method.pipeline, references[:2])
    both = examples_of(method.pipeline, references[:2], flip=True)
    turned = [replace(one, image=one.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for one in references]
    assert torch.equal(both.latents[:2], plain.latents)
    assert torch.allclose(both.latents[2:], examples_of(method.pipeline, turned[:2]).latents, atol=0.05)


def test_class_pictures_are_the_base_s_own(method):
    settings = PriorSettings(pictures=3, steps=2)
    together = prior_of(method.pipeline, "old man", settings)
    one_by_one = prior_of(method.pipeline, "old man", settings, batch_size=1)
    assert together.latents.shape == (3, 4, 8, 8)
    assert torch.allclose(together.latents, one_by_one.latents, atol=1e-3)
    assert prior_of(method.pipeline, "man", PriorSettings(pictures=0)) is None


def test_frozen_puts_everything_back(method):
    pipe = method.pipeline
    flags = [one.requires_grad for one in pipe.unet.parameters()]
    kinds = {name: type(one) for name, one in pipe.unet.attn_processors.items()}
    with pytest.raises(RuntimeError), frozen(pipe, gradient_checkpointing=True):
        assert not any(one.requires_grad for one in pipe.unet.parameters())
        raise RuntimeError
    assert [one.requires_grad for one in pipe.unet.parameters()] == flags
    assert {name: type(one) for name, one in pipe.unet.attn_processors.items()} == kinds
    assert not pipe.unet.is_gradient_checkpointing


def test_checkpointing_changes_no_number(tiny_base, references):
    plain, saving = (
        Lora.open(
            tiny_base,
            device="cpu",
            settings=replace(QUICK, tuning=replace(QUICK.tuning, gradient_checkpointing=on)),
        ).fit(references[:2])
        for on in (False, True)
    )
    assert all(torch.allclose(plain.tensors[name], saving.tensors[name], atol=1e-6) for name in plain.tensors)


def test_requests_of_all_kinds_keep_their_order(method, references):
    identity = method.fit(references[:2])
    requests = [
        REQUEST,
        Request("a sketch of a woman", Sampling(steps=3, seed=3), negative_prompt="worst quality"),
        Request("a photo of a girl", Sampling(steps=2, seed=5, width=32, height=40)),
        Request("a photo of a man", Sampling(steps=2, seed=9, guidance=1.0)),
    ]
    together = method.generate(identity, requests)
    assert [picture.size for picture in together] == [(64, 64), (64, 64), (32, 40), (64, 64)]
    for request, picture in zip(requests, together, strict=True):
        alone = method.generate(identity, [request])[0]
        assert np.abs(np.array(alone).astype(int) - np.array(picture).astype(int)).max() <= 2


def test_a_weight_between_lies_between(method, references):
    identity = method.fit(references[:2])
    off, half, whole = (
        np.array(method.generate(identity, [REQUEST], weight=weight)[0]).astype(float)
        for weight in (0.0, 0.5, 1.0)
    )
    assert 0 < np.abs(half - off).mean() < np.abs(whole - off).mean()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"background": 2.0}, "background is 2.0"),
        ({"templates": ("a photo",)}, "caption templates"),
        ({"schedule": "square"}, "schedule is 'square'"),
    ],
)
def test_settings_out_of_range_are_refused(values, words):
    with pytest.raises(SettingsError, match=words):
        TuningSettings(**values)


def test_a_loss_that_is_no_number_is_told(method, references):
    with frozen(method.pipeline):
        examples = examples_of(method.pipeline, references[:1])
        broken = replace(examples, latents=examples.latents * float("nan"))
        condition = fixed(method.pipeline, ["a man"])
        recipe = PersonRecipe(method.pipeline, {"x": torch.nn.Linear(1, 1)}, broken, condition, QUICK.tuning)
        recipe.loss = lambda *_: (recipe.trained["x"].weight.sum() * float("nan"), {})
        with pytest.raises(SettingsError, match=r"the loss is nan after 1 steps at lr 0.01; give a lower lr"):
            tune(recipe)


def test_what_cannot_serve_is_told_in_one_sentence(method, references, tiny_base):
    identity = method.fit(references[:1])
    cases = [
        (PhotoError, "no reference photo", lambda: method.fit([])),
        (SettingsError, "the class word is empty", lambda: method.fit(references, notes={"class_word": " "})),
        (SettingsError, "takes no adapter", lambda: Lora.open(tiny_base, "adapter.safetensors", "cpu")),
        (WeightsError, "not a diffusers model folder", lambda: Lora.open("nowhere/at/all")),
        (PromptError, "no class word", lambda: method.generate(identity, [Request("a castle")])),
        (PromptError, "only 75 can be read", lambda: method.generate(identity, [Request("a " * 80 + "man")])),
        (IdentityError, "made by photomaker-v1", lambda: method.generate(
            replace(identity, method="photomaker-v1"), [REQUEST])),
        (IdentityError, "another base model", lambda: method.generate(
            replace(identity, notes=dict(identity.notes) | {"base": "0" * 16}), [REQUEST])),
        (WeightsError, "cannot be loaded into the base", lambda: method.generate(
            replace(identity, tensors={name: one[:, :3] for name, one in identity.tensors.items()}), [REQUEST])),
        (SettingsError, "batch_size is 0", lambda: Lora(method.pipeline, batch_size=0)),
    ]  # fmt: skip
    for kind, words, attempt in cases:
        with pytest.raises(kind, match=words) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_base_in_half_precision_is_not_tuned(tiny_base, references):
    half = Lora.open(tiny_base, device="cpu", dtype=torch.float16, settings=QUICK)
    with pytest.raises(SettingsError, match="open it in bfloat16 or float32"):
        half.fit(references[:1])


def test_a_base_in_bfloat16_is_tuned_in_float32(tiny_base, references):
    brain = Lora.open(tiny_base, device="cpu", dtype=torch.bfloat16, settings=QUICK)
    identity = brain.fit(references[:1])
    assert {one.dtype for one in identity.tensors.values()} == {torch.float32}
    assert np.isfinite(np.array(brain.generate(identity, [REQUEST])[0])).all()


@pytest.mark.bundled
def test_the_bundled_base_has_settings_and_guidance_of_its_own(tiny_base):
    small, other = Lora.open(), Lora.open(tiny_base)
    assert (small.settings, small.guidance) == (Lora.small, SMALL_GUIDANCE)
    assert other.settings == Lora.published and other.guidance > SMALL_GUIDANCE
