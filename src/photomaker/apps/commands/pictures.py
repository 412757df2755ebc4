"""The commands that show what there is to draw and how a picture was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photomaker.apps.options import (
    Device,
    Dtype,
    NoProvenance,
    Precision,
    Split,
    Steps,
)


def styles(
    more: Annotated[Path | None, typer.Option("--styles", help="YAML file with your own styles.")] = None,
) -> None:
    """List the style presets."""
    from photomaker.apps.styles import run

    run(more)


def demo(
    out: Annotated[Path, typer.Option(help="Gallery to write; an existing one is replaced.")] = Path(
        "out/gallery.png"
    ),
    steps: Steps = 20,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    no_provenance: NoProvenance = False,
) -> None:
    """Draw a gallery of two bundled people from their photos."""
    from photomaker.apps.demo import run
    from photomaker.types import Sampling

    run(out, Sampling(steps=steps, seed=seed), device, dtype.value, not no_provenance)


def people(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the contact sheet.")] = Path(
        "out/people"
    ),
    count: Annotated[int, typer.Option(min=1, help="Number of people.")] = 8,
    views: Annotated[int, typer.Option(min=1, help="Pictures of each person.")] = 4,
    split: Annotated[Split, typer.Option(help="Which split the people come from.")] = Split.TEST,
    start: Annotated[int, typer.Option(min=0, help="Number of the first person in the split.")] = 0,
    style: Annotated[
        str | None, typer.Option(help="photo, sketch, painting, pixel art, watercolour. (default: any)")
    ] = None,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Width of a picture in pixels.")] = 128,
    sheet_only: Annotated[bool, typer.Option("--sheet-only", help="Write only the contact sheet.")] = False,
) -> None:
    """Draw synthetic people, as the bundled model was trained on."""
    from photomaker.apps.people import Cast, run

    run(out, Cast(split.value, start, count, views, style, size), sheet_only)


def provenance_show(
    file: Annotated[Path, typer.Argument(help="A picture.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Annotated[Path | None, typer.Option(help="PEM file of certificates that you trust.")] = None,
    original: Annotated[
        Path | None,
        typer.Option(help="Signed picture to compare with, if the copy has lost its manifest."),
    ] = None,
) -> None:
    """Show how a picture was made, according to its metadata, and whether it was changed since.

    Status 0: unchanged, signed by a known certificate; 4: unchanged, signed by an unknown one; 1: altered;
    3: no manifest; 2: it cannot be read.
    """
    from photomaker.apps.provenance import show

    raise typer.Exit(show(file, json, trust, original))
