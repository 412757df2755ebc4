"""Draw the photos of the two example people, into the package (for `photomaker demo`) and into examples/.

    python scripts/draw_examples.py --ada 2000000 --ben 2000001

The people are from the test split: no model was trained on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from photomaker import synthetic
from photomaker.images import BY_CODE, save_png
from photomaker.weights import ASSETS

VIEWS = (
    {"scene": "studio", "clothing": "t-shirt", "yaw": 0.0, "smile": 0.4},
    {"scene": "kitchen", "clothing": "shirt", "yaw": 0.3, "smile": 0.8},
    {"scene": "meadow", "clothing": "sweater", "yaw": -0.3, "smile": 0.1},
    {"scene": "mountains", "clothing": "hoodie", "yaw": 0.15, "smile": 0.9},
)
PLAIN = {"style": "photo", "hat": "none", "eyewear": "none"}


def first_of(person_class: str, start: int) -> int:
    """Number of the first person of a class from `start` on."""
    return next(
        index for index in range(start, start + 1000) if synthetic.person(index).person_class == person_class
    )


def draw(name: str, index: int) -> None:
    """Write one person's photos to both places."""
    person = synthetic.person(index)
    for place, fixed in enumerate(VIEWS, 1):
        view = synthetic.view(person, seed=place, **(PLAIN | fixed))
        picture = Image.fromarray(synthetic.render(person, view, size=256).image)
        for root in (ASSETS / "people", Path(__file__).parents[1] / "examples"):
            (root / name).mkdir(parents=True, exist_ok=True)
            save_png(picture, root / name / f"{place}.png", {"person": str(index)}, source=BY_CODE)
    print(f"{name}: person {index}, {person.person_class}")


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ada", type=int, help="person number; the first woman among the test people")
    parser.add_argument("--ben", type=int, help="person number; the first man among the test people")
    options = parser.parse_args()
    draw("ada", first_of("woman", synthetic.TEST) if options.ada is None else options.ada)
    draw("ben", first_of("man", synthetic.TEST) if options.ben is None else options.ben)


if __name__ == "__main__":
    main()
