"""Draw the photos of the two example people, into the package (for `photomaker demo`) and into examples/.

    python scripts/draw_examples.py --ada 2000009 --ben 2000080

The people are from the test split: no model was trained on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from photomaker import synthetic
from photomaker.images import save_png
from photomaker.metadata import BY_CODE
from photomaker.weights import ASSETS

VIEWS = (
    {"scene": "studio", "clothing": "t-shirt", "yaw": 0.0, "smile": 0.4},
    {"scene": "kitchen", "clothing": "shirt", "yaw": 0.3, "smile": 0.8},
    {"scene": "meadow", "clothing": "sweater", "yaw": -0.3, "smile": 0.1},
    {"scene": "mountains", "clothing": "hoodie", "yaw": 0.15, "smile": 0.9},
)
PLAIN = {"style": "photo", "hat": "none", "eyewear": "none"}


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
    parser.add_argument("--ada", type=int, default=synthetic.TEST + 9, help="person number")
    parser.add_argument("--ben", type=int, default=synthetic.TEST + 80, help="person number")
    options = parser.parse_args()
    draw("ada", options.ada)
    draw("ben", options.ben)


if __name__ == "__main__":
    main()
