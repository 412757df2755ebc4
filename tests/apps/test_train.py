"""What `photomaker train` puts into a training: the comparison of faces."""

import math
from pathlib import Path

import pytest
from PIL import Image

from photomaker import weights
from photomaker.apps import train

PEOPLE = Path(__file__).parents[2] / "examples"


@pytest.mark.bundled
@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")
def test_faces_are_compared_by_the_bundled_recogniser():
    score = train._score("bundled")
    ada, ben = ([Image.open(PEOPLE / name / f"{n}.png") for n in range(1, 5)] for name in ("ada", "ben"))
    assert score(ada[:2], ada[2:]) > score(ada[:2], ben) + 0.2
    assert math.isnan(score([Image.new("RGB", (128, 128))], ada))


def test_no_comparison_where_none_is_asked_for():
    assert train._score("none") is None
