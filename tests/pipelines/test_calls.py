"""The call: photos, identities, batches, weights, other prompts, and what is refused before any model runs."""

import copy

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from photomaker.errors import IdentityError, PhotoError, PromptError, SettingsError, WeightsError
from photomaker.types import Identity

MAN, WOMAN = "a photo of a man img on the beach", "a sketch of an old woman img wearing a red hat"
CLOSE = {"atol": 2e-3, "rtol": 0}  # latents have a standard deviation near 8


def test_a_saved_identity_is_the_photos_bit_for_bit_without_the_image_encoder(pipe, photos, draw, tmp_path):
    from_photos = draw(MAN, input_id_images=photos[:3])
    identity = Identity.load(pipe.encode_identity(photos[:3]).save(tmp_path / "ada.safetensors"))

    def fail(*_):
        raise AssertionError("the image encoder ran")

    hook = pipe.id_encoder.vision_model.register_forward_pre_hook(fail)
    try:
        assert torch.equal(draw(MAN, identity=identity), from_photos)
    finally:
        hook.remove()


def test_a_saved_identity_needs_no_image_encoder(draw, photos, pipe, tiny_base, tiny_adapter_file, tmp_path):
    identity = Identity.load(pipe.encode_identity(photos[:3]).save(tmp_path / "ada.safetensors"))
    small = type(pipe).from_pretrained(tiny_base, add_watermarker=False)
    small.set_progress_bar_config(disable=True)
    small.load_photomaker_adapter(tiny_adapter_file, image_encoder=False)
    assert [
        name for name, _ in small.id_encoder.named_parameters() if not name.startswith("fuse_module.")
    ] == []
    assert torch.equal(draw(MAN, identity=identity, pipe=small), draw(MAN, input_id_images=photos[:3]))
    with pytest.raises(WeightsError, match="without its image encoder"):
        draw(MAN, input_id_images=photos[:1], pipe=small)
    with pytest.raises(WeightsError, match="cannot be saved"):
        small.save_pretrained(tmp_path / "saved")


def test_a_batch_of_two_is_two_batches_of_one(draw, photos):
    people = [photos[:1], photos[1:5]]
    both = draw([MAN, WOMAN], (3, 4), input_id_images=people, negative_prompt="worst quality")
    alone = [
        draw(text, (seed,), input_id_images=own, negative_prompt="worst quality")
        for text, seed, own in zip((MAN, WOMAN), (3, 4), people, strict=True)
    ]
    torch.testing.assert_close(both, torch.cat(alone), **CLOSE)
    assert (alone[0] - alone[1]).abs().max() > 1


def test_paths_are_opened_as_everywhere_else(draw, photos, tmp_path):
    """One path, a list, a list for each person, and a folder of photos."""
    for place, photo in enumerate(photos[:3]):
        photo.save(tmp_path / f"{place}.png")
    first, second, third = (tmp_path / f"{place}.png" for place in range(3))
    assert torch.equal(draw(MAN, input_id_images=str(first)), draw(MAN, input_id_images=photos[0]))
    wanted = draw(MAN, input_id_images=photos[:3])
    assert torch.equal(draw(MAN, input_id_images=[first, str(second), photos[2]]), wanted)
    assert torch.equal(draw(MAN, input_id_images=tmp_path), wanted)
    several = draw([MAN, WOMAN], (3, 4), input_id_images=[[first], [second, third]])
    assert torch.equal(several, draw([MAN, WOMAN], (3, 4), input_id_images=[photos[:1], photos[1:3]]))


@pytest.mark.parametrize("prompt", [MAN, "a photo of a (man:1.3) img, (smiling)"])
def test_a_deep_copy_draws_the_same_and_is_a_pipeline_of_its_own(pipe, draw, photos, prompt):
    arguments = {"input_id_images": photos[:2], "negative_prompt": "worst quality", "start_merge_step": 1}
    wanted = draw(prompt, **arguments)
    other = copy.deepcopy(pipe)
    # where its weights lie in memory decides how some processors add up
    torch.testing.assert_close(draw(prompt, pipe=other, **arguments), wanted, **CLOSE)
    other.unload_photomaker_adapter()
    assert torch.equal(draw(prompt, **arguments), wanted)


