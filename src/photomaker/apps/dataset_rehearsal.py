"""`photomaker dataset rehearse`: the whole builder on synthetic people, where the truth is known."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker.apps import dataset, terminal
from photomaker.errors import SettingsError
from photomaker.outside import read_object
from photomaker.processes import serve_parent

if TYPE_CHECKING:
    import numpy as np

    from photomaker.dataset.contamination import Cell
    from photomaker.dataset.ground_truth import Accuracy
    from photomaker.dataset.settings import BuildSettings

VIEWS = 55
"""Photos of each person for the groups; a few may have no detected face."""
_SMALLEST, _SHORT, _UNIT = 0.22, 0.8, 100
"""Sides of the smallest face and photo, as shares of a planted photo's side; photos in each unit of work."""
_LIST = "list.csv"


@dataclass(frozen=True)
class Rehearsal:
    """The size of a rehearsal.

    Attributes:
        people: Planted people.
        photos: Files of each.
        size: Height of the planted photos in pixels.
        groups: People to measure the rules of verification on; 0 for none, otherwise 3 or more.
        workers: Processes.
        served: Whether the photos come from a loopback server that serves many of them with faults, instead of from
            folders.
        port: Port of that server. It is part of the URLs, so an interrupted rehearsal must continue with the same one.
        measured: An earlier `rehearsal.json` whose figures for the rules are reused; they do not depend on the planted
            photos.

    Raises:
        SettingsError: A value is out of range.
    """

    people: int = 40
    photos: int = 10
    size: int = 384
    groups: int = 40
    workers: int = 1
    served: bool = False
    port: int = 8799
    measured: Path | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.groups < 0 or self.groups in (1, 2):
            raise SettingsError(f"groups is {self.groups}; give 3 people or more, or 0 to skip this")
        if self.workers < 1:
            raise SettingsError(f"workers is {self.workers}; give 1 or more")


def run(out: Path, plan: Rehearsal) -> None:
    """Plant, serve if asked, build and compare; writes OUT/world, OUT/build, OUT/rehearsal.json, OUT/rehearsal.md.

    Results of an earlier run are not planted or built again.

    Raises:
        PhotoMakerError: A size is out of range, the folder holds something else, it cannot be written, or the port
            is in use.
    """
    dataset.check_extra()
    from photomaker.dataset.contamination import measure
    from photomaker.dataset.ground_truth import compare_build
    from photomaker.synthetic.planted import PHOTOS, PlantedPlan, write_planted, write_urls
    from photomaker.synthetic.served import serve

    cells = [] if plan.measured is None else _recalled(plan.measured, plan.groups)
    planted = PlantedPlan(plan.people, plan.photos, plan.size, served=plan.served)
    with terminal.waiting("planting"):
        world = write_planted(out / "world", planted, plan.workers)
    settings = build_settings(out, world, plan)
    if plan.served:
        write_urls(world, plan.port, out / _LIST)
        with serve(world / PHOTOS, plan.port):
            dataset.build_from(settings)
    else:
        dataset.build_from(settings)
    accuracy = compare_build(world, settings.out, settings.detect.smallest)
    if plan.groups and not cells:
        with terminal.waiting("verification"):
            cells = measure(embeddings(plan.groups, plan.workers))
    _write(out, plan, accuracy, cells)


