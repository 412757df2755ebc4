"""The synthetic people as the benchmark sees them."""

from __future__ import annotations

import numpy as np

from photomaker import synthetic
from photomaker.evaluation.people.world import SyntheticWorld, stable_seed

WORLD = SyntheticWorld()


def pixels(picture: object) -> bytes:
    return np.asarray(picture).tobytes()


def test_splits_do_not_share_people() -> None:
    test, validation = WORLD.people("test", 3), WORLD.people("validation", 3)
    assert test[0] == synthetic.TEST
    assert not set(test) & set(validation)
    assert WORLD.class_of(test[0]) == synthetic.person(test[0]).person_class


def test_references_and_unseen_photos_differ_and_more_photos_only_add_some() -> None:
    person = WORLD.people("test", 1)[0]
    three, four = WORLD.photos(person, "references", 3), WORLD.photos(person, "references", 4)
    unseen = WORLD.photos(person, "unseen", 4)
    assert [pixels(photo) for photo in four[:3]] == [pixels(photo) for photo in three]
    assert not {pixels(photo) for photo in four} & {pixels(photo) for photo in unseen}


def test_a_context_obeys_the_prompt_and_wears_nothing_else() -> None:
    person = WORLD.people("test", 1)[0]
    states = {"style": "photo", "scene": "beach"}
    seed = stable_seed(person, "context", 5)
    view = synthetic.view(synthetic.person(person), seed, **states, hat="none", eyewear="none")
    expected = synthetic.render(synthetic.person(person), view).image
    assert np.array_equal(np.asarray(WORLD.context(person, 5, states)), expected)
    older = WORLD.context(person, 5, states, as_class=WORLD.changed_classes(person)["age"][0])
    assert pixels(older) != expected.tobytes()


def test_class_changes_keep_either_age_or_gender() -> None:
    for person in WORLD.people("test", 20):
        own = WORLD.class_of(person)
        changes = WORLD.changed_classes(person)
        assert own not in (*changes["age"], *changes["gender"])
        feminine = {"woman", "girl", "old woman"}
        assert all((name in feminine) == (own in feminine) for name in changes["age"])
        assert all((name in feminine) != (own in feminine) for name in changes["gender"])


def test_seeds_depend_on_their_arguments_alone() -> None:
    assert stable_seed(1, "a", 2) == stable_seed(1, "a", 2)
    assert len({stable_seed(person, role, n) for person in range(3) for role in "ab" for n in range(3)}) == 18
    assert 0 <= stable_seed(5, "x", 0) < 2**31


def test_the_fingerprint_is_stable() -> None:
    assert WORLD.fingerprint() == SyntheticWorld().fingerprint()
