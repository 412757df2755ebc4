"""Look at the synthetic world: writes contact sheets of people, views, scenes, clothes, styles and ages.

python scripts/look_at_people.py --out out/people
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from photomaker.synthetic import (
    CLOTHES,
    COLOURS,
    EYEWEAR,
    HATS,
    PERSON_CLASSES,
    SCENES,
    STYLES,
    Person,
    person,
    render,
    view,
    with_class,
)

PLAIN = {"style": "photo", "hat": "none", "eyewear": "none", "scene": "studio"}


def _draw(someone: Person, seed: int, size: int, **fixed: object) -> np.ndarray:
    return render(someone, view(someone, seed, **fixed), size).image


def sheets(start: int, size: int) -> dict[str, list[list[np.ndarray]]]:
    """Every sheet: its name and its rows of pictures."""
    crowd = [person(start + offset) for offset in range(28)]
    someone = crowd[0]
    return {
        "people": [[_draw(p, 1, size, **PLAIN) for p in crowd[row : row + 7]] for row in range(0, 28, 7)],
        "views": [[_draw(p, seed, size, style="photo") for seed in range(7)] for p in crowd[:4]],
        "scenes": [
            [_draw(crowd[1], 1, size, **(PLAIN | {"scene": scene})) for scene in SCENES[row : row + 7]]
            for row in (0, 7)
        ],
        "clothes": [
            [_draw(crowd[2], 1, size, **PLAIN, clothing=kind, clothing_colour=colour) for colour in COLOURS]
            for kind in CLOTHES
        ],
        "hats": [
            [_draw(crowd[3], 1, size, **(PLAIN | {"hat": hat}), hat_colour=colour) for colour in COLOURS]
            for hat in HATS[1:]
        ],
        "eyewear": [
            [_draw(p, 2, size, **(PLAIN | {"eyewear": worn})) for worn in EYEWEAR] for p in crowd[:3]
        ],
        "styles": [[_draw(p, 3, size, **(PLAIN | {"style": style})) for style in STYLES] for p in crowd[:4]],
        "ages": [
            [_draw(with_class(p, name), 4, size, **PLAIN) for name in PERSON_CLASSES]
            for p in (someone, *crowd[4:7])
        ],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/people"))
    parser.add_argument("--start", type=int, default=0, help="person index of the first person")
    parser.add_argument("--size", type=int, default=128, help="pixels to a side of each picture")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in sheets(given.start, given.size).items():
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(
            given.out / f"{name}.png"
        )
