"""The presets of `--speed`, and the techniques that they consist of.

A preset is a plan against the 20 steps, or however many, that are asked for. Which tricks are in it was chosen by
`photomaker speed` on validation people, see benchmarks/speed.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from photomaker.checks import shown, text
from photomaker.errors import SettingsError
from photomaker.types import NO_SHORTCUTS, Sampling, Shortcuts

EXACT, FAST, TURBO, AUTO = "exact", "fast", "turbo", "auto"
SPEEDS = (EXACT, FAST, TURBO, AUTO)
"""What may be asked for; behind `turbo:` may stand one of `STUDENTS`, and behind `=` its file."""


@dataclass(frozen=True)
class Speed:
    """How fast pictures should be drawn.

    Attributes:
        preset: `exact`, `fast`, `turbo`, or `auto` for the fastest that is measured to lose nearly nothing.
        student: Which few-step weights draw in `turbo`, of `STUDENTS`; None leaves that open.
        weights: Their file, or hub id with the file's name; None is where their authors published them.

    Raises:
        SettingsError: There is no such preset or student, or weights are named without a student.
    """

    preset: str = EXACT
    student: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        if self.preset not in SPEEDS:
            near = get_close_matches(self.preset, SPEEDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(SPEEDS)}"
            raise SettingsError(f"speed is {shown(self.preset)}; {hint}")
        if self.student is not None and self.preset != TURBO:
            raise SettingsError(
                f"speed is {self.preset}:{self.student}; only turbo draws by few-step weights"
            )
        if self.student is not None and self.student not in STUDENTS:
            raise SettingsError(
                f"there are no few-step weights {shown(self.student)}; choose {', '.join(STUDENTS)}"
            )
        if self.weights is not None and (self.student is None or not self.weights):
            raise SettingsError(
                "write turbo:NAME=FILE, such as turbo:lightning=/models/lightning.safetensors"
            )

    def __str__(self) -> str:
        """As it is written in an order."""
        named = "" if self.student is None else f":{self.student}"
        return f"{self.preset}{named}" + ("" if self.weights is None else f"={self.weights}")

    @classmethod
    def of(cls, given: Speed | str) -> Speed:
        """What a word means: `fast`, `turbo`, `turbo:lcm`, `turbo:lcm=FILE`.

        Raises:
            SettingsError: It means nothing.
        """
        if isinstance(given, Speed):
            return given
        preset, colon, rest = text("speed", given, f"choose {', '.join(SPEEDS)}").strip().partition(":")
        student, equals, weights = rest.partition("=")
        return cls(preset.lower(), student.lower() if colon else None, weights if equals else None)


@dataclass(frozen=True)
class Way:
    """A way to draw with less work than every step takes.

    Attributes:
        steps: Share of the steps that are asked for.
        scheduler: Which solver makes up for the fewer steps; None is the one that is asked for.
        guidance_start: Share of the steps before guidance begins.
        guidance_stop: Share of the steps after which guidance ends.
        shortcuts: What the UNet leaves out.
    """

    steps: float = 1.0
    scheduler: str | None = None
    guidance_start: float = 0.0
    guidance_stop: float = 1.0
    shortcuts: Shortcuts = NO_SHORTCUTS

    def applied(self, sampling: Sampling) -> Sampling:
        """The sampling that draws this way; scheduler and guidance that were asked for stay, as do their steps."""
        guided = (sampling.guidance_start, sampling.guidance_stop) != (0.0, 1.0)
        solver = self.scheduler if sampling.scheduler is None else None
        fewer = self.scheduler is None or solver is not None
        return replace(
            sampling,
            steps=max(1, round(self.steps * sampling.steps)) if fewer else sampling.steps,
            scheduler=solver or sampling.scheduler,
            guidance_start=sampling.guidance_start if guided else self.guidance_start,
            guidance_stop=sampling.guidance_stop if guided else self.guidance_stop,
            shortcuts=self.shortcuts,
        )


@dataclass(frozen=True)
class Student:
    """Weights that were distilled to draw in a few steps, as a LoRA for SDXL.

    Attributes:
        file: Hub id with the file's name.
        scheduler: The solver that it was trained for.
        steps: Steps that it was trained for.
        guidance: Its guidance scale; 1 is none, which halves the work once more.
    """

    file: str
    scheduler: str
    steps: int
    guidance: float = 1.0

    def applied(self, sampling: Sampling) -> Sampling:
        """The sampling that the student draws by; the merge step, a share of the steps, keeps its proportion."""
        return replace(
            sampling,
            steps=self.steps,
            scheduler=self.scheduler,
            guidance=self.guidance,
            guidance_start=0.0,
            guidance_stop=1.0,
        )


STUDENTS: Mapping[str, Student] = {
    "lightning": Student("ByteDance/SDXL-Lightning/sdxl_lightning_8step_lora.safetensors", "euler trailing", 8),
    "lightning-4": Student("ByteDance/SDXL-Lightning/sdxl_lightning_4step_lora.safetensors", "euler trailing", 4),
    "hyper": Student("ByteDance/Hyper-SD/Hyper-SDXL-8steps-lora.safetensors", "ddim trailing", 8),
    "hyper-4": Student("ByteDance/Hyper-SD/Hyper-SDXL-4steps-lora.safetensors", "ddim trailing", 4),
    "dmd2": Student("tianweiy/DMD2/dmd2_sdxl_4step_lora_fp16.safetensors", "lcm", 4),
    "lcm": Student("latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors", "lcm", 6),
}  # fmt: skip
"""Published few-step weights for SDXL, with the solver, steps and guidance that their authors state.