def test_emphasis_around_the_class_word_is_its_number(draw, photos):
    arguments = {"input_id_images": photos[:2]}
    wanted = draw("a photo of a (man:1.21) img", **arguments)
    assert torch.allclose(draw("a photo of a ((man)) img", **arguments), wanted, atol=1e-4)
    assert (draw("a photo of a [man] img", **arguments) - wanted).abs().max() > 0.01


def test_one_person_for_several_prompts(draw, photos):
    shared = draw([MAN, WOMAN], (3, 4), input_id_images=photos[:2])
    torch.testing.assert_close(shared[1:], draw(WOMAN, (4,), input_id_images=photos[:2]), **CLOSE)


def test_several_pictures_of_a_prompt(draw, photos):
    people = [photos[:1], photos[1:3]]
    four = draw([MAN, WOMAN], (0, 1, 2, 3), input_id_images=people, num_images_per_prompt=2)
    torch.testing.assert_close(four[1:2], draw(MAN, (1,), input_id_images=people[0]), **CLOSE)
    torch.testing.assert_close(four[2:3], draw(WOMAN, (2,), input_id_images=people[1]), **CLOSE)


def test_photos_as_picture_array_and_tensor(draw, photos):
    array = np.array(photos[0])
    wanted = draw(MAN, input_id_images=photos[0])
    for same in (photos[:1], array, torch.from_numpy(array).permute(2, 0, 1), tuple(photos[:1])):
        assert torch.equal(draw(MAN, input_id_images=same), wanted)


def test_other_photos_make_another_picture(draw, photos):
    assert (draw(MAN, input_id_images=photos[:1]) - draw(MAN, input_id_images=photos[1:2])).abs().max() > 0.1


