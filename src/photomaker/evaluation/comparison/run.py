"""`photomaker benchmark`: rows of every method, then tables and plots."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photomaker.config import plain
from photomaker.errors import OutputError, SettingsError
from photomaker.evaluation import plots, report
from photomaker.evaluation.comparison import drawings, pages, table
from photomaker.evaluation.comparison.people import People
from photomaker.evaluation.comparison.rows import FOLDER, MAIN, VERSION, Store, clean
from photomaker.evaluation.comparison.settings import ComparisonSettings, Entry
from photomaker.evaluation.comparison.table import Rows
from photomaker.evaluation.comparison.work import REAL, Job, Tools, Worker, arguments, prompts_of
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.workshop import Bar, Progress
from photomaker.methods.base import Need
from photomaker.processes import pool

UNSERVED = {
    Need.STRUCTURE: "a structure picture",
    Need.SCENE: "a scene picture",
    Need.REGION: "a region",
}
"""What a benchmark's request, which has a prompt alone, cannot give."""

FREE = (
    "methods", "out", "base", "processes", "threads", "samples", "tuned_people", "curve_people", "counts", "merges",
)  # fmt: skip
"""Settings that may differ between runs that share a folder: no row depends on them, or methods have them stamped."""

SHEET_PEOPLE, SHEET_PROMPTS = 3, 2


@dataclass(frozen=True)
class Result:
    """What a comparison wrote.

    Attributes:
        files: `methods.json`, `.md`, `.csv`, `.tex`, in this order.
        plots: PNG files beside them.
        document: The content of the JSON file.
    """

    files: tuple[Path, ...]
    plots: tuple[Path, ...]
    document: Mapping[str, Any]


def compare(
    settings: ComparisonSettings,
    command: str = "photomaker benchmark",
    progress: Progress | None = None,
    tools: Tools | None = None,
    shown_in: Sequence[Path] = (),
) -> Result:
    """Measure methods side by side and write `methods.json`, `.md`, `.csv`, `.tex` and plots into `settings.out`.

    Rows, identities and pictures are kept in `methods_rows` of that folder as they come: an interrupted run continues
    where it stopped, and a method can be added later by naming it beside those that are there.

    Args:
        settings: What to compare.
        command: The command line, for the results.
        progress: Called with the stage, the people done and the people there are; None shows bars.
        tools: How people, judge and methods are opened; None opens what the settings name.
        shown_in: Pages whose figures between the markers are rewritten, see `pages.write_figures`.

    Raises:
        SettingsError: A method is unknown, takes no such option or needs what the prompts do not give, or matplotlib
            is missing.
        PhotoError: Photos are missing.
        WeightsError: A model file is missing or altered.
        OutputError: The folder is of another version or of other settings, or cannot be written.
    """
    tools = tools or Tools()
    plots.check()
    for page in shown_in:
        pages.places(page)
    kinds = {entry.name: _kind(entry, settings, tools) for entry in settings.methods}
    prompts_of(settings)
    store = Store(settings.out / FOLDER)
    stamps = _stamps(settings, tools)
    _claim(settings, store, stamps)
    start = time.perf_counter()
    jobs = {REAL: _real_jobs(settings, store)}
    jobs |= {entry.name: _jobs(settings, entry, *kinds[entry.name]) for entry in settings.methods}
    with Crew(settings, tools, store, progress or Bar()) as crew:
        crew.look(len(tools.people(settings).names()))
        for name, wanted in jobs.items():
            crew.do(name, wanted)
    document = _document(settings, tools, store, jobs, {name: tuned for name, (tuned, _) in kinds.items()})
    document |= {"command": command, "seconds": time.perf_counter() - start, "stamps": stamps}
    return _write(settings, tools.people(settings), clean(document), store, jobs, shown_in)


class Crew:
    """Carries jobs out, in this process or in several. Used as a context manager, it gives back the threads."""

    def __init__(self, settings: ComparisonSettings, tools: Tools, store: Store, progress: Progress) -> None:
        """Prepare; nothing is opened yet."""
        self._settings, self._tools, self._store, self._progress = settings, tools, store, progress
        self._worker = Worker(settings, tools, store)

    def __enter__(self) -> Crew:
        """Set this process's threads, where it does the work itself."""
        import torch

        self._threads = torch.get_num_threads()
        if self._settings.processes == 1:
            torch.set_num_threads(self._settings.threads)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the threads back."""
        import torch

        torch.set_num_threads(self._threads)

    def look(self, people: int) -> None:
        """Measure everybody's photos, as far as that has not been done."""
        missing = [row for row in range(people) if not self._store.person(row).exists()]
        self._carry_out("photos", Worker.look, missing, people)

    def do(self, stage: str, jobs: Sequence[Job]) -> None:
        """Draw and measure what is missing of jobs."""
        missing = [job for job in jobs if job.missing(self._store)]
        self._carry_out(stage, Worker.do, missing, len(jobs))

    def _carry_out(
        self, stage: str, what: Callable[[Worker, Any], None], missing: Sequence[Any], total: int
    ) -> None:
        done = total - len(missing)
        self._progress(stage, done, total)
        for count, _ in enumerate(self._each(what, missing), start=done + 1):
            self._progress(stage, count, total)

    def _each(self, what: Callable[[Worker, Any], None], missing: Sequence[Any]) -> Iterator[None]:
        if self._settings.processes == 1:
            for one in missing:
                what(self._worker, one)
                yield
            return
        if not missing:
            return
        # A method has separate processes, so that their peak memory is of one method.
        try:
            with pool(self._settings.processes, _begin, self._settings, self._tools, self._store) as workers:
                for finished in as_completed([workers.submit(_carry, what, one) for one in missing]):
                    yield finished.result()
        except BrokenProcessPool as error:
            raise OutputError(
                "a process of the benchmark was killed, most likely because memory ran out; give fewer "
                "--processes and start again: finished rows are kept"
            ) from error


