"""Weighted and long prompts, prompts that come as embeddings, and the merge step's other forms."""

import pytest
import torch

from photomaker.errors import PromptError, SettingsError

MAN, WOMAN = "a photo of a man img on the beach", "a sketch of an old woman img wearing a red hat"
CLOSE = {"atol": 2e-3, "rtol": 0}  # latents have a standard deviation near 8


def test_weights_of_one_change_nothing(draw, photos):
    plain = draw(MAN, input_id_images=photos[:2], negative_prompt="a red hat")
    marked = draw(
        "a photo of (a man img:1) on the beach", input_id_images=photos[:2], negative_prompt="a red hat"
    )
    assert torch.equal(marked, plain)


@pytest.mark.parametrize("merge", [-1, 2], ids=["merged", "text only"])
def test_weights_near_one_change_little_and_others_much(draw, photos, merge):
    settings = {"input_id_images": photos[:2], "start_merge_step": merge, "num_inference_steps": 2}
    plain = draw(MAN, **settings)
    near = draw("a photo of a man img on the (beach:1.0001)", **settings)
    torch.testing.assert_close(near, plain, atol=1e-2, rtol=0)
    far = draw("a photo of a man img on the (beach:2)", **settings)
    assert (far - plain).abs().max() > 0.02


def test_the_class_word_may_be_weighted(draw, photos):
    plain = draw(MAN, input_id_images=photos[:2])
    assert (
        draw("a photo of a (man:2) img on the beach", input_id_images=photos[:2]) - plain
    ).abs().max() > 0.02


def test_a_negative_prompt_may_be_weighted(draw, photos):
    plain = draw(MAN, input_id_images=photos[:1], negative_prompt="a red hat")
    more = draw(MAN, input_id_images=photos[:1], negative_prompt="a (red hat:2)")
    assert (more - plain).abs().max() > 0.02


def test_long_prompts_of_ordinary_length_change_nothing(draw, photos):
    settings = {"input_id_images": photos[:2], "negative_prompt": "a red hat"}
    torch.testing.assert_close(draw(MAN, long_prompt=True, **settings), draw(MAN, **settings), **CLOSE)


def test_a_long_prompt_is_read_to_its_end(draw, photos, told):
    start = "a photo of a man img " + "with a red hat " * 25
    settings = {"input_id_images": photos[:3], "negative_prompt": "a cat"}
    with told("long_prompt=True reads all of it"):
        cut = draw(start + "on the beach", **settings)
    with told("in the snow' is not read"):
        assert torch.equal(draw(start + "in the snow", **settings), cut)
    long = draw(start + "on the beach", long_prompt=True, **settings)
    assert (long - draw(start + "in the snow", long_prompt=True, **settings)).abs().max() > 1e-3
    both = draw([start + "on the beach", MAN], (0, 0), long_prompt=True, **settings)
    torch.testing.assert_close(both[:1], long, **CLOSE)


def test_a_class_word_past_the_limit_needs_a_long_prompt(draw, photos):
    prompt = "a red hat, " * 30 + "on a man img"
    with pytest.raises(PromptError, match="move it forward"):
        draw(prompt, input_id_images=photos[:1])
    first, second = (
        draw(prompt, input_id_images=[one], long_prompt=True, start_merge_step=-1) for one in photos[:2]
    )
    assert (first - second).abs().max() > 0.02


