"""Work that is left out: which layers are computed when, and that nothing stays behind."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import tiny_adapter, tiny_pipeline

from photomaker.encoders import together
from photomaker.methods.photomaker import PhotoMaker
from photomaker.pipelines.attention.shortcuts import FRESH, KEPT, Sparing, deep_layers
from photomaker.types import Reference, Request, Sampling, Shortcuts

PROMPT = "a photo of a man img"


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return PhotoMaker.open(tiny_pipeline(folder), tiny_adapter(folder))


@pytest.fixture(scope="module")
def person(method):
    return fitted(method, 0)


def fitted(method, seed):
    noise = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    return method.fit([Reference(Image.fromarray(noise))])


def drawn(method, person, shortcuts=None, seeds=(1,), prompt=PROMPT, **settings):
    sampling = {"steps": 6, "merge": 0.0, **settings}
    if shortcuts is not None:
        sampling["shortcuts"] = shortcuts
    requests = [Request(prompt, Sampling(seed=seed, **sampling)) for seed in seeds]
    return np.stack([np.asarray(one, np.float64) for one in method.generate(person, requests)])


def calls(layer, draw):
    """How often a layer was really computed."""
    count = 0

    def called(*_):
        nonlocal count
        count += 1

    hook = layer.register_forward_hook(called)
    try:
        draw()
    finally:
        hook.remove()
    return count


def inner(unet):
    """A layer inside the deepest block, the outermost skip connection's taker, and a cross-attention's projection."""
    attention = next(one for name, one in unet.named_modules() if name.endswith(".attn2"))
    return unet.mid_block.resnets[0].conv1, unet.up_blocks[-1].resnets[-1].conv1, attention.to_q


def test_deep_layers_are_computed_in_one_of_so_many_steps(method, person):
    deep, outer, _ = inner(method.pipeline.unet)
    assert calls(deep, lambda: drawn(method, person, Shortcuts(3))) == 2
    assert calls(outer, lambda: drawn(method, person, Shortcuts(3))) == 6
    assert calls(deep, lambda: drawn(method, person, Shortcuts(2, deep_after=0.5))) == 4


def test_every_phase_begins_with_all_layers(method, person):
    deep, *_ = inner(method.pipeline.unet)
    assert calls(deep, lambda: drawn(method, person, Shortcuts(20))) == 1
    assert calls(deep, lambda: drawn(method, person, Shortcuts(20), merge=0.5)) == 2
    assert calls(deep, lambda: drawn(method, person, Shortcuts(20), merge=0.5, guidance_stop=0.7)) == 3


def test_steps_are_counted_not_calls(method, person):
    deep, *_ = inner(method.pipeline.unet)
    # Heun looks twice in each of 6 steps but the last; of every second step nothing is computed
    assert calls(deep, lambda: drawn(method, person, Shortcuts(2), scheduler="heun")) == 6


def test_words_are_looked_at_until_they_have_settled(method, person):
    *_, words = inner(method.pipeline.unet)
    assert calls(words, lambda: drawn(method, person, Shortcuts(words_after=0.5))) == 4
    assert calls(words, lambda: drawn(method, person, Shortcuts(words_after=0.0), merge=0.5)) == 2
    assert calls(words, lambda: drawn(method, person, Shortcuts(words_after=0.5), guidance_stop=0.7)) == 5


def test_the_picture_changes_a_little(method, person):
    whole = drawn(method, person)
    for shortcuts in (Shortcuts(2), Shortcuts(2, outer=1), Shortcuts(words_after=0.5)):
        assert (
            0
            < np.abs(drawn(method, person, shortcuts) - whole).mean()
            < np.abs(whole - whole[:, ::-1]).mean()
        )


def test_more_outer_layers_are_more_exact():
    plan = [(Shortcuts(4), 4), (Shortcuts(1, words_after=0.25), 4)]
    for shortcuts, steps in plan:
        sparing = Sparing(Sampling(steps=steps, merge=0.0, shortcuts=shortcuts), lambda steps=steps: steps)
        told = []
        for call in range(steps):
            sparing._plan(call, 2)
            told.append((sparing.deep, sparing.words))
        if shortcuts.deep_every == 4:
            assert [deep for deep, _ in told] == [FRESH, KEPT, KEPT, KEPT]
        else:
            assert [words for _, words in told] == ["always", FRESH, KEPT, KEPT]


def test_which_layers_are_deep():
    def layers(name, count):
        return [f"{name}{number}" for number in range(count)]

    def block(name, attentions=True, down=(), up=()):
        return SimpleNamespace(
            resnets=layers(f"{name} resnet ", 2), attentions=layers(f"{name} attention ", 2) if attentions else None,
            downsamplers=down, upsamplers=up,
        )  # fmt: skip

    unet = SimpleNamespace(
        down_blocks=[block("d0", False, ["d0 down"]), block("d1")], mid_block="mid",
        up_blocks=[
            SimpleNamespace(resnets=layers("u0 resnet ", 3), attentions=None, upsamplers=["u0 up"]),
            SimpleNamespace(resnets=layers("u1 resnet ", 3), attentions=None, upsamplers=None),
        ],
    )  # fmt: skip
    outermost, seam = deep_layers(unet, 0)
    assert outermost[0] == "d0 resnet 0"
    assert seam == "u1 resnet 1"
    more, seam = deep_layers(unet, 2)
    assert more[0] == "d0 down"
    assert seam == "u0 up"
    assert deep_layers(unet, 100)[1] == "u0 resnet 0"


def test_a_picture_does_not_depend_on_those_beside_it(method, person):
    shortcuts = Shortcuts(2, words_after=0.5)
    both = drawn(method, person, shortcuts, (1, 2), guidance_stop=0.5)
    apart = [drawn(method, person, shortcuts, (seed,), guidance_stop=0.5) for seed in (1, 2)]
    np.testing.assert_allclose(both, np.concatenate(apart), atol=1)


def test_several_people_in_a_picture(method):
    pair = together([fitted(method, 1), fitted(method, 2)])
    prompt = "a photo of a man img and a woman img"
    whole, less = (
        drawn(method, pair, one, prompt=prompt, merge=0.2) for one in (None, Shortcuts(2, words_after=0.5))
    )
    assert np.isfinite(less).all()
    assert np.abs(whole - less).mean() > 0


def test_nothing_stays_behind(method, person):
    unet = method.pipeline.unet
    before = [(name, "forward" in vars(layer)) for name, layer in unet.named_modules()]
    weights = {name: one.clone() for name, one in unet.state_dict().items()}
    first = drawn(method, person)
    drawn(method, person, Shortcuts(2, words_after=0.5))
    with pytest.raises(RuntimeError, match="stop here"):
        method.generate(person, [Request(PROMPT, Sampling(steps=4, shortcuts=Shortcuts(2)))], watch=_stop)
    assert [(name, "forward" in vars(layer)) for name, layer in unet.named_modules()] == before
    assert all(torch.equal(one, weights[name]) for name, one in unet.state_dict().items())
    np.testing.assert_array_equal(drawn(method, person), first)


@torch.no_grad()
def test_exact_is_the_same_picture(tmp_path):
    """Keys and values kept, LoRA fused, text encoded for all rows at once: latents as without any of it."""
    from photomaker.pipelines.drop_in import mixin

    base, adapter = tiny_pipeline(tmp_path), tiny_adapter(tmp_path)
    plain, fused = (PhotoMaker.open(base, adapter, fuse_lora=fuse) for fuse in (False, True))
    person, seen = fitted(plain, 3), []
    request = Request(PROMPT, Sampling(steps=6, merge=0.3, seed=5))
    other = Request("a sketch of a woman img", Sampling(steps=6, merge=0.3, seed=6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixin, "kept_projections", lambda _unet: torch.no_grad())
        plain.generate(person, [request], watch=lambda step: seen.append(step.clean))
    before = seen[-1]
    fused.generate(person, [request, other], watch=lambda step: seen.append(step.clean))
    difference = (seen[-1][:1] - before).abs().max()
    assert difference <= 1e-3 * before.std()


def _stop(_step):
    raise RuntimeError("stop here")
