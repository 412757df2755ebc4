"""What a likeness means in words."""

import numpy as np
import pytest

from photomaker.faces.base import Calibration
from photomaker.studio.photos.verdict import Verdict

KNOWN = Calibration(0.9, 0.8, "by nobody")
PHOTOS = np.array([[1.0, 0.0], [0.96, 0.28]])  # cosine .96


def test_the_ceiling_is_what_the_photos_reach_among_themselves():
    verdict = Verdict.of(0.92, PHOTOS, KNOWN)
    assert verdict.ceiling == pytest.approx(0.96)
    assert verdict.share == pytest.approx((0.92 - 0.8) / (0.96 - 0.8))
    assert verdict.same is True
    assert verdict.short == "same person, 75 %"
    assert verdict.text == (
        "the same person (0.92, above the threshold 0.90), 75 % of the photos' likeness to each other "
        "(ceiling from 2 photos)"
    )


def test_another_person_is_told_so():
    verdict = Verdict.of(0.78, PHOTOS, KNOWN)
    assert (verdict.same, verdict.share) == (False, 0)
    assert verdict.short == "another person, 0 %"
    assert verdict.text.startswith("not the same person (0.78, below the threshold 0.90)")
    assert Verdict.of(0.9, PHOTOS, KNOWN).same


def test_one_photo_gives_no_ceiling_and_an_unmeasured_recogniser_no_verdict():
    one = Verdict.of(0.92, PHOTOS[:1], KNOWN)
    assert (one.ceiling, one.share, one.short) == (None, None, "same person")
    assert one.text == "the same person (0.92, above the threshold 0.90)"
    unknown = Verdict.of(0.48, PHOTOS, None)
    assert (unknown.same, unknown.short) == (None, "50 %")
    assert Verdict.of(0.5, PHOTOS[:1], None).text == "likeness 0.50; one photo gives no ceiling"
    alike = Verdict.of(0.9, np.array([[1.0, 0.0], [0.6, 0.8]]), KNOWN)
    assert alike.share is None


def test_a_threshold_that_nobody_measured_is_told_with_the_verdict():
    assumed = Calibration(0.4, 0.0, "not measured", measured=False)
    verdict = Verdict.of(0.6, PHOTOS, assumed)
    assert verdict.same is True and verdict.short.startswith("probably same person, 6")
    assert verdict.text.startswith(
        "probably the same person (0.60, above the threshold 0.40, which is not measured for this recogniser), 6"
    )
    assert Verdict.of(0.3, PHOTOS, assumed).text.startswith("probably not the same person (0.30, below")
