"""The synthetic world: seeds decide everything, splits share nobody, pictures say the truth about themselves."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomaker.errors import SettingsError
from photomaker.synthetic import (
    EYEWEAR,
    HATS,
    PERSON_CLASSES,
    SCENES,
    STYLES,
    TEST,
    TRAIN,
    VALIDATION,
    person,
    render,
    view,
    with_class,
)
from photomaker.synthetic.captions import caption, traits
from photomaker.synthetic.distributions import (
    PERSON,
    VIEW,
    Bell,
    Choice,
    Uniform,
    factor_names,
    factor_vector,
)
from photomaker.synthetic.factors import Person


def shown(index: int = 3, seed: int = 1, **fixed: object) -> np.ndarray:
    someone = person(index)
    return render(someone, view(someone, seed, **fixed)).image


def test_a_picture_is_the_same_bytes_every_time() -> None:
    assert np.array_equal(shown(), shown())


def test_seeds_and_people_make_different_pictures() -> None:
    assert not np.array_equal(shown(seed=1), shown(seed=2))
    assert not np.array_equal(shown(index=3), shown(index=4))


def test_identity_has_at_least_sixteen_factors_and_the_splits_share_nobody() -> None:
    assert len(fields(Person)) >= 16
    groups = [{person(start + offset) for offset in range(50)} for start in (TRAIN, VALIDATION, TEST)]
    assert len(set.union(*groups)) == 150


@given(st.integers(0, 10**7), st.integers(0, 10**7))
@settings(max_examples=40, deadline=None)
def test_distributions_contain_what_they_sample(index: int, seed: int) -> None:
    someone = person(index)
    for name, distribution in VIEW.items():
        assert distribution.contains(getattr(view(someone, seed), name)), name
    for name in ("skin", "jaw", "eye_colour", "person_class", "hairstyle", "mole"):
        assert PERSON[name].contains(getattr(someone, name)), name


@pytest.mark.parametrize(
    ("distribution", "outside"), [(Uniform(0, 1), 1.5), (Bell(0, 1, -1, 1), -2), (Choice(("a", "b")), "c")]
)
def test_distributions_refuse_what_they_cannot_sample(
    distribution: Uniform | Bell | Choice, outside: object
) -> None:
    assert not distribution.contains(outside)


@pytest.mark.parametrize("fixed", [{"hat": "crown"}, {"mood": 1}, {"yaw": 3.0}])
def test_a_view_refuses_unknown_factors_and_values(fixed: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(fixed))):
        view(person(0), 0, **fixed)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(SettingsError, match="-1"):
        person(-1)
    with pytest.raises(SettingsError, match="4000"):
        render(person(0), view(person(0), 0), size=4000)
    with pytest.raises(SettingsError, match="baby"):
        with_class(person(0), "baby")


@pytest.mark.parametrize("factor", ["scene", "hat", "eyewear", "clothing", "style"])
def test_every_word_of_the_prompt_shows(factor: str) -> None:
    words = {"scene": SCENES, "hat": HATS, "eyewear": EYEWEAR, "style": STYLES}.get(factor) or VIEW[
        factor
    ].values
    rest = {"scene": "studio", "hat": "none", "eyewear": "none", "style": "photo"}
    pictures = [shown(**(rest | {factor: word})).astype(int) for word in words]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert np.abs(first - second).mean() > 0.4


def test_the_same_face_at_every_age_keeps_its_shape_factors() -> None:
    someone = person(8)
    pictures = [
        render(with_class(someone, name), view(someone, 5)).image.astype(int) for name in PERSON_CLASSES
    ]
    assert all(np.abs(a - b).mean() > 0.5 for i, a in enumerate(pictures) for b in pictures[:i])
    assert {with_class(someone, name).jaw for name in PERSON_CLASSES} == {someone.jaw}


def test_mask_box_and_landmarks_lie_where_the_person_is() -> None:
    for index in range(12):
        someone = person(index)
        picture = render(someone, view(someone, index, style="photo"))
        x0, y0, x1, y1 = (int(edge) for edge in picture.box)
        assert 0.15 < (picture.mask > 0).mean() < 0.85
        assert (picture.mask[y0:y1, x0:x1] > 0).mean() > 0.8
        assert 35 < x1 - x0 < 80
        assert all(x0 - 4 <= x <= x1 + 4 and y0 <= y <= y1 for x, y in picture.landmarks)
        left, right, nose, *mouth = picture.landmarks
        assert left[0] < right[0] and max(left[1], right[1]) < nose[1] < max(corner[1] for corner in mouth)


def test_the_eyes_are_where_the_landmarks_say() -> None:
    """Changing the iris colour alone changes pixels at the eyes and nowhere else."""
    someone = replace(person(5), eye_colour=3)
    seen = view(someone, 2, style="photo", eyewear="none", yaw=0.2)
    blue, brown = render(someone, seen), render(replace(someone, eye_colour=0), seen)
    rows, columns = np.nonzero(np.abs(blue.image.astype(int) - brown.image).sum(-1) > 12)
    eyes = blue.landmarks[:2]
    distance = np.min(np.hypot(columns[:, None] - eyes[:, 0], rows[:, None] - eyes[:, 1]), axis=1)
    assert len(rows) > 10 and distance.max() < 8


def test_a_larger_picture_is_the_same_picture() -> None:
    someone = person(9)
    seen = view(someone, 4, style="photo", scene="studio")
    small, large = render(someone, seen, 64), render(someone, seen, 128)
    halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - small.image).mean() < 6
    assert np.allclose(large.landmarks, small.landmarks * 2, atol=0.1)


def test_factor_vectors_are_scaled_and_named() -> None:
    vectors = np.stack([factor_vector(person(index)) for index in range(300)])
    assert vectors.shape[1] == len(factor_names())
    assert np.all(np.abs(vectors.mean(0)) < 1.6) and np.all((vectors.std(0) > 0.3) & (vectors.std(0) < 2))


def test_captions_say_what_is_there_and_vary() -> None:
    someone = person(12)
    stated = {
        "style": "photo",
        "scene": "snow",
        "hat": "cap",
        "hat_colour": "red",
        "eyewear": "glasses",
        "clothing": "hoodie",
        "clothing_colour": "orange",
    }
    rng = np.random.default_rng(0)
    texts = [caption(someone, stated, rng, trigger="img") for _ in range(40)]
    assert len(set(texts)) > 10
    for text in texts:
        assert f"{someone.person_class} img" in text and "red cap" in text and "glasses" in text
    assert any("snow" in text for text in texts) and any("an orange hoodie" in text for text in texts)


def test_descriptions_mention_each_trait_with_the_chance_asked_for() -> None:
    someone = person(14)
    rng = np.random.default_rng(1)
    stated = dict.fromkeys(
        ("style", "scene", "hat", "hat_colour", "eyewear", "clothing", "clothing_colour"), "none"
    )
    stated |= {"style": "photo", "scene": "city", "clothing": "suit", "clothing_colour": "blue"}
    phrases = [phrase for phrase in traits(someone, rng) if "hair" not in phrase]
    full = caption(someone, stated, rng, describe=1.0)
    assert all(phrase in full for phrase in phrases)
    assert not any(phrase in caption(someone, stated, rng, describe=0.0) for phrase in phrases)
