"""Arguments of the call: none is dropped, by name or by place, in any task's class."""

import inspect
import re

import pytest
import torch

from photomaker import pipelines
from photomaker.errors import SettingsError
from photomaker.pipelines.drop_in.arguments import DEPRECATED, stock_arguments

MAN = "a photo of a man img on the beach"
CLASSES = sorted(name for name in pipelines.__all__ if name.startswith("PhotoMakerStableDiffusionXL"))


def stock_of(name):
    return next(one for one in getattr(pipelines, name).__mro__ if one.__module__.startswith("diffusers"))


@pytest.fixture(params=CLASSES)
def task(request):
    """A pipeline of each class without any model: whatever runs would fail with another error."""
    return getattr(pipelines, request.param).__new__(getattr(pipelines, request.param))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("negativ_prompt", "negative_prompt"), ("input_id_imagess", "input_id_images"), ("identitys", "identity"),
        ("start_merge", "start_merge_step"), ("num_inference_step", "num_inference_steps"),
        ("prompt_embeds_textonly", "prompt_embeds_text_only"), ("class_token_mask", "class_tokens_mask"),
    ],
)  # fmt: skip
def test_a_misspelt_argument_is_refused(task, name, meant):
    with pytest.raises(SettingsError, match=f"the call has no argument '{name}'; did you mean '{meant}'"):
        task(MAN, **{name: 1})


def test_what_is_like_nothing_is_refused(task):
    with pytest.raises(SettingsError, match="has no argument 'xyzzy'; leave it out"):
        task(MAN, xyzzy=1)


@pytest.mark.parametrize("name", CLASSES)
def test_all_that_the_stock_call_takes_goes_through(name):
    stock = stock_of(name)
    parameters = inspect.signature(stock.__call__).parameters
    names = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD][3:]
    assert len(names) > 20
    assert list(parameters)[1:3] == ["prompt", "prompt_2"]
    call = stock.__call__.__get__(object())
    given = dict.fromkeys(names, 1)
    assert stock_arguments(call, (), (), given) == given
    assert stock_arguments(call, (), (1,) * len(names), {}) == given


@pytest.mark.parametrize("name", CLASSES)
def test_what_the_stock_calls_take_by_their_keywords_is_known(name):
    """Read off their source: a release of diffusers that takes more, or nothing, is noticed here."""
    call = stock_of(name).__call__
    taken = set(re.findall(r"""\bkwargs\.(?:pop|get)\(\s*["'](\w+)["']""", inspect.getsource(call)))
    swallows = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(call).parameters.values())
    assert taken == (set(DEPRECATED) if swallows else set())


def test_arguments_by_place_are_those_by_name(draw, pipe, photos):
    def generator():
        return torch.Generator().manual_seed(0)

    named = {
        "height": 64,
        "width": 64,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
        "negative_prompt": "a cat",
    }
    more = {"input_id_images": photos[:2], "output_type": "latent", "start_merge_step": 0}
    wanted = pipe(MAN, None, generator=generator(), num_images_per_prompt=2, **named, **more).images
    # height, width, steps, timesteps, sigmas, denoising_end, guidance, negative prompts, pictures, eta, generator
    placed = (64, 64, 3, None, None, None, 4.0, "a cat", None, 2, 0.0, generator())
    assert torch.equal(pipe(MAN, None, *placed, **more).images, wanted)
    assert wanted.shape[0] == 2


def test_an_argument_by_place_and_by_name_is_refused(pipe, photos):
    with pytest.raises(SettingsError, match="height is given by position and by name"):
        pipe(MAN, None, 64, height=64, input_id_images=photos[:1])
    with pytest.raises(SettingsError, match=r"the call takes .* positional arguments, but 102 were given"):
        pipe(MAN, None, *[1] * 100, input_id_images=photos[:1])


@pytest.mark.parametrize("count", [0, 1.5, "2", None])
def test_the_number_of_pictures_is_a_whole_one(pipe, photos, count):
    with pytest.raises(SettingsError, match="num_images_per_prompt is"):
        pipe(MAN, input_id_images=photos[:1], num_images_per_prompt=count)


@pytest.mark.parametrize("step", ["1", float("nan"), float("inf"), 1.5, -2, [1]])
def test_a_merge_step_of_another_kind_is_refused(pipe, photos, step):
    with pytest.raises(SettingsError, match="start_merge_step is"):
        pipe(MAN, input_id_images=photos[:1], start_merge_step=step)
