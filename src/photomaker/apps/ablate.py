"""`photomaker ablate`: the door to the ablations, and how their adapters are trained on the synthetic people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker.apps import terminal
from photomaker.apps.measuring import options, show
from photomaker.errors import SettingsError
from photomaker.evaluation.plans.ablate.plan import run
from photomaker.evaluation.plans.ablate.settings import SPLIT, AblationSettings, Job
from photomaker.evaluation.running.methods import fingerprint
from photomaker.weights import bundled

if TYPE_CHECKING:
    import numpy as np

    from photomaker.synthetic.dataset import WorldDataset
    from photomaker.training.running.loop import TrainSettings


@dataclass(frozen=True)
class SyntheticTrainer:
    """Trains on the synthetic people, all variants from the bundled base; a `Trainer` of the ablations."""

    def check(self, settings: AblationSettings, root: Path) -> None:
        """See `Trainer`.

        Raises:
            SettingsError: The data is missing, too small, or of people who are scored.
        """
        if settings.data is not None:
            self.people(settings, root)

    def prepare(self, settings: AblationSettings, root: Path) -> None:
        """See `Trainer`: people are drawn where none are given, and latents are computed."""
        from photomaker.synthetic.dataset import WorldPlan, write_world

        if settings.data is None:
            plan = WorldPlan(0, settings.train_people, settings.views)
            write_world(data_of(settings, root), plan, workers=settings.processes)
        self._latents(settings, root, self.people(settings, root))

    def recipe(self, settings: AblationSettings, root: Path, job: Job) -> Sequence[object]:
        """See `Trainer`."""
        from photomaker.training.ablation import VARIANTS

        trained = asdict(train_settings(settings, job.seed)) | {"new_lora": settings.new_lora}
        return asdict(VARIANTS[job.variant]), trained, _known_by(settings, root)

    def train(self, settings: AblationSettings, root: Path, job: Job, folder: Path) -> Path | None:
        """See `Trainer`.

        Raises:
            PhotoMakerError: Data or weights are missing or do not fit.
        """
        from photomaker.training.ablation import train_variant

        people = self.people(settings, root)
        return train_variant(
            job.variant,
            people,
            self._latents(settings, root, people),
            bundled("base"),
            bundled("adapter/photomaker.safetensors"),
            train_settings(settings, job.seed),
            folder,
            settings.new_lora,
        )

    def steps_done(self, folder: Path) -> int:
        """See `Trainer`: by the training's log."""
        log = folder / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        try:
            return int(max((json.loads(line)["step"] for line in lines), default=0))
        except ValueError:  # a line that is being written
            return 0

    def people(self, settings: AblationSettings, root: Path) -> WorldDataset:
        """The people trained on.

        Raises:
            SettingsError: They are missing, too few, or among those who are scored.
        """
        from photomaker.synthetic import VALIDATION
        from photomaker.synthetic.dataset import WorldDataset

        data = data_of(settings, root)
        people = WorldDataset.open(data, settings.train_people)
        if people.plan.start + people.plan.people > VALIDATION:
            raise SettingsError(
                f"the people in {data} start at number {people.plan.start} and reach the {SPLIT} people, who are "
                f"scored; draw others, from 0 on"
            )
        return people

    def _latents(self, settings: AblationSettings, root: Path, people: WorldDataset) -> np.ndarray:
        from photomaker.training.data.latents import cached_latents
        from photomaker.training.recipes.base import BaseParts

        folder = root / f"latents-{fingerprint(_known_by(settings, root))}"
        return cached_latents(BaseParts.load(bundled("base")).autoencoder, people, folder)


def data_of(settings: AblationSettings, root: Path) -> Path:
    """Folder of the people trained on."""
    return settings.data or root / f"people_{settings.train_people}x{settings.views}"


def _known_by(settings: AblationSettings, root: Path) -> tuple[str, int]:
    """What the people trained on are known by: they are drawn from their numbers."""
    plan = data_of(settings, root) / "plan.json"
    return plan.read_text(encoding="utf-8"), settings.train_people


def train_settings(settings: AblationSettings, seed: int) -> TrainSettings:
    """How a variant is trained."""
    from photomaker.training.running.loop import TrainSettings

    return TrainSettings(
        steps=settings.steps, batch_size=settings.batch_size, seed=seed, warmup=settings.steps // 10, ema_decay=0.99,
        precision=settings.precision, save_every=max(1, settings.steps // 3), log_every=10, keep=1,
    )  # fmt: skip


def open_door(given: Mapping[str, Any], tiny: bool) -> None:
    """Run what the command line asks for and print the page.

    Args:
        given: Options that were given, under the names of `AblationSettings`; lists as text with commas.
        tiny: Whether what is not given is that of the rehearsal.

    Raises:
        PhotoMakerError: See `plans.ablate.plan.run`, or an option is out of range.
    """
    start = AblationSettings.tiny() if tiny else AblationSettings()
    wanted = options(given, words=("axes",), numbers={"counts": (int, "numbers of photos", "1,2,4")})
    show(run(replace(start, **wanted), SyntheticTrainer(), say=terminal.note))
