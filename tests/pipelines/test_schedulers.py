"""Schedulers by the names that people know, and what a watcher is told of each."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from tests.tiny import tiny_adapter, tiny_pipeline

from photomaker.errors import SettingsError
from photomaker.methods.photomaker import PhotoMaker
from photomaker.pipelines.steps.schedulers import NAMES, check_scheduler, scheduler_for
from photomaker.pipelines.steps.watching import clean_latents
from photomaker.studio.opening import Profile
from photomaker.studio.orders.order import Order
from photomaker.studio.orders.planning import planned
from photomaker.types import Request, Sampling

# diffusers' dpm2 hands a tensor to numpy
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")

OWN = EulerAncestralDiscreteScheduler(
    beta_start=0.001, beta_end=0.01, beta_schedule="scaled_linear", prediction_type="v_prediction"
)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Euler a", "euler a"),
        ("euler_ancestral", "euler a"),
        ("DPM++ 2M Karras", "dpm++ 2m karras"),
        ("dpmpp_2m_sde_karras", "dpm++ 2m sde karras"),
        ("UniPC", "unipc"),
        ("LCM", "lcm"),
        ("plms", "pndm"),
    ],
)
def test_spelling_is_forgiving(said, meant):
    assert check_scheduler(said) == meant


@pytest.mark.parametrize("name", ["eulr", "dpm++ 2m carras", "", "  ", "magic"])
def test_an_unknown_name_is_refused_with_a_hint(name):
    with pytest.raises(SettingsError, match=r"there is no scheduler .*(did you mean|known are)"):
        check_scheduler(name)


def test_a_name_is_a_text():
    with pytest.raises(SettingsError, match="scheduler is 5, a int"):
        check_scheduler(5)


@pytest.mark.parametrize("name", NAMES)
def test_noise_and_prediction_stay_those_of_the_base(name):
    made = scheduler_for(OWN, name)
    assert type(made).__name__ == NAMES[name].kind
    assert (made.config.beta_start, made.config.beta_end) == (0.001, 0.01)
    assert made.config.prediction_type == "v_prediction"
    assert all(made.config[key] == value for key, value in NAMES[name].settings.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_the_same_on_a_base_whose_own_scheduler_has_settings_of_its_own(name):
    own = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", use_karras_sigmas=True, algorithm_type="sde-dpmsolver++", solver_order=3,
        timestep_spacing="trailing", final_sigmas_type="sigma_min",
    )  # fmt: skip
    plain = DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing")
    made, expected = (dict(scheduler_for(one, name).config) for one in (own, plain))
    assert set(made.pop("_use_default_values")) == set(expected.pop("_use_default_values"))
    assert made == expected


EDM = EDMEulerScheduler()


@pytest.mark.parametrize("own", [EDM, FlowMatchEulerDiscreteScheduler()])
def test_a_base_with_noise_of_another_kind_keeps_its_own_scheduler(own):
    with pytest.raises(SettingsError, match=f"noise of {type(own).__name__}, which the scheduler 'lcm'"):
        scheduler_for(own, "lcm")
    assert type(scheduler_for(own, None)) is type(own)


def test_a_base_with_noise_of_another_kind_is_told_before_it_is_loaded(tmp_path):
    EDM.save_config(tmp_path / "scheduler")
    with pytest.raises(SettingsError, match="noise of EDMEulerScheduler"):
        planned(
            Order("x", ("a man",), sampling=Sampling(scheduler="lcm")), Profile(base=tmp_path), None, False
        )


def test_an_edm_base_is_watched_as_well(method, person, portraits):
    del portraits
    seen, before = [], method.pipeline.scheduler
    method.pipeline.scheduler = EDMEulerScheduler(prediction_type="v_prediction")
    try:
        method.generate(person, [Request("a man img", Sampling(steps=4))], watch=seen.append)
    finally:
        method.pipeline.scheduler = before
    assert [step.number for step in seen] == [1, 2, 3, 4]
    # Euler's last step goes to no noise at all: what it leaves is the clean picture
    noisy = torch.ones(1, 4, 4, 4)
    own = EDMEulerScheduler(prediction_type="v_prediction")
    own.set_timesteps(4)
    for place in range(4):
        output, sample = torch.full_like(noisy, 0.3), noisy
        own.scale_model_input(sample, own.timesteps[place])
        noisy = own.step(output, own.timesteps[place], sample).prev_sample
        clean = clean_latents(own, output, own.timesteps[place], sample)
    torch.testing.assert_close(clean, noisy)


def test_latents_of_unknown_noise_are_shown_as_they_are():
    own = FlowMatchEulerDiscreteScheduler()
    assert clean_latents(own, torch.zeros(1), 0, torch.ones(1)) == 1


def test_every_call_gets_a_fresh_one():
    assert scheduler_for(OWN, None) is not OWN
    assert scheduler_for(OWN, None).config == OWN.config


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return PhotoMaker.open(tiny_pipeline(folder), tiny_adapter(folder))


@pytest.fixture(scope="module")
def person(method, portraits):
    return method.fit(portraits[:2])


@pytest.fixture(scope="module")
def portraits():
    from PIL import Image

    from photomaker.types import Reference

    noise = np.random.default_rng(0).integers(0, 255, (2, 48, 48, 3), dtype=np.uint8)
    return [Reference(Image.fromarray(one)) for one in noise]


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_draws_and_its_last_clean_picture_is_what_comes_out(method, person, name):
    seen, before = [], method.pipeline.scheduler
    request = Request("a photo of a man img", Sampling(steps=5, seed=3, scheduler=name))
    (picture,) = method.generate(person, [request], watch=seen.append)
    assert method.pipeline.scheduler is before
    assert [step.number for step in seen] == list(range(1, seen[-1].steps + 1))
    vae = method.pipeline.vae
    with torch.no_grad():
        decoded = vae.decode(seen[-1].clean / vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).numpy()
    # DEIS, LMS and PNDM lean on earlier steps to the end; a few levels of 255 apart
    assert np.abs(expected - np.asarray(picture, np.float64)).mean() < 12


def test_a_watcher_that_raises_stops_there_and_leaves_the_scheduler(method, person):
    seen, before = [], method.pipeline.scheduler

    def stop(step):
        seen.append(step.number)
        raise KeyError("enough")

    with pytest.raises(KeyError):
        method.generate(person, [Request("a man img", Sampling(steps=5))], watch=stop)
    assert seen == [1]
    assert method.pipeline.scheduler is before
    assert "step" not in vars(before)
    method.generate(person, [Request("a man img", Sampling(steps=1))])
