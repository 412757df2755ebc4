"""Several people in one picture: whose tokens are read where, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker.encoders import photos_of_each, together
from photomaker.errors import IdentityError, PromptError, SettingsError
from photomaker.pipelines.attention.regions import RegionalAttention, regions_of
from photomaker.pipelines.steps.merging import Subjects
from photomaker.prompts.places import places_said
from photomaker.types import Identity

TWO = "a photo of a man img and a woman img on the beach"
PLACED = "a photo of a man img on the left and a woman img on the right of the beach"


@pytest.fixture(scope="module")
def people(pipe, photos):
    return [pipe.encode_identity(photos[:1]), pipe.encode_identity(photos[1:3])]


class Masks:
    """The attention masks of every cross-attention call, and the text that was read."""

    def __init__(self, pipe):
        self.pipe, self.seen, self.hooks = pipe, [], []

    def __enter__(self):
        for name, layer in self.pipe.unet.named_modules():
            if name.endswith(".attn2"):
                own = layer.processor

                def watched(attn, hidden, *args, own=own, **kwargs):
                    text = kwargs.get("encoder_hidden_states", args[0] if args else None)
                    self.seen.append((hidden.shape[1], text, kwargs.get("attention_mask")))
                    return own(attn, hidden, *args, **kwargs)

                self.hooks.append((layer, own))
                layer.processor = watched
        return self

    def __exit__(self, *_):
        for layer, own in self.hooks:
            layer.processor = own


def test_people_are_put_together_in_their_order(people):
    both = together(people)
    assert both.tensors["subjects"].tolist() == [0, 1, 1]
    assert photos_of_each(both) == (1, 2) and photos_of_each(people[1]) == (2,)
    assert torch.equal(both.tensors["id_features"], torch.cat([one.tensors["id_features"] for one in people]))
    assert both.notes["encoder_sha256"] == people[0].notes["encoder_sha256"]


def test_two_people_and_only_two_to_four(people):
    one = people[0]
    with pytest.raises(IdentityError, match="to combine is 1; give 2 to 4"):
        together([one])
    with pytest.raises(IdentityError, match="to combine is 5"):
        together([one] * 5)
    with pytest.raises(IdentityError, match="identity 2 has several people"):
        together([one, together([one, one])])
    with pytest.raises(IdentityError, match="identity 2 was made by a different model"):
        together([one, Identity("other", dict(one.tensors))])


def test_everybody_is_read_at_their_place_alone(pipe, people, draw):
    both = together(people)
    with Masks(pipe) as masks:
        draw(PLACED, identity=both, start_merge_step=0, guidance_scale=3.0)
    layers = len(masks.hooks)
    assert len(masks.seen) == 3 * layers
    assert all(mask is None for _, _, mask in masks.seen[:layers])
    row = pipe.expand_prompts([PLACED], [(1, 2)])[0][0]
    marked = torch.tensor(row.class_tokens).nonzero().flatten().tolist()
    man, woman = marked[:1], marked[1:]
    for places, _, mask in masks.seen[layers:]:
        assert mask.shape[0] == 2 and not mask[0].any()  # the negative prompt's row
        side = round(places**0.5)
        picture = mask[1].unflatten(0, (side, side))
        others = [place for place in range(mask.shape[-1]) if place not in marked]
        assert not picture[..., others].any()
        assert (picture[:, 0][..., woman] < -5).all() and (picture[:, -1][..., man] < -5).all()
        if side > 2:
            assert (picture[:, 0][..., man] > -0.1).all() and (picture[:, -1][..., woman] > -0.1).all()
    assert not any(layer._forward_pre_hooks for layer, _ in masks.hooks) and not pipe.unet._forward_pre_hooks


def test_who_stands_where_changes_the_picture(pipe, people, draw):
    both, turned = together(people), together(people[::-1])
    first = draw(PLACED, identity=both)
    torch.testing.assert_close(draw(PLACED, identity=both), first)
    assert (draw(PLACED, identity=turned) - first).abs().max() > 1e-3
    assert (draw(PLACED, identity=both, layout=["right", "left"]) - first).abs().max() > 1e-4
    box = [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    torch.testing.assert_close(draw(PLACED, identity=both, layout=box), first, atol=0.05, rtol=0)


def test_without_places_the_text_only_steps_say_where_people_are(pipe, people, draw):
    both = together(people)
    with Masks(pipe) as masks:
        draw(TWO, identity=both, start_merge_step=0)
    layers = len(masks.hooks)
    assert all(mask is not None for _, _, mask in masks.seen[layers:])
    with pytest.raises(SettingsError, match="the positions of the people are unknown"):
        draw(TWO, identity=both, start_merge_step=-1)
    draw(PLACED, identity=both, start_merge_step=-1)
    assert not any(layer._forward_pre_hooks for layer, _ in masks.hooks)


def test_what_looked_most_at_somebody_belongs_to_them():
    tokens = torch.zeros(1, 2, 6, dtype=torch.bool)
    tokens[0, 0, 1], tokens[0, 1, 3] = True, True
    regional = RegionalAttention(Subjects(tokens, tokens))
    regional.size = (4, 8)
    looked = torch.full((1, 2, 4, 8), 0.1)
    looked[0, 0, :, :4], looked[0, 1, :, 4:] = 0.3, 0.3
    looked[0, 1] *= 0.2  # a word that is looked at less has no less of a place
    regional._looked, regional._looks = looked, 1
    found = regional.regions
    assert found.shape == (1, 2, 4, 8)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 4, 8))
    assert (found[0, 0, :, :3] > 0.9).all() and (found[0, 1, :, 5:] > 0.9).all()


def test_several_pictures_of_a_prompt_have_the_same_people(pipe, people, draw):
    both = together(people)
    made = pipe(
        [PLACED], identity=both, num_images_per_prompt=2, num_inference_steps=2, output_type="latent",
        start_merge_step=0, generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
    ).images  # fmt: skip
    assert made.shape[0] == 2
    torch.testing.assert_close(
        made[:1], draw(PLACED, (3,), identity=both, num_inference_steps=2), atol=1e-3, rtol=1e-3
    )


def test_places_become_regions():
    left, right = regions_of(["left", "right"], 16, 16)
    assert left[0, 0] > 0.99 and left[8, 15] < 1e-3 and right[15, 15] > 0.99
    torch.testing.assert_close(left + right, torch.ones(16, 16), atol=0.05, rtol=0)
    three = regions_of(["right", "left", "middle"], 12, 24)
    assert [int(one.sum(0).argmax()) // 8 for one in three] == [2, 0, 1]
    mask = Image.fromarray(np.repeat(np.arange(64)[None] < 32, 64, 0).astype(np.uint8) * 255)
    masked, box = regions_of([mask, (0.5, 0.0, 1.0, 1.0)], 8, 8)
    assert masked[:, :3].min() == 1 and masked[:, 4:].max() == 0
    assert box[4, 7] > 0.5 > box[4, 2]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (["left"], "the layout has 1 places for 2 people"),
        (["left", "top"], "a region is 'top'; give left, middle, right"),
        (["left", (0.5, 0, 0.2, 1)], "a person's box is"),
        (["left", (0.5, 0, 1)], "a person's box is"),
        (["left", (0.5, 0, 40, 1)], "a person's box is"),
        (["left", Image.new("L", (8, 8))], "mask is black all over"),
    ],
)
def test_a_layout_that_is_none_is_refused_before_anything_is_drawn(pipe, people, draw, layout, message):
    with Masks(pipe) as masks, pytest.raises(SettingsError, match=message):
        draw(PLACED, identity=together(people), layout=layout)
    assert not masks.seen


def test_prompts_and_people_must_fit(pipe, people, draw):
    both = together(people)
    with pytest.raises(PromptError, match="'img' 1 times, but there are 2 people"):
        draw("a photo of a man img on the beach", identity=both)
    with pytest.raises(PromptError, match="'img' 2 times, but there are 3 people"):
        draw(TWO, identity=together([*people, people[0]]))
    with pytest.raises(PromptError, match="no class word before each trigger"):
        draw("img and a woman img", identity=both)
    with pytest.raises(SettingsError, match="different numbers of people"):
        draw([PLACED, "a man img"], (0, 1), identity=[both, people[0]])
    with pytest.raises(SettingsError, match="the pictures show one"):
        draw("a man img", identity=people[0], layout=["left"])
    nobody = Identity(people[0].method, {**people[0].tensors, "weights": torch.zeros(1)}, people[0].notes)
    with pytest.raises(IdentityError, match="person 2 of 2 has no photo"):
        draw(PLACED, identity=together([people[0], nobody]))


@pytest.mark.parametrize(
    ("prompt", "people", "said"),
    [
        (PLACED, 2, ("left", "right")),
        ("a woman img in a red cap on the right and an old man img on the left", 2, ("right", "left")),
        (
            "a man img on the left, a boy img in the centre and a girl img to the right",
            3,
            ("left", "middle", "right"),
        ),
        (TWO, 2, None),
        ("a man img on the left and a woman img on the left", 2, None),
        ("on the left a man img and a woman img on the right", 2, None),
    ],
)
def test_places_are_read_off_the_prompt(prompt, people, said):
    assert places_said(prompt, people) == said


def test_prompt_weights_and_guidance_go_with_several_people(pipe, people, draw):
    both = together(people)
    weighed = PLACED.replace("beach", "(beach:1.4)")
    plain, strong = (draw(prompt, identity=both, guidance_scale=4.0) for prompt in (PLACED, weighed))
    assert torch.isfinite(strong).all() and (strong - plain).abs().max() > 1e-4
    negative = draw(PLACED, identity=both, guidance_scale=4.0, negative_prompt="a blurred photo")
    assert (negative - plain).abs().max() > 1e-4


def test_v2_takes_two_tokens_a_photo_of_each(tiny_base, tiny_adapter_v2_file, photos):
    from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

    pipe = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipe.load_photomaker_adapter(tiny_adapter_v2_file)
    pipe.set_progress_bar_config(disable=True)
    faces = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    people = [
        pipe.encode_identity(photos[:1], id_embeds=faces[:1]),
        pipe.encode_identity(photos[1:3], id_embeds=faces[1:]),
    ]
    with Masks(pipe) as masks:
        pipe(
            PLACED, identity=together(people), num_inference_steps=2, start_merge_step=0, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    mask = masks.seen[-1][2][-1]
    side = round(len(mask) ** 0.5)
    picture = mask.unflatten(0, (side, side))
    assert int((picture[0, 0] < -5).sum()) == 2 * 2 and int((picture[0, -1] < -5).sum()) == 2
