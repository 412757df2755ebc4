"""The commands that build datasets, train and convert adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photomaker.apps.options import (
    Changes,
    Config,
)


def convert(
    source: Annotated[Path, typer.Argument(help="Adapter file, .bin or .safetensors.")],
    target: Annotated[Path, typer.Argument(help="File to write; the ending chooses the format.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Convert a PhotoMaker .bin to .safetensors or back, and check that every number is the same."""
    from photomaker.apps.convert import run

    run(source, target, overwrite)


def train(
    config: Config,
    changes: Changes = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again instead of continuing from the last checkpoint.")
    ] = False,
    export_only: Annotated[
        bool, typer.Option("--export-only", help="Export from the checkpoints, train nothing.")
    ] = False,
) -> None:
    """Train an adapter for an SDXL model, or continue a training that was stopped.

    In several processes: torchrun --nproc-per-node 8 --no-python photomaker train config.yaml
    """
    from photomaker.apps.train import run

    run(config, changes or (), fresh, export_only)


def dataset_build(
    config: Config,
    changes: Changes = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Stages to run, separated by commas, or FROM:TO, for example detect:segment. (default: all)"
        ),
    ] = None,
    fresh: Annotated[str | None, typer.Option(help="Do this stage and all later ones again.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Use the paper's thresholds.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the settings and show what would be done.")
    ] = False,
) -> None:
    """Build a dataset, or continue an interrupted build; writes shards, an index and a report."""
    from photomaker.apps.dataset import build

    build(config, changes or (), _names(stages), fresh, paper, dry_run)


def dataset_report(out: Annotated[Path, typer.Argument(help="Folder of a build.")]) -> None:
    """Write the report of a build again; the build may be unfinished."""
    from photomaker.apps.dataset import report

    report(out)


def dataset_stages(config: Config, changes: Changes = None) -> None:
    """Show the progress of each stage of a build."""
    from photomaker.apps.dataset import stages

    stages(config, changes or ())


def dataset_rehearse(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/rehearsal"),
    people: Annotated[int, typer.Option(help="People to plant.")] = 40,
    photos: Annotated[int, typer.Option(help="Files of each person.")] = 10,
    size: Annotated[int, typer.Option(help="Height of the planted photos in pixels, 72 to 1024.")] = 384,
    groups: Annotated[
        int, typer.Option(help="People to measure the verification rules on; 0 skips this.")
    ] = 40,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    served: Annotated[
        bool,
        typer.Option("--served", help="Download the photos from a local server that fails in many ways."),
    ] = False,
    port: Annotated[int, typer.Option(help="Port of that server.")] = 8799,
    measured: Annotated[
        Path | None,
        typer.Option(help="Earlier rehearsal.json whose figures for the rules are reused."),
    ] = None,
) -> None:
    """Build a dataset of synthetic people with planted mistakes, and measure how well the builder finds them."""
    from photomaker.apps.dataset_rehearsal import Rehearsal, run

    run(out, Rehearsal(people, photos, size, groups, workers, served, port, measured))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
