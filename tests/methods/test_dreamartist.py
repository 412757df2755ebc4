"""DreamArtist: the guided loss by hand, both words in their prompts, and its files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from photomaker.errors import IdentityError, SettingsError, WeightsError
from photomaker.methods.dreamartist import ArtistSettings, DreamArtist
from photomaker.training.recipes.contrast import ContrastRecipe
from photomaker.training.recipes.token_rows import encode
from photomaker.training.recipes.tuning import TuningSettings, examples_of, frozen
from photomaker.types import Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7, guidance=3.0))


@pytest.fixture(scope="module")
def method(tiny_base):
    tuning = TuningSettings(steps=2, lr=1e-2, batch_size=1, templates=("a photo of {}",))
    settings = ArtistSettings(rows=2, negative_rows=3, scale=3.0, tuning=tuning)
    return DreamArtist.open(tiny_base, device="cpu", settings=settings)


@pytest.fixture(scope="module")
def person(method, photos):
    return method.fit([Reference(photos[0])], notes={"class_word": "man"})


def drawn(method, identity, request=REQUEST):
    return np.array(method.generate(identity, [request])[0]).astype(int)


def test_both_words_have_rows_and_both_learn(method, person):
    sizes = {name: tuple(one.shape) for name, one in person.tensors.items()}
    assert sizes == {
        "clip_l": (2, 32), "clip_g": (2, 48), "negative_clip_l": (3, 32), "negative_clip_g": (3, 48),
    }  # fmt: skip
    before = method.settings
    try:
        method.settings = replace(before, negative_rate=0.0)
        still = method.fit([Reference(_photo())], notes={"class_word": "man"})
        method.settings = replace(before, negative_rate=2.0)
        moved = method.fit([Reference(_photo())], notes={"class_word": "man"})
    finally:
        method.settings = before
    assert not torch.equal(still.tensors["negative_clip_l"], moved.tensors["negative_clip_l"])


def _photo():
    from PIL import Image

    return Image.effect_noise((40, 40), 80).convert("RGB")


def test_the_loss_is_that_of_the_guided_prediction(method, photos):
    pipeline = method.pipeline
    examples = examples_of(pipeline, [Reference(photos[0])])
    texts = [torch.randn(1, 77, 80, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    pooled = [torch.randn(1, 48, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]

    def fixed(place):
        return lambda places: (
            texts[place].expand(len(places), -1, -1),
            pooled[place].expand(len(places), -1),
        )

    recipe = ContrastRecipe(
        pipeline, {}, examples, fixed(0), method.tuning, negative=fixed(1), scale=4.0, reconstruction=0.0
    )
    rng, seed = (lambda: np.random.default_rng(0)), (lambda: torch.Generator().manual_seed(5))
    with frozen(pipeline), torch.no_grad():
        found, _ = recipe.loss(np.array([0]), rng(), seed())
        noisy, steps, target, _ = recipe.noising(examples.latents, seed())
        times = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
        positive, negative = (
            pipeline.unet(
                noisy,
                steps,
                encoder_hidden_states=text,
                added_cond_kwargs={"text_embeds": one, "time_ids": times},
            ).sample
            for text, one in zip(texts, pooled, strict=True)
        )
        wanted = (negative + 4.0 * (positive - negative) - target).square().mean()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        again = replace(recipe, reconstruction=0.5)
        more, figures = again.loss(np.array([0]), rng(), seed())
        scaling = pipeline.vae.config.scaling_factor
        seen = recipe.noising.clean(noisy, negative + 4.0 * (positive - negative), steps)
        pixels = [pipeline.vae.decode(one / scaling).sample for one in (seen, examples.latents)]
        rebuilt = (pixels[0] - pixels[1]).abs().mean()
    assert figures["rebuilt"] == pytest.approx(float(rebuilt), rel=1e-4)
    torch.testing.assert_close(more, wanted + 0.5 * rebuilt, rtol=1e-4, atol=1e-4)


def test_the_negative_word_stands_in_the_negative_prompt(method, person):
    pipeline = method.pipeline
    rows = [
        tuple(person.tensors[f"{kind}{name}"] for name in ("clip_l", "clip_g")) for kind in ("", "negative_")
    ]
    with torch.no_grad():
        embeds, pooled = encode(pipeline, ["a photo of a <id> on the beach"], "<id>", rows[0])
        for negative, text in ((None, "<id>-neg"), ("a red hat", "<id>-neg, a red hat")):
            against, pooled_against = encode(pipeline, [text], "<id>-neg", rows[1])
            wanted = pipeline(
                prompt_embeds=embeds,
                pooled_prompt_embeds=pooled,
                negative_prompt_embeds=against,
                negative_pooled_prompt_embeds=pooled_against,
                num_inference_steps=2,
                guidance_scale=3.0,
                generator=torch.Generator().manual_seed(7),
            ).images[0]
            found = drawn(method, person, replace(REQUEST, negative_prompt=negative))
            assert np.abs(found - np.array(wanted).astype(int)).max() <= 1


def test_its_files_come_back(method, person, tmp_path):
    path = method.export(person, tmp_path / "ada.safetensors")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ada-neg.safetensors", "ada.safetensors"]
    assert set(load_file(path)) == {"clip_l", "clip_g"}
    again = method.load_published(path)
    assert np.array_equal(drawn(method, again), drawn(method, person))


def test_words_of_other_bases_and_half_a_pair_are_refused(method, tmp_path):
    old = {
        "string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(3, 768)}, "name": "ada", "step": 5000,
        "sd_checkpoint": None, "sd_checkpoint_name": None,
    }  # fmt: skip
    for name in ("ada.pt", "ada-neg.pt"):
        torch.save(old, tmp_path / name)
    wide = {"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)}
    for name in ("wide.safetensors", "wide-neg.safetensors", "half.safetensors"):
        save_file(wide, tmp_path / name)
    for name in ("one.safetensors", "one-neg.safetensors"):
        save_file({"emb_params": torch.zeros(1, 768)}, tmp_path / name)
    for name, match in (
        ("ada.pt", "for one text encoder"),
        ("wide.safetensors", "of width 32"),
        ("half.safetensors", "there is no file or folder .*half-neg"),
        ("one.safetensors", "holds emb_params and not clip_l"),
        ("nothing.pt", "there is no file"),
    ):
        with pytest.raises(IdentityError, match=match) as caught:
            method.load_published(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "bad-neg.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        method.load_published(tmp_path / "bad.safetensors")


def test_an_identity_without_its_negative_word_and_wrong_settings_are_refused(method, person):
    less = {name: one for name, one in person.tensors.items() if not name.startswith("negative_")}
    with pytest.raises(IdentityError, match="the word has nothing for clip_l"):
        method.generate(replace(person, tensors=less), [REQUEST])
    for wrong in (
        {"rows": 0}, {"negative_rows": 0}, {"token": "a b"}, {"scale": 0.5}, {"reconstruction": -1},
        {"negative_rate": -1},
    ):  # fmt: skip
        with pytest.raises(SettingsError):
            ArtistSettings(**wrong)
