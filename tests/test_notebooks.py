"""The notebooks run from top to bottom on the bundled model, and are kept without what they put out."""

import ast
import json
from pathlib import Path

import pytest
from PIL import Image

from photomaker import weights

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
shipped = pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")


def cells(path, kind):
    told = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in told["cells"] if cell["cell_type"] == kind]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The folder of the notebooks, in which they may write, beside the people of the examples."""
    for name in ("ada", "ben"):
        (tmp_path / name).symlink_to(EXAMPLES / name)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(code, names):
    """A cell as a notebook runs it; its last expression is what is shown."""
    body = ast.parse(code).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(last, "cell", "eval"), names)


def test_both_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["article", "first_steps"]


@pytest.mark.bundled
@pytest.mark.slow
@shipped
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, desk, capsys):
    names = {"__name__": "__main__"}
    shown = [run(code, names) for code in cells(path, "code")]
    pictures = [one for one in shown if isinstance(one, Image.Image)]
    assert len(pictures) >= 3
    assert all(min(one.size) >= 90 and one.getextrema() != ((255, 255),) * 3 for one in pictures)
    out = capsys.readouterr().out
    assert "likeness" in out
    if path.stem == "first_steps":
        assert len(list((desk / "out").glob("*.png"))) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_stripped(path):
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["nbformat"] == 4
    code = [cell for cell in told["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in told["cells"]}) == len(told["cells"])
    assert path.stat().st_size < 20_000


def test_the_article_names_two_lines_to_change_for_sdxl():
    first = cells(EXAMPLES / "notebooks" / "article.ipynb", "code")[0].splitlines()
    assert [line.split("  # ")[0] for line in first[:2]] == ["BASE = None", "ADAPTER = None"]
    assert all("/" in line.split("  # ")[1] for line in first[:2])