_PROCESS: dict[str, Worker] = {}
"""The worker of this process, where it is one of a pool's: a pool calls functions, not methods."""


def _begin(settings: ComparisonSettings, tools: Tools, store: Store) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    _PROCESS["worker"] = Worker(settings, tools, store)


def _carry(what: Callable[[Worker, Any], None], one: Any) -> None:  # noqa: ANN401 - a row or a job
    what(_PROCESS["worker"], one)


def _kind(entry: Entry, settings: ComparisonSettings, tools: Tools) -> tuple[bool, bool]:
    """Whether a method is tuned for each person, and whether it has a merge step; refused where it cannot be served."""
    kind = tools.kind(entry)
    unserved = [said for need, said in UNSERVED.items() if need in kind.needs]
    if unserved:
        raise SettingsError(
            f"the method {entry.name} needs {unserved[0]} with every prompt, and the benchmark gives "
            "prompts alone; leave it out"
        )
    if tools.kind is Tools.kind:
        arguments(entry, settings)
    return Need.TUNING in kind.needs, kind.delays


def _stamps(settings: ComparisonSettings, tools: Tools) -> dict[str, Any]:
    """What must be the same for runs that share a folder: of all, and of each method."""
    said = {name: value for name, value in plain(settings).items() if name not in FREE}
    said["photos"] = None if settings.photos is None else settings.photos.name
    listed = [prompt.template for prompt in prompts_of(settings)]
    said["prompt_list"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
    of_all = {
        "version": VERSION,
        **{name: value for name, value in said.items() if name != "judge"},
        "judge": tools.judge_fingerprint(settings),
        "world": tools.people(settings).fingerprint(),
    }
    each = {
        entry.name: {"version": VERSION, **plain(entry), "adapter": None, **tools.models(entry, settings)}
        for entry in settings.methods
    }
    return {"run": of_all, "methods": each}


def _claim(settings: ComparisonSettings, store: Store, stamps: Mapping[str, Any]) -> None:
    remedy = f"choose another --out, or delete {store.root} to begin again"
    store.claim("run.json", stamps["run"], remedy)
    report.write(store.root / ".gitignore", "*\n")
    for entry in settings.methods:
        place = f"rows/{entry.name}"
        remedy = f"choose another --out or name, or delete {store.root / place} to measure it again"
        store.claim(f"{place}/method.json", stamps["methods"][entry.name], remedy)


def _real_jobs(settings: ComparisonSettings, store: Store) -> list[Job]:
    del store
    prompts = tuple(range(len(prompts_of(settings))))
    return [
        Job(REAL, MAIN, person, settings.references, None, prompts, settings.seeds)
        for person in range(settings.people)
    ]


def _jobs(settings: ComparisonSettings, entry: Entry, tuned: bool, delays: bool) -> list[Job]:
    """The main part, and the curves for methods that need no tuning."""
    listed = prompts_of(settings)
    everything = tuple(range(len(listed)))
    few = tuple(at for at in everything if listed[at].is_photo)[: settings.curve_prompts]
    people = range(settings.tuned_people if tuned else settings.people)
    jobs = [
        Job(entry.name, MAIN, person, settings.references, None, everything, settings.seeds)
        for person in people
    ]
    if tuned:
        return jobs
    points: list[tuple[str, int, float | None]] = [
        (f"photos-{count}", count, None) for count in settings.counts
    ]
    if delays:
        points += [(f"merge-{merge:g}", settings.references, merge) for merge in settings.merges]
    return jobs + [
        Job(entry.name, part, person, count, merge, few, 1)
        for part, count, merge in points
        for person in range(settings.curve_people)
    ]


def _rows(store: Store, jobs: Sequence[Job], part: str, features: bool = False) -> Rows:
    chosen = [job for job in jobs if job.part == part]
    return Rows(
        [store.read(job.method, part, job.person) for job in chosen],
        [store.features(job.method, job.person) for job in chosen] if features else (),
    )


def _document(
    settings: ComparisonSettings,
    tools: Tools,
    store: Store,
    jobs: Mapping[str, Sequence[Job]],
    tuned: Mapping[str, bool],
) -> dict[str, Any]:
    real = _rows(store, jobs[REAL], MAIN, features=True)
    methods: dict[str, Any] = {
        REAL: {"people": settings.people, "figures": _plain(table.figures(real, real, settings.samples))}
    }
    first = _rows(store, jobs[settings.methods[0].name], MAIN)
    for entry in settings.methods:
        rows = _rows(store, jobs[entry.name], MAIN, features=True)
        parts = {job.part: (job.references, job.merge) for job in jobs[entry.name]}
        photos = {float(count): part for part, (count, merge) in parts.items() if part.startswith("photos-")}
        merges = {float(merge): part for part, (_, merge) in parts.items() if merge is not None}
        methods[entry.name] = {
            "people": len(rows.people),
            "tuned": tuned[entry.name],
            "figures": _plain(
                table.figures(rows, real.first(len(rows.people)), settings.samples)
                | ({} if entry is settings.methods[0] else _beside(rows, first, settings.samples))
            ),
            "photos": table.curve(
                {at: _rows(store, jobs[entry.name], part) for at, part in photos.items()}, settings.samples
            ),
            "merges": table.curve(
                {at: _rows(store, jobs[entry.name], part) for at, part in merges.items()}, settings.samples
            ),
        }
    drawn = settings.photos is None
    return {
        "version": VERSION,
        "settings": _said(settings),
        "commit": commit(),
        "machine": report.machine(settings.processes, settings.threads),
        "versions": report.versions(),
        "judges": tools.judge(settings).columns(),
        "real": "real pictures of the people in the circumstances of the prompts: the ceiling, "
        "and the classifier's own accuracy"
        if drawn
        else "the people's own photos, each compared with the others: the ceiling",
        "methods": methods,
    }


def _beside(rows: Rows, first: Rows, samples: int) -> dict[str, Interval]:
    """Nothing where the first method has fewer people, being tuned for each."""
    return table.beside(rows, first, samples) if len(first.people) >= len(rows.people) else {}


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"value": one.value, "low": one.low, "high": one.high, "people": one.people}
        for name, one in figures.items()
    }


