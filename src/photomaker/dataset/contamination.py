"""How well the rules of `verify` find wrong people, measured on groups with planted photos of strangers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from photomaker.dataset.ground_truth import Count
from photomaker.dataset.verify import Verify

STRANGERS, NAMESAKE = "different strangers", "one namesake"
SHARES, SIZES = (0.05, 0.1, 0.2), (5, 10, 20, 50)
RULES = (
    Verify("paper"), Verify("paper", k=2.0), Verify("deviation"), Verify("peeling"), Verify("core"),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """How often one rule was right on groups of one sort.

    Attributes:
        rule: The rule and its k.
        kind: Whether every wrong photo shows somebody else, or all of them the same one.
        size: Photos of a group.
        share: Chance of each photo to be wrong; groups of which half or more would be are left out.
        count: Over all groups.
    """

    rule: Verify
    kind: str
    size: int
    share: float
    count: Count


def measure(
    embeddings: Mapping[str, np.ndarray], rules: Sequence[Verify] = RULES, groups: int = 200, seed: int = 0
) -> list[Cell]:
    """Mix and count.

    Args:
        embeddings: Person -> [photos, width] rows of length 1, of three people or more. Groups may have at most as
            many photos as every person has.
        rules: What is measured; all see the same groups.
        groups: How many of each sort.
        seed: Where the groups come from.

    Returns:
        A cell for each kind, size, share and rule.
    """
    most = min(len(vectors) for vectors in embeddings.values())
    cells = []
    for kind in (STRANGERS, NAMESAKE):
        for size in (size for size in SIZES if size <= most):
            for share in SHARES:
                rng = np.random.default_rng((seed, size, round(100 * share), kind == NAMESAKE))
                given = list(_groups(embeddings, kind, size, share, groups, rng))
                cells += [Cell(rule, kind, size, share, _count(rule, given)) for rule in rules]
    return cells


def _groups(
    embeddings: Mapping[str, np.ndarray],
    kind: str,
    size: int,
    share: float,
    groups: int,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """[size, size] cosines, and [size] bool: who is wrong."""
    names = sorted(embeddings)
    for _ in range(groups):
        wrong = rng.random(size) < share
        while 2 * wrong.sum() >= size:
            wrong = rng.random(size) < share
        own, *others = rng.permutation(names)
        count = int(wrong.sum())
        vectors = np.empty((size, embeddings[own].shape[1]))
        vectors[~wrong] = rng.permutation(embeddings[own])[: size - count]
        if kind == NAMESAKE:
            vectors[wrong] = rng.permutation(embeddings[others[0]])[:count]
        else:
            for n, place in enumerate(np.flatnonzero(wrong)):
                vectors[place] = rng.choice(embeddings[others[n % len(others)]])
        yield vectors @ vectors.T, wrong


def _count(rule: Verify, groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> Count:
    right = told = true = 0
    for likeness, wrong in groups:
        dropped = ~rule.kept(likeness)
        right += int((dropped & wrong).sum())
        told += int(dropped.sum())
        true += int(wrong.sum())
    return Count("photo of another person", right, told, true)


def markdown(cells: Sequence[Cell]) -> str:
    """A table for each kind: a line for each rule, precision / recall for each size and share."""
    parts = []
    for kind in dict.fromkeys(cell.kind for cell in cells):
        ours = [cell for cell in cells if cell.kind == kind]
        sorts = list(dict.fromkeys((cell.size, cell.share) for cell in ours))
        lines = [
            f"Wrong photos show {kind}; precision / recall of finding them:",
            "",
            "| rule | " + " | ".join(f"{size} photos, {share:.0%}" for size, share in sorts) + " |",
            "|---" * (len(sorts) + 1) + "|",
        ]
        for rule in dict.fromkeys(cell.rule for cell in ours):
            found = {(cell.size, cell.share): cell.count for cell in ours if cell.rule == rule}
            shown = " | ".join(
                f"{_two(found[sort].precision)} / {_two(found[sort].recall)}" for sort in sorts
            )
            lines.append(f"| {named(rule)} | {shown} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def named(rule: Verify) -> str:
    """A rule with its k, in words."""
    return f"{rule.rule}, k = {rule.threshold:g}"


def _two(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"