Source: arXiv 2402.13929 (Lightning), 2404.13686 (Hyper-SD), 2405.14867 (DMD2), 2311.05556 (LCM-LoRA).
"""
STUDENT = "lightning"
"""What draws where none is named."""

TRICKS: Mapping[str, Way] = {
    "own 10": Way(0.5),
    "euler 10": Way(0.5, "euler"),
    "dpm++ 2m 10": Way(0.5, "dpm++ 2m"),
    "dpm++ 2m sde 10": Way(0.5, "dpm++ 2m sde"),
    "unipc 10": Way(0.5, "unipc"),
    "guidance to 0.5": Way(guidance_stop=0.5),
    "guidance from 0.3": Way(guidance_start=0.3),
    "guidance from 0.2 to 0.7": Way(guidance_start=0.2, guidance_stop=0.7),
    "words to 0.5": Way(shortcuts=Shortcuts(words_after=0.5)),
    "deep every 2": Way(shortcuts=Shortcuts(2)),
    "deep every 3": Way(shortcuts=Shortcuts(3)),
    "deep every 2, outer 1": Way(shortcuts=Shortcuts(2, outer=1)),
    "deep every 2 from 0.5": Way(shortcuts=Shortcuts(2, deep_after=0.5)),
}
"""Every trick by itself."""
_DEEP = Shortcuts(2)
COMBINATIONS: Mapping[str, Way] = {
    "T-GATE at 0.5": Way(guidance_stop=0.5, shortcuts=Shortcuts(words_after=0.5)),
    "T-GATE at 0.5, deep every 2": Way(guidance_stop=0.5, shortcuts=Shortcuts(2, words_after=0.5)),
    "own 10, guidance from 0.3": Way(0.5, guidance_start=0.3),
    "own 4, guidance from 0.3": Way(0.2, guidance_start=0.3),
    "dpm++ 2m sde 10, guidance from 0.3": Way(0.5, "dpm++ 2m sde", guidance_start=0.3),
    "dpm++ 2m sde 4, guidance from 0.3": Way(0.2, "dpm++ 2m sde", guidance_start=0.3),
    "dpm++ 2m sde 5": Way(0.25, "dpm++ 2m sde"),
    "unipc 5": Way(0.25, "unipc"),
    "guidance from 0.3, deep every 2": Way(guidance_start=0.3, shortcuts=_DEEP),
    "guidance from 0.3, deep every 2, words to 0.5": Way(
        guidance_start=0.3, shortcuts=Shortcuts(2, words_after=0.5)
    ),
    "guidance from 0.3, deep every 3": Way(guidance_start=0.3, shortcuts=Shortcuts(3)),
    "own 14, guidance from 0.3, deep every 2": Way(0.7, guidance_start=0.3, shortcuts=_DEEP),
    "own 6, guidance from 0.3, deep every 2": Way(0.3, guidance_start=0.3, shortcuts=_DEEP),
    "dpm++ 2m sde 6, guidance from 0.3, deep every 2": Way(
        0.3, "dpm++ 2m sde", guidance_start=0.3, shortcuts=_DEEP
    ),
}
"""Tricks together."""
PRESETS: Mapping[str, Way] = {
    EXACT: Way(),
    FAST: Way(0.8, guidance_start=0.3, shortcuts=_DEEP),
    TURBO: Way(0.25, "dpm++ 2m sde", guidance_start=0.3, shortcuts=_DEEP),
}
"""Presets without other weights; `turbo` is the bundled model's alone, which was tuned on what few steps draw."""
WAYS: Mapping[str, Way] = {**PRESETS, **TRICKS, **COMBINATIONS}
"""All that is measured, by name."""
