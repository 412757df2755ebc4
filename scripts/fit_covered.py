"""Weights of `photomaker.studio.photos.covered`: a logistic regression for each of what hides a drawn face.

python scripts/fit_covered.py --people 400

Prints the table and, from people left out in turn, how many are told and how many good photos are taken for hidden.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from calibrate_coach import HELD, SIDE, drawn, seen, turned
from PIL import Image
from tqdm import tqdm

from photomaker.faces import BundledFaces
from photomaker.studio.photos.covered import cues
from photomaker.synthetic import person
from photomaker.synthetic.covers import covered

ALARMS = {"hand": 0.0025, "phone": 0.001, "mouth": 0.0025, "turned": 0.005}
"""Share of good photos that each may take for hidden."""
SMALL = 1e-3
"""Weight of the squares of the weights."""
FOLDS = 10


def pictures(index: int) -> Iterator[tuple[str, Image.Image]]:
    """Two good photos of a person, one turned far away, and one with something before the face."""
    who, rng = person(index), np.random.default_rng(index)
    for seed in (index % 50, index % 50 + 50):
        yield "good", drawn(who, seed)
    yield "turned", turned(who, index % 70, rng)
    cover, parts = HELD[index % len(HELD)]
    made = covered(who, seen(who, index % 60), cover, str(rng.choice(parts)), index, SIDE)
    yield "mouth" if "mouth" in parts else cover, Image.fromarray(made.image)


def fitted(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights and constant; both kinds count the same in all."""
    mean, deviation = features.mean(0), features.std(0) + 1e-9
    rows = np.c_[(features - mean) / deviation, np.ones(len(features))]
    share = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    found = np.zeros(rows.shape[1])
    for _ in range(60):
        odds = 1 / (1 + np.exp(-rows @ found))
        slope = rows.T @ (share * (odds - truth)) + SMALL * np.r_[found[:-1], 0]
        curve = (rows * (share * odds * (1 - odds))[:, None]).T @ rows + SMALL * np.eye(len(found))
        found -= np.linalg.solve(curve, slope)
    return np.r_[found[:-1] / deviation, found[-1] - float((found[:-1] * mean / deviation).sum())]


def main() -> None:
    """Draw, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", type=int, default=3_000_000, help="number of the first person")
    parser.add_argument("--people", type=int, default=400)
    given = parser.parse_args()
    detector, kinds, rows, whose = BundledFaces.open(), [], [], []
    for index in tqdm(range(given.start, given.start + given.people)):
        for kind, picture in pictures(index):
            for face in detector.detect(picture)[:1]:
                found = cues(picture, face)
                kinds.append(kind)
                rows.append(list(found.values()))
                whose.append(index)
    names, features, kind_of, fold = list(found), np.array(rows), np.array(kinds), np.array(whose) % FOLDS
    for what, alarms in ALARMS.items():
        own = np.isin(kind_of, [what, "good"])
        x, truth, part = features[own], kind_of[own] == what, fold[own]
        margin = np.zeros(len(x))
        for left_out in set(part.tolist()):
            weights = fitted(x[part != left_out], truth[part != left_out])
            margin[part == left_out] = x[part == left_out] @ weights[:-1] + weights[-1]
        limit = float(np.quantile(margin[~truth], 1 - alarms))
        weights = fitted(x, truth)
        table = {name: float(f"{value:.4g}") for name, value in zip(names, weights[:-1], strict=True)}
        print(what, {**table, "one": float(f"{weights[-1] - limit:.4g}")})
        told, wrong = (margin > limit)[truth].mean(), (margin > limit)[~truth].mean()
        print(f"  told {100 * told:.1f} %, good photos taken for it {100 * wrong:.2f} %")


if __name__ == "__main__":
    main()
