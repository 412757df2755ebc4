"""`photomaker benchmark`: rows of every method, then tables and plots."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photomaker.config import plain
from photomaker.errors import SettingsError
from photomaker.evaluation.judges.networks import NetworkJudge, fingerprint, open_judge
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.people.references import FaceReferences
from photomaker.evaluation.plans.compare import columns, pages
from photomaker.evaluation.plans.compare import plots as drawn
from photomaker.evaluation.plans.compare.columns import Rows
from photomaker.evaluation.plans.compare.people import People, world_of
from photomaker.evaluation.plans.compare.pictures import BASE, REAL, MethodPictures, PersonPhotos
from photomaker.evaluation.plans.compare.settings import ComparisonSettings, prompts_of
from photomaker.evaluation.plans.evaluate.columns import WEIGHTS
from photomaker.evaluation.plans.evaluate.mixing import PROMPTS, SEEDS, pairs_of_a_class
from photomaker.evaluation.report import files, plots, tables
from photomaker.evaluation.report.files import Result
from photomaker.evaluation.running.methods import Entry, arguments, everything_read
from photomaker.evaluation.running.runner import Progress, Runner
from photomaker.evaluation.running.store import MAIN, VERSION, Store, clean
from photomaker.evaluation.running.worker import Prepare, Tools
from photomaker.methods.base import Method, Need

NAME, FOLDER = "methods", "methods_rows"

UNSERVED = {
    Need.STRUCTURE: "a structure picture",
    Need.SCENE: "a scene picture",
    Need.REGION: "a region",
}
"""What a benchmark's request, which has a prompt alone, cannot give."""

FREE = (
    "methods", "out", "base", "processes", "threads", "samples", "tuned_people", "curve_people", "counts", "merges",
    "pairs",
)  # fmt: skip
"""Settings that may differ between runs that share a folder: no row depends on them, or methods have them stamped."""

SHEET_PEOPLE, SHEET_PROMPTS = 3, 2


def judge_of(settings: ComparisonSettings) -> NetworkJudge:
    """Open the judge that the settings describe."""
    return open_judge(settings.judge)


def mark_of(settings: ComparisonSettings) -> str:
    """The fingerprint of that judge, without opening it."""
    return fingerprint(settings.judge)


def references_of(settings: ComparisonSettings) -> Prepare:
    """What prepares photos for every method alike."""
    return FaceReferences(settings.judge.detector.open("detector"))


TOOLS = Tools(
    world=world_of, judge=judge_of, references=references_of, models=everything_read, judge_mark=mark_of
)
"""How people, judge and methods of a comparison are opened."""


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
    tools = tools or TOOLS
    plots.check()
    for page in shown_in:
        pages.places(page)
    kinds = {entry.name: _checked(entry, settings, tools) for entry in settings.methods}
    prompts_of(settings)
    store, people = Store(settings.out / FOLDER), People(settings, tools.world(settings))
    stamps = _stamps(settings, tools, people)
    by = next((name for name, kind in kinds.items() if kind.delays and not _tuned(kind)), "")
    _claim(settings, store, stamps, by)
    start = time.perf_counter()
    plan = {REAL: _real_pictures(settings)}
    if by:
        plan[BASE] = [replace(one, method=BASE, by=by, merge=1.0) for one in plan[REAL]]
    plan |= {entry.name: _pictures(settings, people, entry, kinds[entry.name]) for entry in settings.methods}
    with Runner(settings, tools, store, progress) as runner:
        runner.run("photos", [PersonPhotos(row) for row in range(len(people.names()))], apart=True)
        for name, wanted in plan.items():
            runner.run(name, wanted, apart=True)
    document = _document(settings, store, plan, {name: _tuned(kind) for name, kind in kinds.items()})
    document |= {"judges": tools.judge(settings).columns(), "stamps": stamps}
    document |= {"seconds": time.perf_counter() - start}
    document |= files.heading(command, settings.processes, settings.threads)
    result = _publish(settings, people, clean(document), store, plan)
    for page in shown_in:
        pages.write_figures(page, result.document)
    return result


