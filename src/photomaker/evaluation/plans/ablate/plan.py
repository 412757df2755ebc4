"""`photomaker ablate`: short trainings that differ in one choice of the method each, scored side by side.

How an adapter is trained is the `Trainer`'s; this plan names what is trained, scores it and writes the tables.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from photomaker.errors import PhotoMakerError
from photomaker.evaluation.plans.ablate import page
from photomaker.evaluation.plans.ablate.figures import found, measure, read_scores, write_scores
from photomaker.evaluation.plans.ablate.settings import (
    NAME,
    PHOTOS,
    REFERENCE,
    REFERENCES,
    SHIPPED,
    SPLIT,
    AblationSettings,
    Job,
)
from photomaker.evaluation.plans.cast import Cast, measured_cast
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.plans.grid import Scores
from photomaker.evaluation.report import files, plots
from photomaker.evaluation.report.files import CACHE, Result
from photomaker.evaluation.running.methods import fingerprint
from photomaker.evaluation.running.runner import Progress, Runner
from photomaker.evaluation.running.store import Store
from photomaker.evaluation.running.worker import Tools, Worker

OUTPUT = "output.txt"
"""What a process said, in the folder of the job."""

INTERVAL = (
    "every interval is a 95 % percentile bootstrap interval over the {people} people, with the trained networks, the "
    "prompts and the noise held: a person's scores are averaged over the {seeds} training seeds first. It says how far "
    "the figure may move with other people, not with other training seeds; the figures of each seed stand beside it. "
    "Differences are of the same people, prompts and noise"
)


class Trainer(Protocol):
    """Trains the variants; it reaches other processes."""

    def check(self, settings: AblationSettings, root: Path) -> None:
        """Tell missing data before anything is written."""

    def prepare(self, settings: AblationSettings, root: Path) -> None:
        """Have ready, in the folder `root`, all that several processes want at once."""

    def recipe(self, settings: AblationSettings, root: Path, job: Job) -> Sequence[object]:
        """Plain data that changes with whatever a training depends on."""

    def train(self, settings: AblationSettings, root: Path, job: Job, folder: Path) -> Path | None:
        """Train a variant in its folder, or go on; its adapter, None where it was asked to stop before its end."""

    def steps_done(self, folder: Path) -> int:
        """How far the training in a folder is."""


class Kept:
    """Where a run keeps what it has done; names change with whatever a result depends on."""

    def __init__(self, settings: AblationSettings, trainer: Trainer, tools: Tools) -> None:
        """Name nothing yet."""
        self.settings, self.trainer, self.tools = settings, trainer, tools
        self.root = settings.out / CACHE / NAME

    @cached_property
    def models(self) -> dict[str, str]:
        """Hashes of the base, and of the adapter whose image tower all start with."""
        plain = EvaluationSettings()
        return dict(self.tools.models(plain.entry, plain))

    @cached_property
    def _judges(self) -> tuple[str, str]:
        return self.tools.judged_by(self.settings), self.tools.world(self.settings).fingerprint()

    def training(self, job: Job) -> Path:
        """Folder of a training; of the shipped adapter, just that of its scores."""
        if job.variant == SHIPPED:
            return self.root / f"{SHIPPED}-{self.models['adapter'][:8]}"
        mark = fingerprint(*self.trainer.recipe(self.settings, self.root, job), self.models)
        return self.root / f"{job.variant}-{job.seed}-{mark}"

    def pictures(self, job: Job) -> Path:
        """Folder of a variant's pictures and what the judge said of them."""
        s = self.settings
        mark = fingerprint(s.dtype, self._judges, self.models["base"], self.training(job).name)
        return self.training(job) / f"pictures-{mark}"

    def scores(self, job: Job) -> Path:
        """File of a variant's scores."""
        judged = asdict(self.settings.judged(None)) | {"out": None, "samples": None}
        mark = fingerprint(judged, self.settings.counts_of(job.variant), self._judges)
        return self.training(job) / f"scores-{mark}.json"

    def real(self) -> Cast:
        """The people with their real photos; measured once, before several processes want them."""
        return measured_cast(self.settings.judged(None), self.tools, self.root / "real")


Carry = Callable[[Kept, Job], bool]


@dataclass(frozen=True)
class Variant:
    """One job as a task of the runner.

    Attributes:
        job: Which.
        kept: Where it is kept.
        carry: Does it; False where it was asked to stop before its end.
    """

    job: Job
    kept: Kept
    carry: Carry

    def done(self, store: Store) -> bool:
        """See `running.runner.Task`."""
        del store
        return self.kept.scores(self.job).is_file()

    def carry_out(self, worker: Worker, store: Store) -> None:
        """See `running.runner.Task`: of several processes, each says what it says in a file of its own."""
        del worker, store
        if self.kept.settings.processes == 1:
            self._carry()
            return
        import torch

        torch.set_flush_denormal(True)  # denormal numbers in optimiser states are many times slower on a CPU
        output = self.kept.training(self.job) / OUTPUT
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                self._carry()
            except PhotoMakerError:
                raise
            except Exception as error:
                traceback.print_exc(file=log)
                raise PhotoMakerError(
                    f"{self.job.called} failed; {output} tells why, and the same command goes on"
                ) from error

    def _carry(self) -> None:
        if not self.carry(self.kept, self.job):
            raise KeyboardInterrupt

    def progress(self) -> int:
        """How much of `Job.size` is done: steps by the training's log, people by what was kept of them."""
        if self.done(Store(self.kept.root)):
            return self.job.size(self.kept.settings)
        people = len(list(self.kept.pictures(self.job).glob("*.npz")))
        return self.kept.trainer.steps_done(self.kept.training(self.job)) + people


