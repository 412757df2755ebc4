"""diffusers' schedulers by their usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from photomaker.checks import text
from photomaker.errors import SettingsError


@dataclass(frozen=True)
class Named:
    """A scheduler of diffusers' with its settings.

    Attributes:
        kind: Name of the class.
        settings: What differs from the base's own configuration.
        others: Other names that people use for it.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()


_KARRAS = {"use_karras_sigmas": True}
# few-step weights are trained from the last time step on
_TRAILING = {"timestep_spacing": "trailing"}
_MULTISTEP = "DPMSolverMultistepScheduler"
_SINGLESTEP, _LAST = "DPMSolverSinglestepScheduler", {"lower_order_final": True}
# made for pictures in -1..1, these clip what they draw to it; latents reach further
_UNCLIPPED = {"clip_sample": False}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
NAMES: Mapping[str, Named] = {
    "euler": Named("EulerDiscreteScheduler"),
    "euler trailing": Named("EulerDiscreteScheduler", _TRAILING),
    "euler karras": Named("EulerDiscreteScheduler", _KARRAS),
    "euler a": Named("EulerAncestralDiscreteScheduler", {}, ("euler ancestral",)),
    "heun": Named("HeunDiscreteScheduler"),
    "dpm2": Named("KDPM2DiscreteScheduler", {}, ("kdpm2",)),
    "dpm2 a": Named("KDPM2AncestralDiscreteScheduler", {}, ("dpm2 ancestral", "kdpm2 a")),
    "lms": Named("LMSDiscreteScheduler"),
    "dpm++ 2m": Named(_MULTISTEP),
    "dpm++ 2m karras": Named(_MULTISTEP, _KARRAS),
    "dpm++ 2m sde": Named(_MULTISTEP, _SDE),
    "dpm++ 2m sde karras": Named(_MULTISTEP, _SDE | _KARRAS),
    "dpm++ 3m": Named(_MULTISTEP, {"solver_order": 3}),
    "dpm++ 2s": Named(_SINGLESTEP, _LAST, ("dpm++ singlestep",)),
    "dpm++ 2s karras": Named(_SINGLESTEP, _LAST | _KARRAS),
    "unipc": Named("UniPCMultistepScheduler", {}, ("uni pc",)),
    "unipc karras": Named("UniPCMultistepScheduler", _KARRAS),
    "deis": Named("DEISMultistepScheduler"),
    "ddim": Named("DDIMScheduler", _UNCLIPPED),
    "ddim trailing": Named("DDIMScheduler", _UNCLIPPED | _TRAILING),
    "ddpm": Named("DDPMScheduler", _UNCLIPPED),
    "pndm": Named("PNDMScheduler", {"skip_prk_steps": True}, ("plms",)),
    "lcm": Named("LCMScheduler"),
    "tcd": Named("TCDScheduler"),
}
"""Names as in the tools around Stable Diffusion; spelling is forgiving, see `check_scheduler`."""


def _key(name: str) -> str:
    """The name without what people write differently: `DPM++ 2M Karras`, `dpmpp_2m_karras`."""
    return re.sub(r"[\s_-]+", "", name.lower()).replace("pp", "++")


_KNOWN = {_key(spelt): name for name, one in NAMES.items() for spelt in (name, *one.others)}


def check_scheduler(name: str) -> str:
    """The name as it stands in `NAMES`; neither torch nor diffusers is needed.

    Raises:
        SettingsError: There is no scheduler of that name.
    """
    key = _key(text("scheduler", name, "give the name of a scheduler, such as euler"))
    if key in _KNOWN:
        return _KNOWN[key]
    near = get_close_matches(key, _KNOWN, n=1, cutoff=0.6)
    hint = f"did you mean {_KNOWN[near[0]]!r}?" if near else f"known are {', '.join(NAMES)}"
    raise SettingsError(f"there is no scheduler {name!r}; {hint}")


_TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr", "timestep_spacing", "steps_offset", "set_alpha_to_one",
)  # fmt: skip
"""What a base was trained with; other settings, such as Karras sigmas, are those of its own scheduler alone."""


def check_noise(kind: str, config: Mapping[str, Any], name: str) -> None:
    """Refuse a named scheduler where the base was trained with noise of a different kind, as EDM bases are.

    Args:
        kind: Class of the base's own scheduler.
        config: Its configuration.
        name: What is asked for.

    Raises:
        SettingsError: The base has no betas that the named scheduler could go by.
    """
    if "EDM" in kind or "FlowMatch" in kind or not ({"beta_schedule", "trained_betas"} & config.keys()):
        raise SettingsError(
            f"the base was trained with the noise of {kind}, which the scheduler {name!r} does not support; leave "
            "the scheduler out"
        )


def scheduler_for(own: Any, name: str | None) -> Any:  # noqa: ANN401 - any diffusers scheduler
    """A fresh scheduler.

    Args:
        own: The base's, whose noise schedule and prediction type stay.
        name: What is asked for, which means the same on every base; None is the base's own.

    Raises:
        SettingsError: There is no scheduler of that name, or it does not fit the base's noise.
    """
    if name is None:
        return type(own).from_config(own.config)
    import diffusers

    named = NAMES[check_scheduler(name)]
    check_noise(type(own).__name__, own.config, name)
    # as in diffusers, what the base leaves open is the named scheduler's default
    stated = own.config.keys() - set(own.config.get("_use_default_values", ()))
    kept = {key: own.config[key] for key in _TRAINED if key in stated}
    return getattr(diffusers, named.kind).from_config(kept, **named.settings)