def _checked(entry: Entry, settings: ComparisonSettings, tools: Tools) -> type[Method]:
    """The class of a method; refused where the benchmark cannot serve it."""
    kind = tools.kind(entry)
    unserved = [said for need, said in UNSERVED.items() if need in kind.needs]
    if unserved:
        raise SettingsError(
            f"the method {entry.name} needs {unserved[0]} with every prompt, and the benchmark gives "
            "prompts alone; leave it out"
        )
    if tools.kind is TOOLS.kind:
        arguments(entry, settings)
    return kind


def _tuned(kind: type[Method]) -> bool:
    return Need.TUNING in kind.needs


def _stamps(settings: ComparisonSettings, tools: Tools, people: People) -> dict[str, Any]:
    """What must be the same for runs that share a folder: of all, and of each method."""
    said = {name: value for name, value in plain(settings).items() if name not in FREE}
    said["photos"] = None if settings.photos is None else settings.photos.name
    listed = [prompt.template for prompt in prompts_of(settings)]
    said["prompt_list"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
    of_all = {
        "version": VERSION,
        **{name: value for name, value in said.items() if name != "judge"},
        "judge": tools.judged_by(settings),
        "world": people.world.fingerprint(),
    }
    each = {
        entry.name: {"version": VERSION, **plain(entry), "adapter": None, **tools.models(entry, settings)}
        for entry in settings.methods
    }
    return {"run": of_all, "methods": each}


def _claim(settings: ComparisonSettings, store: Store, stamps: Mapping[str, Any], by: str) -> None:
    remedy = f"choose another --out, or delete {store.root} to begin again"
    store.claim("run.json", stamps["run"], remedy)
    files.write(store.root / ".gitignore", "*\n")
    each = dict(stamps["methods"])
    if by:
        each[BASE] = {**each[by], "by": by}
    for name, stamp in each.items():
        place = f"rows/{name}"
        remedy = f"choose another --out or name, or delete {store.root / place} to measure it again"
        store.claim(f"{place}/method.json", stamp, remedy)


def _real_pictures(settings: ComparisonSettings) -> list[MethodPictures]:
    prompts = tuple(range(len(prompts_of(settings))))
    return [
        MethodPictures(REAL, MAIN, person, settings.references, None, prompts, settings.seeds)
        for person in range(settings.people)
    ]


def _pictures(
    settings: ComparisonSettings, people: People, entry: Entry, kind: type[Method]
) -> list[MethodPictures]:
    """The main part; for methods that need no tuning the curves, and mixed pairs where they mix."""
    main = [replace(one, method=entry.name) for one in _real_pictures(settings)]
    if _tuned(kind):
        return main[: settings.tuned_people]
    some, photos = main[: settings.curve_people], _photo_prompts(settings)
    few = [replace(one, prompts=photos[: settings.curve_prompts], seeds=1) for one in some]
    found = [
        replace(one, part=f"photos-{count}", references=count) for count in settings.counts for one in few
    ]
    if kind.delays:
        found += [
            replace(one, part=f"strength-{merge:g}", merge=merge, seeds=1)
            for merge in settings.merges
            for one in some
        ]
    return main + found + (_mixed(settings, people, main) if kind.mixes else [])


def _photo_prompts(settings: ComparisonSettings) -> tuple[int, ...]:
    return tuple(at for at, prompt in enumerate(prompts_of(settings)) if prompt.is_photo)


def _mixed(
    settings: ComparisonSettings, people: People, main: Sequence[MethodPictures]
) -> list[MethodPictures]:
    pairs = pairs_of_a_class([people.class_of(one.person) for one in main], settings.pairs)
    prompts = _photo_prompts(settings)[:PROMPTS]
    return [
        replace(
            main[first], part=f"mixed-{share:g}", prompts=prompts, seeds=SEEDS, second=second, share=share
        )
        for share in WEIGHTS
        for first, second in pairs
    ]


def _rows(store: Store, plan: Sequence[MethodPictures], part: str, features: bool = False) -> Rows:
    chosen = [one for one in plan if one.part == part]
    return Rows(
        [store.rows(one.method, part, one.person) for one in chosen],
        [store.features(one.method, one.person) for one in chosen] if features else (),
    )


def _points(store: Store, wanted: Sequence[MethodPictures], prefix: str) -> dict[float, Rows]:
    """The rows of each point of a curve, by where it stands: the number at the end of its part's name."""
    parts = dict.fromkeys(one.part for one in wanted if one.part.startswith(prefix))
    return {float(part.removeprefix(prefix)): _rows(store, wanted, part) for part in parts}


def _document(
    settings: ComparisonSettings,
    store: Store,
    plan: Mapping[str, Sequence[MethodPictures]],
    tuned: Mapping[str, bool],
) -> dict[str, Any]:
    real, samples = _rows(store, plan[REAL], MAIN, features=True), settings.samples
    methods: dict[str, Any] = {
        REAL: {"people": settings.people, "figures": tables.plain(columns.figures(real, real, samples))}
    }
    if BASE in plan:
        drawn = _rows(store, plan[BASE], MAIN, features=True)
        figures = tables.plain(columns.figures(drawn, real, samples))
        methods[BASE] = {"people": settings.people, "figures": figures}
    first = _rows(store, plan[settings.methods[0].name], MAIN)
    for entry in settings.methods:
        wanted = plan[entry.name]
        rows = _rows(store, wanted, MAIN, features=True)
        found = columns.figures(rows, real.first(len(rows.people)), samples)
        if entry is not settings.methods[0]:
            found |= _beside(rows, first, samples)
        mixed = _points(store, wanted, "mixed-")
        found |= columns.mixing(mixed, samples) if mixed else {}
        methods[entry.name] = {
            "people": len(rows.people),
            "tuned": tuned[entry.name],
            "figures": tables.plain(found),
            "photos": columns.curve(_points(store, wanted, "photos-"), samples),
            "merges": columns.curve(_points(store, wanted, "strength-"), samples),
        }
    likeness = columns.common_likeness(one.get("merges", ()) for one in methods.values())
    for entry in settings.methods:
        points = _points(store, plan[entry.name], "strength-")
        if points and likeness is not None:
            found = columns.editability(points, likeness, samples)
            methods[entry.name]["figures"] |= tables.plain(found)
    return {
        "version": VERSION,
        "settings": _said(settings),
        "commit": files.commit(),
        "common_likeness": likeness,
        "real": "real pictures of the people in the circumstances of the prompts: the ceiling, "
        "and the classifier's own accuracy"
        if settings.photos is None
        else "the people's own photos, each compared with the others: the ceiling",
        "methods": methods,
    }


def _beside(rows: Rows, first: Rows, samples: int) -> dict[str, Interval]:
    """Nothing where the first method has fewer people, being tuned for each."""
    return columns.beside(rows, first, samples) if len(first.people) >= len(rows.people) else {}


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


def _publish(
    settings: ComparisonSettings,
    people: People,
    document: dict[str, Any],
    store: Store,
    plan: Mapping[str, Sequence[MethodPictures]],
) -> Result:
    methods = document["methods"]
    fidelity = "prompt_accuracy" if "prompt_accuracy" in methods[REAL]["figures"] else "clip_t"
    fronts = {
        entry.name: columns.front(_rows(store, plan[entry.name], MAIN), min(settings.samples, 500), fidelity)
        for entry in settings.methods
        if fidelity in methods[entry.name]["figures"]
    }
    images = drawn.drawings(document, fronts, fidelity)
    images["pictures"] = _sheet(settings, people, store, BASE in plan)
    named = {f"{NAME}_{name}.png": data for name, data in images.items()}
    texts = {
        "md": pages.markdown(document, list(named)),
        "csv": pages.as_csv(document),
        "tex": pages.latex(document),
    }
    return files.publish(settings.out / NAME, document, texts, named)


def _sheet(settings: ComparisonSettings, people: People, store: Store, based: bool) -> bytes:
    """For a few people and prompts, one picture by each row of the table, in its order."""
    names = [*([REAL] if settings.photos is None else []), *([BASE] if based else [])]
    names += [entry.name for entry in settings.methods]
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
