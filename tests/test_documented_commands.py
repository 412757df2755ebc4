"""What the documents tell people to type works, and what they point at is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch

from photomaker import weights

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
shipped = pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def photomaker_lines(document: str = "README.md") -> list[str]:
    joined = (body.replace("\\\n", " ").splitlines() for body in blocks(document, "bash"))
    return [line.strip() for one in joined for line in one if line.strip().startswith("photomaker ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder to type the commands in, with the examples and a tiny model in the place of SDXL."""
    from tests.tiny import in_hub_cache, tiny_adapter, tiny_pipeline

    desk = tmp_path_factory.mktemp("desk")
    (desk / "examples").symlink_to(ROOT / "examples")
    base, adapter = tiny_pipeline(desk), desk / "photomaker-v1.bin"
    torch.save(weights.read_sections(tiny_adapter(desk)), adapter)
    in_hub_cache(desk / "hub", "SG161222/RealVisXL_V4.0", *base.iterdir())
    in_hub_cache(desk / "hub", "TencentARC/PhotoMaker", adapter)
    return desk


def type_in(desk: Path, words: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(desk / "hub"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    return subprocess.run(
        words,
        cwd=desk,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


IN_ONE_PROCESS = """
import json, sys
from photomaker.apps.cli import main
for line, words in json.load(sys.stdin):
    sys.argv = ["photomaker", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line} ended with {end.code}")
"""
"""Commands one after another: each in a process of its own would import everything again."""


def run_in_order(desk: Path, lines: list[str]) -> None:
    asked = json.dumps([(line, command(line, desk)) for line in lines])
    result = type_in(desk, [sys.executable, "-c", IN_ONE_PROCESS], asked)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


def command(line: str, desk: Path) -> list[str]:
    """The words after `photomaker`."""
    line = line.replace("/models/sdxl", str(desk / "base")).replace(
        "/models/photomaker-v1.bin", str(desk / "photomaker-v1.bin")
    )
    line = line.replace("--steps 30", "--steps 2")
    return shlex.split(line)[1:]


def test_the_readme_shows_what_there_is_to_do():
    shown = " ".join(photomaker_lines())
    for name in ("generate", "identity make", "identity mix", "doctor", "people", "evaluate"):
        assert f"photomaker {name}" in shown


@pytest.mark.bundled
@shipped
def test_the_commands_of_the_readme_work_in_their_order(desk):
    run_in_order(desk, photomaker_lines())
    assert len(list((desk / "out").glob("*.png"))) >= 9


@pytest.mark.skipif(weights.SMALL.is_dir(), reason="the test before runs them among the others")
def test_the_commands_that_need_no_bundled_weights_work(desk):
    free = [line for line in photomaker_lines() if "--base" in line or "--help" in line or " people " in line]
    assert len(free) == 4
    run_in_order(desk, free)


@pytest.mark.bundled
@shipped
def test_the_four_lines_of_python_work(desk):
    (block,) = blocks("README.md", "python")
    assert len(block.strip().splitlines()) == 4
    result = type_in(desk, [sys.executable, "-c", block])
    assert result.returncode == 0, result.stderr
    assert (desk / "ada.png").is_file()


@pytest.mark.parametrize("document", PAGES)
def test_every_option_in_the_documents_exists(document):
    from typer.testing import CliRunner

    from photomaker.apps.cli import app

    for line in photomaker_lines(document):
        words = shlex.split(line, comments=True)
        name = words[1:3] if words[1] in ("identity", "dataset", "photos", "provenance") else words[1:2]
        shown = (
            CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "300"}, prog_name="photomaker").output
        )
        for option in (word for word in words if re.fullmatch(r"--?[a-z][\w-]*", word)):
            assert option in shown, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_and_scripts_in_the_documents_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)\b(?= *(?:#|`|$))", text, re.MULTILINE))
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets
    assert targets <= rules
    for path in re.findall(r"\b((?:scripts|src|examples|tests)/[\w/.-]*[\w/])", text):
        assert (ROOT / path).exists() or path.startswith("src/photomaker/assets/small"), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_the_documents_link_to_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        made_by_the_model = target.startswith("docs/images/") and not weights.SMALL.is_dir()
        assert target.startswith("https://") or made_by_the_model or (ROOT / target).exists(), target


def test_the_makefile_points_at_scripts_that_exist():
    for path in re.findall(r"scripts/[\w/]+\.py", (ROOT / "Makefile").read_text()):
        assert (ROOT / path).is_file(), path


HELP_OF_EACH = """
import contextlib, io, runpy, sys
sys.path.insert(0, "scripts")
for script in sys.argv[1:]:
    said, sys.argv = io.StringIO(), [script, "--help"]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if not end.code and "usage" in said.getvalue().lower():
            continue
    sys.exit(f"{script} --help said {said.getvalue()!r}")
"""


def test_scripts_say_what_they_take():
    scripts = [
        *sorted(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")),
        "scripts/train_small/run.py",
    ]
    result = type_in(ROOT, [sys.executable, "-c", HELP_OF_EACH, *scripts])
    assert result.returncode == 0, result.stderr


def test_nothing_asks_for_torchvision():
    constraints = (ROOT / "constraints.txt").read_text().lower()
    assert not re.search(r"^torchvision", constraints, re.MULTILINE)
    assert not any("torchvision" in line.lower() for line in requires("photomaker"))


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[^\w-]", line)[0].lower().replace("_", "-") for one in lists for line in one} - {
        "photomaker"
    }
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE))
    assert wanted <= pinned, wanted - pinned


@pytest.mark.bundled
@shipped
def test_the_manifest_is_true_and_within_the_bound():
    result = type_in(ROOT, [sys.executable, "scripts/pack_assets.py", "--check"])
    assert result.returncode == 0, result.stderr


@shipped
def test_the_methods_pages_say_what_was_measured():
    result = type_in(ROOT, [sys.executable, "scripts/method_pages.py", "--check"])
    assert result.returncode == 0, result.stderr
