"""The command line `photomaker`. Heavy libraries are imported when a command runs, so that `--help` answers at once."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from photomaker.apps.commands.generate import generate
from photomaker.apps.commands.identity import (
    identity_decrypt,
    identity_encrypt,
    identity_make,
    identity_mix,
    identity_show,
    photos_check,
)
from photomaker.apps.commands.measuring import ablate, bench, bench_train, benchmark, evaluate, speed
from photomaker.apps.commands.pictures import demo, people, provenance_show, styles
from photomaker.apps.commands.serving import serve, ui
from photomaker.apps.commands.training import (
    convert,
    dataset_build,
    dataset_rehearse,
    dataset_report,
    dataset_stages,
    train,
)
from photomaker.errors import PhotoMakerError

MISTAKE, INTERRUPTED = 2, 130
RARELY = (100_000, 50, 50)
"""Thresholds of Python's garbage collector."""


class Door(TyperGroup):
    """Turns mistakes of the user's into one line and status 2, and Ctrl-C into status 130."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer keeps its classes to itself
        """Run the command."""
        from photomaker.processes import interruptible

        try:
            with interruptible():
                return super().invoke(ctx)
        except PhotoMakerError as error:
            typer.echo(f"photomaker: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt as error:
            typer.echo("photomaker: interrupted; whole files stay, nothing half-written is left", err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=Door,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A few photos of a person in, new pictures of that person out.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"photomaker {version('photomaker')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A few photos of a person in, new pictures of that person out."""


def doctor() -> None:
    """Show what is installed, what will be used, and what is missing."""
    from photomaker.apps.doctor import run

    raise typer.Exit(0 if run() else 1)


for command in (
    generate, styles, serve, ui, demo, doctor, convert, evaluate, speed, benchmark, train, ablate, bench, bench_train,
    people,
):  # fmt: skip
    app.command()(command)


def _add_group(name: str, about: str, commands: Mapping[str, Callable[..., None]]) -> None:
    group = typer.Typer(no_args_is_help=True, help=about)
    for called, command in commands.items():
        group.command(called)(command)
    app.add_typer(group, name=name)


_add_group(
    "identity",
    "Make, show, mix and encrypt identities: people as small files.",
    {
        "make": identity_make,
        "show": identity_show,
        "mix": identity_mix,
        "encrypt": identity_encrypt,
        "decrypt": identity_decrypt,
    },
)
_add_group("photos", "Check a person's photos before drawing.", {"check": photos_check})
_add_group("provenance", "Read and check how a picture says it was made.", {"show": provenance_show})
_add_group(
    "dataset",
    "Build datasets to train with: people, photos, masks, captions.",
    {
        "build": dataset_build,
        "report": dataset_report,
        "stages": dataset_stages,
        "rehearse": dataset_rehearse,
    },
)


def main() -> None:
    """Run the command line."""
    # imports make millions of objects that stay: looking through them again and again took a seventh of the start
    gc.set_threshold(*RARELY)
    # Said at import, to nobody's use: that image processors run without torchvision.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    app(prog_name="photomaker")


if __name__ == "__main__":
    main()
