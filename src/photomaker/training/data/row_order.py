"""Which rows of a dataset each step is taken on."""

from __future__ import annotations

import numpy as np


class RowOrder:
    """Rows of every step, one group at a time, the groups taking turns by their sizes.

    The rows of a group are shuffled epochs laid end to end and cut into batches; within one epoch no row comes twice.

    Args:
        rows: All rows [n].
        groups: Group of each row [n].
        batch: Rows of all processes together.
        seed: Seed of the shuffles.
    """

    def __init__(self, rows: np.ndarray, groups: np.ndarray, batch: int, seed: int) -> None:
        """Lay out one round, in which each group has its share of steps and the smallest has one."""
        self.batch, self.seed = batch, seed
        self.members = [rows[groups == group] for group in np.unique(groups)]
        sizes = np.array([len(members) for members in self.members])
        self.turns = np.repeat(
            np.arange(len(sizes)), np.maximum(1, np.round(sizes / sizes.min())).astype(int)
        )
        self.shuffles: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        """Rows [batch] of a 0-based step, all of one group."""
        if len(self.members) == 1:
            return self._stream(0, step)
        turn, place = divmod(step, len(self.turns))
        order = np.random.default_rng([self.seed, 19, turn]).permutation(self.turns)
        group = int(order[place])
        before = turn * int((self.turns == group).sum()) + int((order[:place] == group).sum())
        return self._stream(group, before)

    def _stream(self, group: int, number: int) -> np.ndarray:
        """The batch of that number in a group's shuffled epochs laid end to end."""
        members = self.members[group]
        start, count = number * self.batch, len(members)
        epochs = range(start // count, (start + self.batch - 1) // count + 1)
        order = np.concatenate([self._shuffle(group, epoch) for epoch in epochs])
        offset = start - epochs[0] * count
        for old in [key for key in self.shuffles if key[0] == group and key[1] < epochs[0]]:
            del self.shuffles[old]
        return members[order[offset : offset + self.batch]]

    def _shuffle(self, group: int, epoch: int) -> np.ndarray:
        if (group, epoch) not in self.shuffles:
            seeds = [self.seed, 17, epoch, *([group] if group else [])]
            self.shuffles[group, epoch] = np.random.default_rng(seeds).permutation(len(self.members[group]))
        return self.shuffles[group, epoch]
