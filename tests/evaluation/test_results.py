"""Result files that were written earlier are still read: their tables have the rows of the pages beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from photomaker.evaluation.plans.ablate import page as ablation
from photomaker.evaluation.plans.compare import pages as comparison
from photomaker.evaluation.plans.evaluate import page as evaluation

RESULTS = Path(__file__).parents[2] / "benchmarks"


def rows(page: str) -> list[tuple[str, int]]:
    """What each row of the tables is called, and how many cells it has; JSON files have lost the order of methods."""
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("|")]
    return sorted((cells[0], len(cells)) for cells in lines)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("photomaker", evaluation.markdown),
        ("methods", lambda found: comparison.markdown(found, ())),
        ("ablation", lambda found: ablation.markdown(found, {axis: f"{axis}.png" for axis in found["axes"]})),
    ],
)
def test_the_tables_of_a_result_file_are_those_of_its_page(name, page):
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    said = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert rows(page(found)) == rows(said)
    assert found["command"] in said