def train_and_score(kept: Kept, job: Job) -> bool:
    """Train a variant and score it, as far as that is not done; whether it came to its end.

    Raises:
        PhotoMakerError: Data or weights are missing or do not fit.
    """
    settings, adapter = kept.settings, None
    if job.variant != SHIPPED:
        adapter = kept.trainer.train(settings, kept.root, job, kept.training(job))
        if adapter is None:
            return False
    counts = settings.counts_of(job.variant)
    scores = measure(settings.judged(adapter), kept.real(), kept.tools, counts, kept.pictures(job))
    write_scores(kept.scores(job), scores)
    return True


def run(
    settings: AblationSettings,
    trainer: Trainer,
    tools: Tools | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
    carry: Carry = train_and_score,
) -> Result:
    """Train every variant, score it, and write `ablation.json`, `ablation.md` and a plot of each axis.

    What was done stays in `<out>/.cache/ablation`, so that an interrupted run goes on where it stopped. After a change
    of the method's code, remove that folder.

    Args:
        settings: What to run.
        trainer: What trains.
        tools: How people, judge and method are opened; None opens the bundled ones.
        say: Told which job begins, where one process does them all.
        progress: Told how far several processes are; None shows a bar.
        carry: What does one job; a module-level function where there are several processes.

    Raises:
        SettingsError: The data is missing or too small, or matplotlib is missing.
        WeightsError: A bundled file is missing or altered.
        OutputError: The results cannot be written there, or a process was killed.
        PhotoMakerError: A training ended for another reason, which is reported.
    """
    plots.check()
    start = time.perf_counter()
    kept = Kept(settings, trainer, tools or Tools())
    trainer.check(settings, kept.root)
    Store(kept.root).begin()
    trainer.prepare(settings, kept.root)
    jobs = [Job(SHIPPED), *(Job(name, seed) for seed in range(settings.seeds) for name in settings.variants)]
    _carry_out([Variant(job, kept, carry) for job in jobs], kept, say, progress)
    document = _document(settings, kept, time.perf_counter() - start)
    names = {axis: f"{NAME}_{axis}.png" for axis in settings.axes}
    images = {names[axis]: data for axis, data in page.drawings(document).items()}
    return files.publish(settings.out / NAME, document, {"md": page.markdown(document, names)}, images)


def _carry_out(
    variants: Sequence[Variant], kept: Kept, say: Callable[[str], None], progress: Progress | None
) -> None:
    store = Store(kept.root)
    missing = [one for one in variants if not one.done(store)]
    if not missing:
        return
    kept.real()
    total = sum(one.job.size(kept.settings) for one in missing)
    if kept.settings.processes > 1:
        with Runner(kept.settings, kept.tools, store, progress) as runner:
            runner.run(
                "ablations",
                missing,
                lasting=True,
                gauge=lambda: (sum(one.progress() for one in missing), total),
            )
        return
    with Runner(kept.settings, kept.tools, store, lambda *_: None) as runner:
        for number, one in enumerate(missing, start=1):
            say(f"{number} of {len(missing)}: {one.job.called}")
            runner.run(one.job.called, [one])


def _document(settings: AblationSettings, kept: Kept, seconds: float) -> dict[str, Any]:
    """Everything that was found, as JSON data."""

    def scores(variant: str) -> list[dict[int, Scores]]:
        return [read_scores(kept.scores(Job(variant, seed))) for seed in range(settings.seeds)]

    reference = scores(REFERENCE)

    def beside(variant: str, count: int, other: int | None) -> dict[str, Any]:
        """A variant with so many photos, beside the reference with another number of them."""
        against = None if other is None else [one[other] for one in reference]
        return found([one[count] for one in scores(variant)], against, settings.samples)

    variants = {
        name: beside(name, REFERENCES, None if name == REFERENCE else REFERENCES)
        for name in settings.variants
    }
    shipped = read_scores(kept.scores(Job(SHIPPED)))[REFERENCES]
    counts = settings.counts if PHOTOS in settings.axes else ()
    photos = {
        str(count): beside(REFERENCE, count, None if count == counts[0] else counts[0]) for count in counts
    }
    return {
        "schema": files.SCHEMA,
        "name": NAME,
        **files.heading(command(settings), settings.processes, _threads(settings)),
        "settings": {name: value for name, value in asdict(settings).items() if name not in ("data", "out")},
        "split": SPLIT,
        "references": REFERENCES,
        "interval": INTERVAL.format(people=settings.people, seeds=settings.seeds),
        "models": kept.models,
        "axes": list(settings.axes),
        "variants": variants,
        "photos": photos,
        "shipped": found([shipped], None, settings.samples),
        "seconds": seconds,
    }


def _threads(settings: AblationSettings) -> int:
    import torch

    return settings.threads or torch.get_num_threads()


def command(settings: AblationSettings) -> str:
    """The command line that makes these figures."""
    return files.command("ablate", settings, AblationSettings(), ("data", "out", "processes"))
