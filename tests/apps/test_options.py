"""Groups of options stand in a command as if each was written there, and arrive as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from photomaker.apps import cli
from photomaker.apps.options import Model, Replicated, Without, composed, names


@dataclass(frozen=True)
class Colours:
    fore: Annotated[str, typer.Option(help="Colour of the text.")] = "black"
    back: Annotated[str, typer.Option(help="Colour behind it.")] = "white"


def said(command, *words: str) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


@composed
def painted(size: Annotated[int, typer.Option()] = 1, *, colours: Colours, loud: bool = False) -> None:
    typer.echo(f"{size} {colours} {loud}")


@composed
def grey(*, colours: Annotated[Colours, Without(("back",))]) -> None:
    typer.echo(colours)


def test_a_group_arrives_as_one_value():
    assert said(painted, "--fore", "red", "--size", "3") == "3 Colours(fore='red', back='white') False\n"


def test_its_options_stand_where_the_group_stands():
    shown = said(painted, "--help")
    places = [shown.index(name) for name in ("--size", "--fore", "--back", "--loud")]
    assert places == sorted(places)


def test_an_option_that_is_left_out_is_not_taken_and_keeps_its_default():
    assert said(grey, "--fore", "red") == "Colours(fore='red', back='white')\n"
    assert "--back" not in said(grey, "--help")


@pytest.mark.parametrize("command", ["generate", "serve", "ui"])
def test_every_command_that_opens_a_model_takes_all_of_its_options(command):
    taken = {one.name for one in typer.main.get_command(cli.app).commands[command].params}
    assert names(Model, Replicated) <= taken


def test_a_model_is_given_as_plain_values():
    assert Model().settings() == {
        "base": None, "adapter": None, "device": "auto", "dtype": "auto", "faces": "auto", "memory": "auto",
        "face_models": None, "variant": None,
    }  # fmt: skip
