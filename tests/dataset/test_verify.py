"""Photos of other people: found, and told from those of the person."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomaker.dataset.base import Dropped
from photomaker.dataset.verify import DEFAULTS, Verify, mean_likeness, paper, top_faces
from photomaker.errors import SettingsError

RULES = sorted(DEFAULTS)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def group(rng, genuine, wrong, spread=0.5, width=64):
    """Embeddings around one direction, then embeddings of as many strangers; shuffled, with who is wrong."""
    person = unit(rng.normal(size=width))
    vectors = unit(
        np.concatenate(
            [person + spread * unit(rng.normal(size=(genuine, width))), rng.normal(size=(wrong, width))]
        )
    )
    order = rng.permutation(genuine + wrong)
    return vectors[order], order >= genuine


def rows(vectors, *extra):
    """One photo for each vector; `extra` are (photo, vector, where it stands among the photo's faces)."""
    found = [[face(vector)] for vector in vectors]
    for place, vector, position in extra:
        found[place].insert(position, face(vector, box=1.0))
    return [{"key": f"{n:03d}", "person": "p", "shard": 0, "faces": faces} for n, faces in enumerate(found)]


def face(vector, box=0.0):
    return {
        "box": [box] * 4,
        "score": 0.9,
        "landmarks": [box] * 10,
        "embedding": vector.astype(np.float32).tolist(),
    }


@pytest.mark.parametrize("rule", ["core", "peeling", "deviation"])
@pytest.mark.parametrize(("genuine", "wrong"), [(4, 1), (9, 1), (16, 4), (40, 10)])
def test_strangers_are_dropped_and_the_person_stays(rule, genuine, wrong):
    rng = np.random.default_rng(genuine)
    right = told = 0
    for _ in range(20):
        vectors, strange = group(rng, genuine, wrong)
        kept = Verify(rule).kept(vectors @ vectors.T)
        right += (~kept & strange).sum()
        told += (~kept).sum()
    assert right / (20 * wrong) > 0.95
    assert right / told > 0.9


@pytest.mark.parametrize(
    ("rule", "stays", "goes"), [("core", 0.47, 0.43), ("peeling", 0.55, 0.52), ("deviation", 0.77, 0.73)]
)
def test_each_rule_drops_from_its_own_default_on(rule, stays, goes):
    """One photo beside 49 that are alike by 0.9: half of that, 0.6 of it, or 7 x 0.02 below it."""
    for cosine, expected in ((stays, True), (goes, False)):
        likeness = np.full((50, 50), 0.9)
        likeness[7] = likeness[:, 7] = cosine
        kept = Verify(rule).kept(likeness)
        assert kept[7] == expected
        assert kept.sum() == 49 + expected


def test_a_namesake_is_found_although_its_photos_vouch_for_each_other():
    rng = np.random.default_rng(3)
    person, namesake = (unit(rng.normal(size=64)) for _ in range(2))
    vectors = unit(
        np.concatenate([np.tile(person, (6, 1)), np.tile(namesake, (4, 1))])
        + 0.05 * rng.normal(size=(10, 64))
    )
    assert Verify().kept(vectors @ vectors.T).tolist() == [True] * 6 + [False] * 4


def test_the_step_gives_the_chosen_face_and_its_mean_cosine():
    rng = np.random.default_rng(0)
    vectors, _ = group(rng, 5, 0)
    stranger = unit(rng.normal(size=64))
    results = list(Verify().open()(rows(vectors, (1, stranger, 0), (3, stranger, 1))))
    assert [one["box"][0] for one in results] == [0] * 5
    assert all(
        set(one) == {"key", "person", "shard", "faces", "box", "landmarks", "embedding", "verified"}
        for one in results
    )
    cosines = vectors @ vectors.T
    assert results[2]["verified"] == pytest.approx((cosines[2].sum() - 1) / 4, abs=1e-5)
    assert np.allclose(results[1]["embedding"], vectors[1], atol=1e-6)


def test_a_dropped_photo_says_how_unlike_it_is():
    rng = np.random.default_rng(1)
    vectors, strange = group(rng, 8, 1)
    results = list(Verify().open()(rows(vectors)))
    assert [isinstance(one, Dropped) for one in results] == strange.tolist()
    (dropped,) = (one for one in results if isinstance(one, Dropped))
    assert dropped.reason == "another person"
    assert float(dropped.detail.removeprefix("mean cosine ")) < 0.3
    assert dropped.row["key"] == f"{int(strange.argmax()):03d}"
    assert dropped.row["box"] == dropped.row["faces"][0]["box"]


def test_the_same_face_beside_the_person_in_one_photo_does_not_count_for_itself():
    """Summed likeness leaves out faces of the same photo: two faces that are alike do not vote for each other."""
    likeness = np.array([[1.0, 0.99, 0.1], [0.99, 1.0, 0.2], [0.1, 0.2, 1.0]])
    assert top_faces(likeness, np.array([0, 0, 1])).tolist() == [1, 2]
    assert top_faces(np.eye(3), np.array([0, 0, 0])).tolist() == [0]


def test_a_single_photo_passes_without_a_figure():
    (one,) = Verify().open()(rows(unit(np.ones((1, 8)))))
    assert one["verified"] is None and one["box"] == [0.0] * 4


def test_two_photos_that_are_unlike_do_not_vouch_for_each_other():
    vectors = np.eye(2, 8)
    assert [one.detail for one in Verify().open()(rows(vectors))] == ["mean cosine 0.00"] * 2
    left, dropped = Verify("peeling").open()(rows(vectors))
    left, dropped = (left, dropped) if isinstance(dropped, Dropped) else (dropped, left)
    assert dropped.detail == "mean cosine 0.00" and left["verified"] is None
    alike = unit(np.ones((2, 8)) + 0.1 * np.eye(2, 8))
    assert not any(isinstance(one, Dropped) for one in Verify().open()(rows(alike)))


def test_the_papers_rule_is_what_the_paper_says():
    rng = np.random.default_rng(2)
    vectors, strange = group(rng, 19, 1)
    likeness = vectors @ vectors.T
    sums = likeness.sum(1) - 1
    expected = sums >= sums.mean() - 3 * sums.std(ddof=1)
    assert np.array_equal(paper(likeness, 3), expected) and np.array_equal(~expected, strange)


@pytest.mark.parametrize("photos", [3, 20, 65])
def test_the_papers_rule_cannot_fire_below_66_photos(photos):
    gross = np.full((photos, photos), 1.0)
    gross[0, 1:] = gross[1:, 0] = -1
    assert Verify("paper").kept(gross).all()


def test_the_papers_rule_can_fire_from_66_photos_on():
    gross = np.full((67, 67), 1.0)
    gross[0, 1:] = gross[1:, 0] = -1
    assert (~Verify("paper").kept(gross)).tolist() == [True] + [False] * 66


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from(RULES))
def test_what_stays_does_not_depend_on_the_order(photos, seed, rule):
    rng = np.random.default_rng(seed)
    vectors, _ = group(rng, photos, photos // 4)
    order = rng.permutation(len(vectors))
    likeness = np.round(vectors @ vectors.T, 9)
    kept = Verify(rule).kept(likeness)
    assert np.array_equal(Verify(rule).kept(likeness[np.ix_(order, order)]), kept[order])
    assert kept.any()


def test_the_mean_leaves_the_photo_itself_out():
    likeness = np.array([[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]])
    assert mean_likeness(likeness, np.array([True, True, False])).tolist() == pytest.approx([0.5, 0.5, 0.2])
    assert mean_likeness(likeness, np.array([True, False, False])).tolist() == pytest.approx([-1, 0.5, 0.1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "best"}, "choose one of core, peeling, deviation, paper$"),
        ({"k": 0.0}, "k is 0.0"),
        ({"least": 1.01}, "least is 1.01"),
        ({"least": -1.01}, "least is -1.01"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(SettingsError, match=message):
        Verify(**change)


def test_settings_at_the_ends_of_their_ranges():
    assert Verify(k=0.01).threshold == 0.01
    assert [Verify(least=least).least for least in (-1, 1)] == [-1, 1]


@pytest.mark.parametrize("rule", ["core", "peeling"])
def test_a_photo_at_the_limit_itself_stays(rule):
    """Three photos alike by 1 and one by 0.5 of that, exactly in binary."""
    likeness = np.full((4, 4), 1.0)
    likeness[3] = likeness[:, 3] = 0.5
    middle = {"core": 1.0, "peeling": (1 + 1 + 0.5) / 3}[rule]
    assert Verify(rule, k=0.5 / middle).kept(likeness).all()