def test_encoded_prompts_are_the_prompts(pipe, draw, photos):
    people = [pipe.encode_identity(photos[:2]), pipe.encode_identity(photos[2:4])]
    encoded = pipe.encode_prompts([MAN, WOMAN], photos=2)
    wanted = draw([MAN, WOMAN], (0, 1), identity=people, negative_prompt="a cat")
    got = draw(None, (0, 1), identity=people, negative_prompt="a cat", **encoded)
    torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.parametrize(
    "prompt", ["a (man:1.6) img on the (beach:0.5)", "a photo of a man img on the (beach:2)"]
)
def test_weights_count_the_same_in_encoded_prompts(pipe, draw, photos, prompt):
    wanted = draw(prompt, input_id_images=photos[:2], start_merge_step=1, negative_prompt="a cat")
    encoded = pipe.encode_prompts(prompt, photos=2)
    got = draw(None, input_id_images=photos[:2], start_merge_step=1, negative_prompt="a cat", **encoded)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_embeddings_of_the_steps_before_merging_beside_a_prompt(pipe, draw, photos):
    """As in the official call: until the person joins, the given embeddings count; afterwards the prompt does."""
    other = pipe.encode_prompts(WOMAN)
    given = {name: other[name] for name in ("prompt_embeds_text_only", "pooled_prompt_embeds_text_only")}
    settings = {"input_id_images": photos[:2], "negative_prompt": "a cat", "num_images_per_prompt": 2}
    seeds = (0, 1)
    late = {"start_merge_step": 2} | settings  # the person never joins in 3 steps
    torch.testing.assert_close(draw(MAN, seeds, **late, **given), draw(WOMAN, seeds, **late), **CLOSE)
    assert (draw(MAN, seeds, **late) - draw(WOMAN, seeds, **late)).abs().max() > 0.05
    at_once = {"start_merge_step": -1} | settings
    torch.testing.assert_close(draw(MAN, seeds, **at_once, **given), draw(MAN, seeds, **at_once), **CLOSE)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_embeddings_of_the_steps_before_merging_that_are_the_prompts_own_change_nothing(
    pipe, draw, photos, guidance
):
    own = pipe.encode_prompts(MAN, photos=2)
    settings = {"input_id_images": photos[:2], "start_merge_step": 0, "guidance_scale": guidance}
    wanted = draw(MAN, **settings)
    for names in (("prompt_embeds_text_only",), ("pooled_prompt_embeds_text_only",)):
        got = draw(MAN, **settings, **{name: own[name] for name in names})
        torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda own: {"prompt_embeds_text_only": own["prompt_embeds"][:, :20]},
            "prompt_embeds_text_only have shape",
        ),
        (
            lambda own: {"pooled_prompt_embeds_text_only": torch.ones(2, 3)},
            "pooled_prompt_embeds_text_only have shape",
        ),
        (lambda own: {"class_tokens_mask": own["class_tokens_mask"]}, "class_tokens_mask is given without"),
        (
            lambda own: {"pooled_prompt_embeds": own["pooled_prompt_embeds"]},
            "pooled_prompt_embeds is given without",
        ),
        (lambda own: {"prompt": None, "prompt_2": WOMAN} | own, "both prompt_2 and prompt_embeds"),
        (lambda own: {"prompt": WOMAN} | own, "both prompt and prompt_embeds"),
        (
            lambda own: {"negative_prompt": "a cat", "negative_prompt_embeds": own["prompt_embeds"]},
            "both negative_prompt and negative_prompt_embeds",
        ),
        (
            lambda own: (
                own
                | {"prompt": None, "negative_prompt": "a cat", "negative_prompt_embeds": own["prompt_embeds"]}
            ),
            "both negative_prompt and negative_prompt_embeds",
        ),
    ],
)
def test_embeddings_that_would_be_left_out_are_refused(pipe, draw, photos, change, words):
    arguments = {"prompt": MAN, "input_id_images": photos[:1]} | change(pipe.encode_prompts(MAN, photos=1))
    with pytest.raises(PromptError, match=words):
        draw(**arguments)


def test_encoded_prompts_without_the_text_only_ones(pipe, draw, photos):
    encoded = pipe.encode_prompts(MAN, photos=1)
    less = {name: tensor for name, tensor in encoded.items() if not name.startswith("text_only")}
    settings = {"input_id_images": photos[:1], "start_merge_step": -1}
    torch.testing.assert_close(draw(None, **settings, **less), draw(MAN, **settings), **CLOSE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": MAN}, "both prompt and prompt_embeds"),
        ({"class_tokens_mask": None}, "come with pooled_prompt_embeds and class_tokens_mask"),
        ({"class_tokens_mask": torch.ones(1, 70)}, "encode_prompts makes them fit"),
        ({"input_id_images": "two"}, "marks 1 tokens in row 1, but the photos take 2"),
    ],
)
def test_embeddings_that_do_not_fit_are_told(pipe, draw, photos, change, words):
    given = {"prompt": None, "input_id_images": photos[:1]} | pipe.encode_prompts(MAN, photos=1) | change
    if given["input_id_images"] == "two":
        given["input_id_images"] = photos[:2]
    with pytest.raises(PromptError, match=words):
        draw(**given)


def test_a_negative_prompt_longer_than_the_embeddings_is_told(pipe, draw, photos):
    encoded = pipe.encode_prompts(MAN, photos=1)
    with pytest.raises(PromptError, match="longer than the 77 tokens"):
        draw(None, input_id_images=photos[:1], negative_prompt="red " * 90, long_prompt=True, **encoded)


def test_negative_prompts_must_be_as_many(draw, photos):
    with pytest.raises(PromptError, match="2 texts in negative_prompt for 1 prompts"):
        draw(MAN, input_id_images=photos[:1], negative_prompt=["a", "b"])


def test_the_merge_step_may_count_from_the_start(draw, photos):
    own = {"input_id_images": photos[:1]}
    from_start = draw(MAN, start_merge_step=-1, **own)
    assert torch.equal(draw(MAN, start_merge_step=0, exact_merge_step=True, **own), from_start)
    assert (draw(MAN, start_merge_step=0, **own) - from_start).abs().max() > 0.02
    assert torch.equal(
        draw(MAN, start_merge_step=1, exact_merge_step=True, **own), draw(MAN, start_merge_step=0, **own)
    )


@pytest.mark.parametrize("steps", [4, 10])
def test_the_merge_step_may_be_a_share_of_the_steps(draw, photos, steps):
    settings = {"input_id_images": photos[:1], "num_inference_steps": steps}
    assert torch.equal(
        draw(MAN, start_merge_step=0.5, **settings), draw(MAN, start_merge_step=steps // 2 - 1, **settings)
    )
    assert torch.equal(
        draw(MAN, start_merge_step=0.0, **settings), draw(MAN, start_merge_step=-1, **settings)
    )


@pytest.mark.parametrize("step", [-2, 1.5, -0.5])
def test_other_merge_steps_are_told(draw, photos, step):
    with pytest.raises(SettingsError, match="start_merge_step is"):
        draw(MAN, input_id_images=photos[:1], start_merge_step=step)
