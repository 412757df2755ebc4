"""`photomaker ablate`: short trainings, each with one choice of the method changed, measured side by side."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from photomaker.apps import terminal
from photomaker.errors import PhotoMakerError, SettingsError
from photomaker.evaluation import ablation, ablation_report, plots, report
from photomaker.evaluation.ablation_report import AXES, PHOTOS, REFERENCE
from photomaker.evaluation.benchmark import CACHE
from photomaker.evaluation.prompts import PROMPTS
from photomaker.evaluation.settings import BenchmarkSettings
from photomaker.evaluation.workshop import Tools, prepare
from photomaker.processes import serve_parent
from photomaker.weights import bundled

if TYPE_CHECKING:
    from photomaker.synthetic.dataset import WorldDataset
    from photomaker.training.loop import TrainSettings

NAME = "ablation"
SPLIT = "validation"
REFERENCES = 4
"""Photos of a person on all axes except `photos`."""

SHIPPED = "shipped"
"""The bundled adapter, which is scored, too."""

OUTPUT, REFUSAL = "output.txt", "refused.txt"
"""Output of the processes, and the error of one that failed, in the folder of the job."""

STOPPED, REFUSED = 3, 2
"""Exit statuses of a training that was asked to stop, and of one with a user error."""

INTERVAL = (
    "every interval is a 95 % percentile bootstrap interval over the {people} people, with the trained networks, the "
    "prompts and the noise held: a person's scores are averaged over the {seeds} training seeds first. It says how far "
    "the figure may move with other people, not with other training seeds; the figures of each seed stand beside it. "
    "Differences are of the same people, prompts and noise"
)


@dataclass(frozen=True)
class AblationSettings:
    """One run of the ablations.

    Attributes:
        data: Folder of synthetic people that `write_world` drew, none of them of the split that is scored; None draws
            `train_people` people into the cache.
        out: Folder of the result files; trainings and pictures are kept in `.cache` inside it.
        axes: Which of `AXES` to run.
        seeds: Trainings of each variant, with the seeds 0, 1, ...
        steps: Optimiser steps of a training.
        batch_size: Pictures a step.
        precision: Autocast precision of the trainings, bf16 or fp32.
        new_lora: Whether the LoRA starts anew instead of with the bundled adapter's; that takes many more steps.
        train_people: People trained on, the first ones of the data; 4 of them are kept for the log's validation.
        views: Pictures of each, where they are drawn.
        people: People scored, 2 or more.
        prompts: How many prompts of the benchmark, from the first on; one picture each.
        sampling_steps: Denoising steps.
        guidance: Guidance scale.
        merge: Share of text-only steps, 0..1.
        counts: Numbers of photos on the axis of that name, rising.
        dtype: Precision of drawing, see `BenchmarkSettings`.
        processes: Trainings at a time, each on one thread.
        samples: Bootstrap resamples.

    Raises:
        SettingsError: A value is outside its range, or an axis is unknown.
    """

    data: Path | None = None
    out: Path = Path("benchmarks")
    axes: tuple[str, ...] = tuple(AXES)
    seeds: int = 3
    steps: int = 200
    batch_size: int = 16
    precision: Literal["bf16", "fp32"] = "bf16"
    new_lora: bool = False
    train_people: int = 800
    views: int = 10
    people: int = 24
    prompts: int = 6
    sampling_steps: int = 12
    guidance: float = 2.0
    merge: float = 0.1
    counts: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    dtype: str = "bf16"
    processes: int = 2
    samples: int = 2000

    def __post_init__(self) -> None:
        """Check every value."""
        limits = {
            "seeds": (1, 100), "steps": (1, 1_000_000), "batch_size": (1, 1024), "train_people": (2, 1_000_000),
            "views": (2, 1000), "people": (2, 10_000), "prompts": (1, len(PROMPTS)), "sampling_steps": (1, 1000),
            "processes": (1, 64), "samples": (1, 1_000_000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(f"{name} is {value}; give a whole number from {low} to {high}")
        if self.precision not in ("bf16", "fp32"):
            raise SettingsError(f"precision is {self.precision!r}; give bf16 or fp32")
        for axis in self.axes:
            if axis not in AXES:
                near = get_close_matches(axis, AXES, n=1)
                hint = f"did you mean {near[0]}?" if near else f"give some of {', '.join(AXES)}"
                raise SettingsError(f"there is no axis {axis!r}; {hint}")
        if not self.axes or len(set(self.axes)) < len(self.axes):
            raise SettingsError(
                f"axes are {', '.join(self.axes) or 'empty'}; give some of {', '.join(AXES)}, each once"
            )
        if not self.counts or min(self.counts) < 1 or list(self.counts) != sorted(set(self.counts)):
            shown = ", ".join(map(str, self.counts)) or "empty"
            raise SettingsError(f"counts are {shown}; give numbers of photos from 1 up, in ascending order")
        self.judged(None)  # has the rest checked

    @classmethod
    def tiny(cls) -> AblationSettings:
        """A trial run of seconds for each variant: everything runs, but the figures mean nothing."""
        return cls(
            seeds=1, steps=2, batch_size=2, train_people=8, views=4, people=2, prompts=1, sampling_steps=2,
            counts=(1, 2), processes=1, samples=20, precision="fp32", dtype="fp32",
        )  # fmt: skip

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that the axes need, the reference first."""
        named = [name for axis in self.axes for name in AXES[axis].labels or ()]
        return tuple(dict.fromkeys([REFERENCE, *named]))

    def counts_of(self, variant: str) -> tuple[int, ...]:
        """Numbers of photos that a variant draws from."""
        wanted = self.counts if variant == REFERENCE and PHOTOS in self.axes else ()
        return tuple(sorted({REFERENCES, *wanted}))

    def judged(self, adapter: Path | None) -> BenchmarkSettings:
        """How an adapter is scored; None is the bundled one."""
        return BenchmarkSettings(
            adapter=adapter, name=NAME, out=self.out, split=SPLIT, people=self.people, prompts=self.prompts,
            seeds=1, references=max(REFERENCES, *self.counts), gallery=self.people, steps=self.sampling_steps,
            guidance=self.guidance, merge=self.merge, parts=("main",), processes=1, dtype=self.dtype,
            samples=self.samples,
        )  # fmt: skip

    def trained(self, seed: int) -> TrainSettings:
        """How a variant is trained."""
        from photomaker.training.loop import TrainSettings

        return TrainSettings(
            steps=self.steps, batch_size=self.batch_size, seed=seed, warmup=self.steps // 10, ema_decay=0.99,
            precision=self.precision, save_every=max(1, self.steps // 3), log_every=10, keep=1,
        )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training with its scores, or the scores of the bundled adapter alone."""

    variant: str
    seed: int = 0

    @property
    def called(self) -> str:
        """For people."""
        return (
            "the shipped adapter"
            if self.variant == SHIPPED
            else f"{self.variant.replace('_', ' ')}, seed {self.seed}"
        )


class Kept:
    """Where a run keeps what it has done; names change with whatever a result depends on."""

    def __init__(self, settings: AblationSettings, tools: Tools) -> None:
        """Name nothing yet."""
        self.settings, self.tools = settings, tools
        self.root = settings.out / CACHE / NAME

    @cached_property
    def models(self) -> dict[str, str]:
        """Hashes of the base, and of the adapter whose image tower all start with."""
        return dict(self.tools.models(BenchmarkSettings()))

    @cached_property
    def _judges(self) -> tuple[str, str]:
        return self.tools.judge().fingerprint(), self.tools.world().fingerprint()

    @property
    def _people(self) -> tuple[str, int]:
        """What the people trained on are known by: they are drawn from their numbers."""
        return (self.data / "plan.json").read_text(encoding="utf-8"), self.settings.train_people

    @property
    def data(self) -> Path:
        """The people trained on."""
        s = self.settings
        return s.data or self.root / f"people_{s.train_people}x{s.views}"

    def training(self, job: Job) -> Path:
        """Folder of a training; of the shipped adapter, just that of its scores."""
        if job.variant == SHIPPED:
            return self.root / f"{SHIPPED}-{self.models['adapter'][:8]}"
        from photomaker.training.ablation import VARIANTS

        trained = asdict(self.settings.trained(job.seed)) | {"new_lora": self.settings.new_lora}
        mark = ablation.fingerprint(asdict(VARIANTS[job.variant]), trained, self._people, self.models)
        return self.root / f"{job.variant}-{job.seed}-{mark}"

    def pictures(self, job: Job) -> Path:
        """Folder of a variant's pictures and what the judge said of them."""
        s = self.settings
        mark = ablation.fingerprint(s.dtype, self._judges, self.models["base"], self.training(job).name)
        return self.training(job) / f"pictures-{mark}"

    def scores(self, job: Job) -> Path:
        """File of a variant's scores."""
        judged = asdict(self.settings.judged(None)) | {"out": None, "samples": None}
        mark = ablation.fingerprint(judged, self.settings.counts_of(job.variant), self._judges)
        return self.training(job) / f"scores-{mark}.json"

    @property
    def truth(self) -> Path:
        """Folder of what the judge said of real photos."""
        return self.root / "real"

    @property
    def latents(self) -> Path:
        """Folder of the training pictures' latents."""
        return self.root / f"latents-{ablation.fingerprint(self._people)}"


@dataclass(frozen=True)
class Result:
    """What a run wrote.

    Attributes:
        json: The figures for programs.
        markdown: The tables for people.
        plots: PNG files beside them.
        document: The content of the JSON file.
    """

    json: Path
    markdown: Path
    plots: tuple[Path, ...]
    document: Mapping[str, Any]


Carry = Callable[[AblationSettings, Job, Tools], bool]
Tell = Callable[[int, int], None]


def run(settings: AblationSettings, tools: Tools | None = None, carry: Carry | None = None) -> Result:
    """Train every variant, score it, and write `ablation.json`, `ablation.md` and a plot of each axis.

    What was done stays in `<out>/.cache/ablation`, so that an interrupted run goes on where it stopped. After a change
    of the method's code, remove that folder.

    Args:
        settings: What to run.
        tools: How people, judge and method are opened; None opens the bundled ones.
        carry: What does one job, `work` if None; a module-level function where there are several processes.

    Raises:
        SettingsError: The data is missing or too small, or matplotlib is missing.
        WeightsError: A bundled file is missing or altered.
        OutputError: The results cannot be written there.
        PhotoMakerError: A training ended for another reason, which is reported.
    """
    plots.check()
    start = time.perf_counter()
    tools = tools or Tools()
    kept = Kept(settings, tools)
    if settings.data is not None:
        _people(kept)  # missing data is reported before anything is written
    prepare(kept.root, keep=True)
    _prepare(settings, kept)
    jobs = [Job(SHIPPED), *(Job(name, seed) for seed in range(settings.seeds) for name in settings.variants)]
    missing = [job for job in jobs if not kept.scores(job).is_file()]
    if missing:
        ablation.Truth(settings.judged(None), tools, kept.truth)
    if settings.processes == 1:
        _one_after_another(missing, settings, tools, carry or work)
    elif missing:
        with terminal.progress("ablations", "steps and people") as tell:
            _side_by_side(missing, kept, carry or work, tell)
    document = _document(settings, kept, time.perf_counter() - start)
    return _write(settings, document)


def _prepare(settings: AblationSettings, kept: Kept) -> None:
    """Draw the people where none are given, and have all latents ready before several processes want them."""
    from photomaker.synthetic.dataset import WorldPlan, write_world

    if settings.data is None:
        plan = WorldPlan(0, settings.train_people, settings.views)
        write_world(kept.data, plan, workers=settings.processes)
    _latents(_people(kept), kept)


def _people(kept: Kept) -> WorldDataset:
    from photomaker.synthetic import VALIDATION
    from photomaker.synthetic.dataset import WorldDataset

    people = WorldDataset.open(kept.data, kept.settings.train_people)
    if people.plan.start + people.plan.people > VALIDATION:
        raise SettingsError(
            f"the people in {kept.data} start at number {people.plan.start} and reach the {SPLIT} people, who are "
            f"scored; draw others, from 0 on"
        )
    return people


def _latents(people: WorldDataset, kept: Kept) -> Any:  # noqa: ANN401 - numpy is not imported at module level
    from photomaker.training.base import BaseParts
    from photomaker.training.latents import cached_latents

    return cached_latents(BaseParts.load(bundled("base")).autoencoder, people, kept.latents)


def work(settings: AblationSettings, job: Job, tools: Tools) -> bool:
    """Train a variant and score it, as far as that is not done; whether it came to its end.

    Args:
        settings: What is run.
        job: Which variant.
        tools: How people, judge and method are opened.

    Raises:
        PhotoMakerError: Data or weights are missing or do not fit.
    """
    from photomaker.training.ablation import train_variant

    kept = Kept(settings, tools)
    adapter = None
    if job.variant != SHIPPED:
        people = _people(kept)
        latents = _latents(people, kept)
        start = bundled("adapter/photomaker.safetensors")
        adapter = train_variant(
            job.variant,
            people,
            latents,
            bundled("base"),
            start,
            settings.trained(job.seed),
            kept.training(job),
            settings.new_lora,
        )
        if adapter is None:
            return False
    truth = ablation.Truth(settings.judged(None), tools, kept.truth)
    found = ablation.measure(
        settings.judged(adapter), truth, tools, settings.counts_of(job.variant), kept.pictures(job)
    )
    ablation.write_scores(kept.scores(job), found)
    return True


def _one_after_another(jobs: Sequence[Job], settings: AblationSettings, tools: Tools, carry: Carry) -> None:
    for number, job in enumerate(jobs, start=1):
        terminal.note(f"{number} of {len(jobs)}: {job.called}")
        if not carry(settings, job, tools):
            raise KeyboardInterrupt


def _side_by_side(jobs: Sequence[Job], kept: Kept, carry: Carry, tell: Tell) -> None:
    """Share jobs out among processes, which load libraries once each; whatever ends this ends them too."""
    count = min(kept.settings.processes, len(jobs))
    shares = [jobs[number::count] for number in range(count)]
    total = sum(_size(job, kept.settings) for job in jobs)
    running: dict[BaseProcess, Sequence[Job]] = {}
    try:
        for share in shares:
            running[_started(share, kept, carry)] = share
        while running:
            time.sleep(0.5)
            tell(sum(_done(job, kept) for job in jobs), total)
            for process, share in list(running.items()):
                if process.exitcode is not None:
                    del running[process]
                    _check(share, process.exitcode, kept)
    finally:
        # a training writes a checkpoint when it is asked to end
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _size(job: Job, settings: AblationSettings) -> int:
    steps = 0 if job.variant == SHIPPED else settings.steps
    return steps + settings.people * len(settings.counts_of(job.variant))


def _done(job: Job, kept: Kept) -> int:
    """How much of a job is done: steps by its log, people by what was kept of them."""
    if kept.scores(job).is_file():
        return _size(job, kept.settings)
    log = kept.training(job) / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    try:
        steps = max((json.loads(line)["step"] for line in lines), default=0)
    except ValueError:  # a line that is being written
        steps = 0
    return int(steps) + len(list(kept.pictures(job).glob("*.npz")))


def _started(share: Sequence[Job], kept: Kept, carry: Carry) -> BaseProcess:
    folders = [kept.training(job) for job in share]
    process = multiprocessing.get_context("spawn").Process(
        target=_child, args=(kept.settings, share, folders, kept.tools, carry)
    )
    process.start()
    return process


def _child(
    settings: AblationSettings, share: Sequence[Job], folders: Sequence[Path], tools: Tools, carry: Carry
) -> None:
    """Do some jobs in a process of their own, which says nothing on the terminal and ends when its parent does."""
    import torch

    if multiprocessing.parent_process() is not None:
        serve_parent(ask_to_end=True)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal numbers in optimiser states are many times slower on a CPU
    for job, folder in zip(share, folders, strict=True):
        status = _done_alone(settings, job, folder, tools, carry)
        if status:
            sys.exit(status)


def _done_alone(settings: AblationSettings, job: Job, folder: Path, tools: Tools, carry: Carry) -> int:
    """Do a job with its output in its folder; returns the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / OUTPUT).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            return 0 if carry(settings, job, tools) else STOPPED
        except PhotoMakerError as error:
            (folder / REFUSAL).write_text(str(error), encoding="utf-8")
            return REFUSED
        except Exception:  # noqa: BLE001 - the parent says where it is told
            traceback.print_exc(file=log)
            return 1


def _check(share: Sequence[Job], status: int, kept: Kept) -> None:
    """Tell how a process ended, if it was not at the end of its jobs."""
    if not status:
        return
    job = next(job for job in share if not kept.scores(job).is_file())
    folder = kept.training(job)
    if status == REFUSED:
        raise PhotoMakerError((folder / REFUSAL).read_text(encoding="utf-8"))
    if status == STOPPED:
        raise KeyboardInterrupt
    raise PhotoMakerError(
        f"{job.called} ended with status {status}; {folder / OUTPUT} has the reason, and the same command continues"
    )


def _document(settings: AblationSettings, kept: Kept, seconds: float) -> dict[str, Any]:
    """Everything that was found, as JSON data."""

    def scores(variant: str) -> list[dict[int, ablation.Scores]]:
        return [ablation.read_scores(kept.scores(Job(variant, seed))) for seed in range(settings.seeds)]

    reference = scores(REFERENCE)

    def beside(variant: str, count: int, other: int | None) -> dict[str, Any]:
        """A variant with so many photos, beside the reference with another number of them."""
        against = None if other is None else [one[other] for one in reference]
        return ablation.found([one[count] for one in scores(variant)], against, settings.samples)

    found = {
        name: beside(name, REFERENCES, None if name == REFERENCE else REFERENCES)
        for name in settings.variants
    }
    shipped = ablation.read_scores(kept.scores(Job(SHIPPED)))[REFERENCES]
    counts = settings.counts if PHOTOS in settings.axes else ()
    photos = {
        str(count): beside(REFERENCE, count, None if count == counts[0] else counts[0]) for count in counts
    }
    said = {name: value for name, value in asdict(settings).items() if name not in ("data", "out")}
    return {
        "schema": report.SCHEMA,
        "name": NAME,
        "command": command(settings),
        "settings": said,
        "split": SPLIT,
        "references": REFERENCES,
        "interval": INTERVAL.format(people=settings.people, seeds=settings.seeds),
        "machine": report.machine(settings.processes, _threads(settings)),
        "versions": report.versions(),
        "models": kept.models,
        "axes": list(settings.axes),
        "variants": found,
        "photos": photos,
        "shipped": ablation.found([shipped], None, settings.samples),
        "seconds": seconds,
    }


def _threads(settings: AblationSettings) -> int:
    import torch

    return torch.get_num_threads() if settings.processes == 1 else 1


def command(settings: AblationSettings) -> str:
    """The command line that makes these figures: what differs from the defaults, without folders."""
    plain = AblationSettings()
    words = ["photomaker ablate"]
    for name, value in asdict(settings).items():
        if name not in ("data", "out", "processes") and value != getattr(plain, name):
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words)


def _write(settings: AblationSettings, document: Mapping[str, Any]) -> Result:
    names = {axis: f"{NAME}_{axis}.png" for axis in settings.axes}
    drawn = ablation_report.drawings(document)
    paths = tuple(report.write(settings.out / names[axis], data) for axis, data in drawn.items())
    return Result(
        report.write(settings.out / f"{NAME}.json", report.as_json(document)),
        report.write(settings.out / f"{NAME}.md", ablation_report.markdown(document, names)),
        paths,
        document,
    )


def open_door(given: Mapping[str, Any], tiny: bool) -> None:
    """Run what the command line asks for and print the page.

    Args:
        given: Options that were given, under the names of `AblationSettings`; lists as text with commas.
        tiny: Whether what is not given is that of the rehearsal.

    Raises:
        PhotoMakerError: See `run`, or an option is out of range.
    """
    start = AblationSettings.tiny() if tiny else AblationSettings()
    result = run(replace(start, **{name: _value(name, value) for name, value in given.items()}))
    terminal.say(result.markdown.read_text(encoding="utf-8"))
    for path in (result.json, result.markdown, *result.plots):
        terminal.say(str(path))


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 - as various as the settings
    if name not in ("axes", "counts"):
        return getattr(value, "value", value)
    items = [item.strip() for item in value.split(",") if item.strip()]
    if name == "axes":
        return tuple(items)
    try:
        return tuple(int(item) for item in items)
    except ValueError as error:
        raise SettingsError(
            f"counts is {value!r}; give numbers of photos separated by commas, such as 1,2,4"
        ) from error