def test_weight_nothing_on_all_photos_is_the_text_only_prompt_bit_for_bit(pipe, draw, photos):
    off = draw(MAN, identity=pipe.encode_identity(photos[:2], weights=[0, 0]))
    plain = StableDiffusionXLPipeline.__call__(
        pipe,
        "a photo of a man on the beach",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    assert torch.equal(off, plain)


def test_a_photo_of_weight_nothing_leaves_the_stack(pipe, draw, photos):
    part = draw(MAN, identity=pipe.encode_identity(photos[:2], weights=[1, 0]))
    torch.testing.assert_close(part, draw(MAN, input_id_images=photos[:1]), **CLOSE)


def test_smaller_weights_come_nearer_to_a_small_effect(pipe, photos):
    rows = pipe.expand_prompts([MAN], [1])
    with torch.no_grad():
        embeds = [
            pipe.condition(rows, [pipe.encode_identity(photos[:1], weights=[weight])]).embeds
            for weight in (0.001, 0.5, 1.0)
        ]
    torch.testing.assert_close(embeds[1], (embeds[0] + embeds[2]) / 2, atol=5e-3, rtol=0)


def test_an_off_row_beside_an_on_row(pipe, draw, photos):
    people = [pipe.encode_identity(photos[:2], weights=[0, 0]), pipe.encode_identity(photos[:1])]
    both = draw([MAN, MAN], (0, 0), identity=people)
    torch.testing.assert_close(both[:1], draw(MAN, identity=people[0]), **CLOSE)
    torch.testing.assert_close(both[1:], draw(MAN, identity=people[1]), **CLOSE)


def test_prompt_2_may_have_its_class_word_elsewhere(pipe, draw, photos):
    same = draw(MAN, prompt_2=MAN, input_id_images=photos[:2])
    torch.testing.assert_close(same, draw(MAN, input_id_images=photos[:2]), **CLOSE)
    other = "a very smiling man img in the city"
    rows = pipe.expand_prompts([MAN], [2], [other])
    identity = pipe.encode_identity(photos[:2])
    with torch.no_grad():
        mixed = pipe.condition(rows, [identity]).embeds[0]
        plain = pipe.condition(pipe.expand_prompts([MAN], [2]), [identity]).embeds[0]
        second = pipe.condition(pipe.expand_prompts([other], [2]), [identity]).embeds[0]
    assert not torch.equal(mixed[:, 32:], plain[:, 32:])
    outside_one = [place for place, is_class in enumerate(rows[0][0].class_tokens) if not is_class]
    outside_two = [place for place, is_class in enumerate(rows[1][0].class_tokens) if not is_class]
    torch.testing.assert_close(mixed[outside_one, :32], plain[outside_one, :32])
    torch.testing.assert_close(mixed[outside_two, 32:], second[outside_two, 32:])


def test_a_missing_trigger_is_put_in(draw, photos):
    assert torch.equal(
        draw("a photo of a man on the beach", input_id_images=photos[:1]),
        draw(MAN, input_id_images=photos[:1]),
    )


@pytest.fixture
def no_model(pipe):
    """No model of the pipeline may run."""

    def fail(module, *_):
        raise AssertionError(f"{type(module).__name__} ran")

    modules = (pipe.unet, pipe.text_encoder, pipe.text_encoder_2, pipe.id_encoder.vision_model, pipe.vae)
    hooks = [module.register_forward_pre_hook(fail) for module in modules]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"prompt": "a castle"}, PromptError, "no class word"),
        ({"prompt": "a man img and a woman img"}, PromptError, "2 times"),
        ({"prompt": "img smiling"}, PromptError, "no class word before"),
        ({"prompt": None}, PromptError, "prompt is None"),
        ({"prompt": []}, PromptError, "prompt is"),
        ({"prompt": MAN, "prompt_2": [MAN, MAN]}, PromptError, "give equal numbers"),
        ({"prompt": MAN, "input_id_images": None}, PhotoError, "input_id_images"),
        ({"prompt": MAN, "input_id_images": []}, PhotoError, "at least one photo"),
        (
            {"prompt": [MAN] * 3, "input_id_images": [["x"], ["x"]]},
            PhotoError,
            "there is no photo or folder x",
        ),
        ({"prompt": [MAN] * 2, "input_id_images": [[3], [4]]}, PhotoError, "PIL picture"),
        ({"prompt": MAN, "input_id_images": 3}, PhotoError, "the photos are 3, a int"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_mistakes_are_told_before_any_model_runs(draw, photos, arguments, error, words):
    with pytest.raises(error, match=words):
        draw(**({"input_id_images": photos[:1]} | arguments))


@pytest.mark.usefixtures("no_model")
def test_identities_of_another_kind_are_refused(pipe, draw):
    features = torch.ones(1, pipe.id_encoder.width)
    weights = torch.ones(1)
    for method, tensors, notes in (
        ("photomaker-v2", {"id_features": features, "weights": weights}, {}),
        ("photomaker-v1", {"id_features": features[:, 1:], "weights": weights}, {}),
        ("photomaker-v1", {"id_features": features, "weights": weights}, {"encoder_sha256": "other"}),
        ("photomaker-v1", {"weights": weights}, {}),
    ):
        with pytest.raises(IdentityError, match="make it again"):
            draw(MAN, identity=Identity(method, tensors, notes))


def test_counts_of_people_and_prompts_must_fit(pipe, draw, photos):
    one = pipe.encode_identity(photos[:1])
    with pytest.raises(PhotoError, match="2 people for 3 prompts"):
        draw([MAN] * 3, identity=[one, one])


@pytest.mark.parametrize("weights", [[1], [1, -1], [1, float("nan")]])
def test_photo_weights_must_fit(pipe, photos, weights):
    with pytest.raises(SettingsError, match="photo weights"):
        pipe.encode_identity(photos[:2], weights=weights)


def test_photos_that_do_not_fit_in_the_prompt_are_told(draw, photos, told):
    with told("take 5 tokens, but only 3 fit"):
        draw("red " * 73 + "man img", input_id_images=photos)