def _recalled(path: Path, people: int) -> list[Cell]:
    """The figures for the rules from an earlier rehearsal with the same number of people.

    Raises:
        SettingsError: It has no such measurement.
    """
    from photomaker.dataset.contamination import Cell
    from photomaker.dataset.ground_truth import Count
    from photomaker.dataset.verify import Verify

    try:
        told = read_object(path.read_bytes())
        counted = told["verification_people"]
        rows = [(row, row["rule"].partition(", k = ")) for row in told["verification"]]
        cells = [
            Cell(
                Verify(rule, float(k)), row["kind"], row["size"], row["share"],
                Count("photo of another person", row["right"], row["told"], row["true"]),
            )
            for row, (rule, _, k) in rows
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is not the result of a rehearsal; give its rehearsal.json") from error
    if counted != people:
        raise SettingsError(
            f"{path} measured the rules on {counted} people, not {people}; give as many with --groups, or leave it out"
        )
    return cells


def build_settings(out: Path, world: Path, plan: Rehearsal) -> BuildSettings:
    """The build of a planted world with the bundled plug-ins."""
    from photomaker.dataset.caption import Caption
    from photomaker.dataset.detect import Detect
    from photomaker.dataset.download import Fetch
    from photomaker.dataset.executors import Run
    from photomaker.dataset.gather import Gather
    from photomaker.dataset.listing import Input
    from photomaker.dataset.mark import Mark
    from photomaker.dataset.segment import Segment
    from photomaker.dataset.settings import BuildSettings
    from photomaker.faces.plugins import PlugIn
    from photomaker.synthetic.planted import PHOTOS
    from photomaker.synthetic.served import LARGE

    own, rules = PlugIn(), PlugIn("rules")
    return BuildSettings(
        input=Input(urls=out / _LIST) if plan.served else Input(folders=world / PHOTOS),
        out=out / "build",
        unit=_UNIT,
        gather=Gather(
            short_side=max(16, round(_SHORT * plan.size)),
            most_bytes=LARGE - 1,
            fetch=Fetch(per_host=16, timeout=2.0, connect_timeout=2.0, retries=2, backoff=0.1),
        ),
        detect=Detect(own, own, smallest=_SMALLEST * plan.size),
        segment=Segment(own),
        caption=Caption(own, rules, own),
        mark=Mark(rules),
        run=Run(workers=plan.workers),
    )


def embeddings(people: int, workers: int) -> dict[str, np.ndarray]:
    """Face embeddings of `VIEWS` photos each of people used neither for training nor for choosing settings."""
    from photomaker.synthetic import TEST

    # person numbers far from the planted people
    indices = range(TEST + 900_000, TEST + 900_000 + people)
    if workers == 1:
        return {str(index): _embed(index) for index in indices}
    with multiprocessing.get_context("spawn").Pool(workers, serve_parent) as pool:
        return dict(zip(map(str, indices), pool.map(_embed, indices, chunksize=1), strict=True))


def _embed(index: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    from photomaker.faces import BundledFaces, BundledRecogniser
    from photomaker.synthetic import person, render, view

    someone = person(index)
    detector, recogniser = BundledFaces.open(), BundledRecogniser.open()
    found = []
    for seed in range(VIEWS):
        image = Image.fromarray(render(someone, view(someone, seed, style="photo")).image)
        found += [recogniser.embed(image, face) for face in detector.detect(image)[:1]]
    return np.stack(found)


def _write(out: Path, plan: Rehearsal, accuracy: Accuracy, cells: list[Cell]) -> None:
    from photomaker.dataset.contamination import markdown, named
    from photomaker.dataset.runner import tallies
    from photomaker.dataset.shards import write_atomically

    rows: list[dict[str, Any]] = [
        {
            "rule": named(cell.rule), "kind": cell.kind, "size": cell.size, "share": cell.share,
            "precision": cell.count.precision, "recall": cell.count.recall, "right": cell.count.right,
            "told": cell.count.told, "true": cell.count.true,
        }
        for cell in cells
    ]  # fmt: skip
    stages = tallies(out / "build")
    told = {
        "people": plan.people, "photos": plan.photos, "size": plan.size, "served": plan.served,
        "stages": [{"name": one.name, "in": one.rows, "kept": one.kept, "drops": dict(one.drops)} for one in stages],
        "accuracy": accuracy.plain(),
        "verification_people": plan.groups, "verification_of_an_earlier_run": plan.measured is not None,
        "verification": rows,
    }  # fmt: skip
    drops = [
        f"| {one.name} | {one.rows} | {one.kept} | {', '.join(f'{n} {why}' for why, n in one.drops.items())} |"
        for one in stages
    ]
    given = "served on loopback, " if plan.served else ""
    text = "\n".join(
        [
            "# The dataset builder on synthetic people",
            "",
            f"{plan.people} people, {plan.photos} files each, {plan.size} pixels, {given}bundled plug-ins; "
            "made by "
            f"`photomaker dataset rehearse --people {plan.people} --photos {plan.photos} --size {plan.size} "
            f"--groups {plan.groups}{' --served' if plan.served else ''}`.",
            "",
            "| stage | in | kept | dropped |",
            "|---|---|---|---|",
            *drops,
            "",
            accuracy.markdown(),
        ]
    )
    if cells:
        text += "\n## Rules of verification\n\n"
        text += f"{plan.groups} people with {VIEWS} photos each, 200 groups of each sort"
        text += f"{'; measured in an earlier run' if plan.measured else ''}.\n\n"
        text += markdown(cells)
    write_atomically(out / "rehearsal.json", (json.dumps(told, indent=1) + "\n").encode())
    write_atomically(out / "rehearsal.md", text.encode())
    terminal.say(accuracy.markdown())
    terminal.say(str(out / "rehearsal.md"))
