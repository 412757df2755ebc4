"""The command line with fake faces, a fake method, and a bundled model that is nonsense with a true manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.studio import fakes
from typer.testing import CliRunner

from photomaker import weights
from photomaker.apps.cli import app
from photomaker.studio import opening


@dataclass
class Shell:
    """Runs `photomaker`, and knows how often a diffusion model was loaded."""

    folder: Path
    bundle: Path
    loaded: list[str] = field(default_factory=list)

    def run(self, *words):
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="photomaker")

    def refused(self, *words):
        """The one line of an order that must be refused: status 2, nothing written, no model loaded."""
        before = self.files()
        result = self.run(*words)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
        assert result.exit_code == 2, result.output
        assert len(lines) == 1, lines
        assert lines[0].startswith("photomaker: ")
        assert "Traceback" not in result.output
        assert self.files() == before
        assert not self.loaded
        return lines[0]

    def files(self):
        return sorted(path for path in self.folder.rglob("*") if self.bundle not in path.parents)

    def generate(self, *more, photos=None, prompt="a photo of a woman img in the snow", out=None):
        given = [] if photos is None else [word for path in photos for word in ("--photos", path)]
        return ["generate", *given, "--prompt", prompt, "--out", out or self.folder / "out", *more]


@pytest.fixture
def shell(tmp_path, monkeypatch):
    shell = Shell(tmp_path, fakes.bundle(tmp_path / "bundle"))
    method = fakes.FakeMethod()

    def load(*_):
        shell.loaded.append("method")
        return method

    monkeypatch.setattr(weights, "SMALL", shell.bundle)
    monkeypatch.setattr(opening.Opened, "load", load)
    found = opening.Backends(fakes.FakeDetector(), fakes.FakeRecogniser())
    monkeypatch.setattr(
        opening, "open_backends", lambda wanted: opening.Backends() if wanted == "none" else found
    )
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    os.environ.pop("FORCE_COLOR", None)
    return shell


@pytest.fixture
def ada(tmp_path):
    """A folder with two good photos."""
    folder = tmp_path / "ada"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        fakes.save(folder / name)
    return folder