def _said(settings: ComparisonSettings) -> dict[str, Any]:
    """The settings for the results, with files and folders by their names alone."""
    said: dict[str, Any] = {name: value for name, value in plain(settings).items() if name != "out"}
    said["photos"] = None if settings.photos is None else settings.photos.name
    said["prompts_used"] = len(prompts_of(settings))
    said["base"] = None if settings.base is None else Path(settings.base).name
    said["judge"] = None
    said["methods"] = [
        {**one, "adapter": one["adapter"] and Path(one["adapter"]).name} for one in said["methods"]
    ]
    return said


def _write(
    settings: ComparisonSettings,
    people: People,
    document: dict[str, Any],
    store: Store,
    jobs: Mapping[str, Sequence[Job]],
    shown_in: Sequence[Path],
) -> Result:
    accurate = "prompt_accuracy" in document["methods"][REAL]["figures"]
    fidelity = "prompt_accuracy" if accurate else "clip_t"
    fronts = {
        entry.name: table.front(_rows(store, jobs[entry.name], MAIN), min(settings.samples, 500), fidelity)
        for entry in settings.methods
        if fidelity in document["methods"][entry.name]["figures"]
    }
    images = drawings.drawings(document, fronts, fidelity)
    images["pictures"] = _sheet(settings, people, store)
    names = {f"methods_{name}.png": data for name, data in images.items()}
    drawn = tuple(report.write(settings.out / name, data) for name, data in names.items())
    contents = {
        "json": report.as_json(document),
        "md": pages.markdown(document, list(names)),
        "csv": pages.as_csv(document),
        "tex": pages.latex(document),
    }
    files = tuple(report.write(settings.out / f"methods.{end}", text) for end, text in contents.items())
    for page in shown_in:
        pages.write_figures(page, document)
    return Result(files, drawn, document)


def _sheet(settings: ComparisonSettings, people: People, store: Store) -> bytes:
    """For a few people and prompts, one picture by each method, in the order of the table, real ones first."""
    names = [*([REAL] if settings.photos is None else []), *(entry.name for entry in settings.methods)]
    shown: dict[str, list[Image.Image]] = {}
    for person in range(min(SHEET_PEOPLE, settings.tuned_people, settings.people)):
        for number, prompt in enumerate(prompts_of(settings)[:SHEET_PROMPTS]):
            label = f"{person + 1}: {prompt.text(people.class_of(person), '')}"
            shown[label] = [_opened(store.picture(name, person, number * settings.seeds)) for name in names]
    return plots.sheet(list(shown.values()), heads=names, labels=list(shown))


def _opened(path: Path) -> Image.Image:
    """A picture; white where a method refused the photos and there is none."""
    if not path.exists():
        return Image.new("RGB", (1, 1), "white")
    with Image.open(path) as picture:
        return Image.fromarray(np.asarray(picture.convert("RGB")))


def commit() -> str | None:
    """The commit of the checkout that this package runs from, `+` behind it where files were changed."""
    where = Path(__file__).resolve().parent
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(where), *words], capture_output=True, text=True, check=True, timeout=20
            )
            for words in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--", str(where.parents[1])],
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0].stdout.strip() + ("+" if said[1].stdout.strip() else "")
