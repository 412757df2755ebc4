"""Groups with strangers mixed in: what is counted is what happened."""

import numpy as np
import pytest

from photomaker.dataset.contamination import NAMESAKE, RULES, STRANGERS, markdown, measure, named
from photomaker.dataset.verify import Verify


@pytest.fixture(scope="module")
def embeddings():
    """Eight people with eleven photos each, far apart."""
    rng = np.random.default_rng(0)
    vectors = np.eye(8, 32)[:, None] + 0.15 * rng.normal(size=(8, 11, 32)) / np.sqrt(32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return {f"person {n}": one for n, one in enumerate(vectors)}


def test_on_people_who_are_far_apart_the_default_finds_all_and_the_paper_none(embeddings):
    cells = measure(embeddings, (Verify(), Verify("paper")), groups=30)
    assert {(cell.kind, cell.size) for cell in cells} == {
        (kind, n) for kind in (STRANGERS, NAMESAKE) for n in (5, 10)
    }
    for cell in cells:
        if cell.rule.rule == "paper":
            assert cell.count.told == 0 and cell.count.recall == 0
        else:
            assert (cell.count.precision, cell.count.recall) == (1.0, 1.0)
            # about as many as were to be expected, groups with a wrong half being left out
            assert 0.4 < cell.count.true / (30 * cell.size * cell.share) < 1.6


def test_all_rules_see_the_same_groups_and_a_seed_gives_them_again(embeddings):
    first = measure(embeddings, RULES, groups=5)
    assert first == measure(embeddings, RULES, groups=5)
    assert first != measure(embeddings, RULES, groups=5, seed=1)
    by_sort = {}
    for cell in first:
        by_sort.setdefault((cell.kind, cell.size, cell.share), set()).add(cell.count.true)
    assert all(len(counts) == 1 for counts in by_sort.values())


def test_the_table(embeddings):
    text = markdown(measure(embeddings, (Verify("paper"), Verify("peeling", k=0.5)), groups=5))
    assert (
        "| rule | 5 photos, 5% |" in text and "| paper, k = 8 | " in text and "| peeling, k = 0.5 | " in text
    )
    assert text.count("Wrong photos show") == 2
    assert named(Verify("core")) == "core, k = 0.5"
