"""What is drawn before a face covers it, and nothing else changes."""

import numpy as np
import pytest

from photomaker.errors import SettingsError
from photomaker.synthetic import person, render, view
from photomaker.synthetic.covers import COVERS, PARTS, covered

WHO = person(3_600_001)
SEEN = view(WHO, 4, style="photo", hat="none", eyewear="none", scene="studio")


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("part", PARTS)
def test_the_part_is_covered_and_what_is_above_the_head_is_not(cover, part):
    plain, made = render(WHO, SEEN, 128), covered(WHO, SEEN, cover, part, 1, 128)
    changed = (plain.image != made.image).any(-1)
    points = plain.landmarks.round().astype(int)
    places = {"left eye": points[0], "right eye": points[1], "mouth": points[3:].mean(0).astype(int)}
    x, y = places[part]
    assert changed[y - 1 : y + 2, x - 1 : x + 2].all()
    assert not changed[:20].any()
    assert np.array_equal(made.landmarks, plain.landmarks) and made.box == plain.box
    again = covered(WHO, SEEN, cover, part, 1, 128)
    assert np.array_equal(again.image, made.image)
    assert not np.array_equal(covered(WHO, SEEN, cover, part, 2, 128).image, made.image)


def test_what_cannot_be_held_is_told():
    with pytest.raises(SettingsError, match="cover is 'cat'; give one of hand, cup, phone"):
        covered(WHO, SEEN, "cat", "mouth", 0)
    with pytest.raises(SettingsError, match="part is 'ear'; give one of left eye"):
        covered(WHO, SEEN, "cup", "ear", 0)
