"""The metrics against independent implementations and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import spearmanr

from photomaker.errors import SettingsError
from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Point


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), m=st.integers(1, 6), width=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_cosines_equal_scipys(seed: int, n: int, m: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n, width)), rng.normal(size=(m, width))
    assert np.allclose(metrics.cosine_matrix(first, second), 1 - cdist(first, second, "cosine"))


def test_a_picture_without_a_face_has_cosine_zero_and_a_photo_without_one_is_left_out() -> None:
    rng = np.random.default_rng(0)
    pictures, photos = unit(rng, 3, 5), unit(rng, 4, 5)
    pictures[1] = 0
    with_blank = np.concatenate([photos, np.zeros((2, 5))])
    found = metrics.mean_cosine(pictures, with_blank)
    assert found[1] == 0
    assert np.allclose(found[[0, 2]], (1 - cdist(pictures[[0, 2]], photos, "cosine")).mean(1))
    assert np.all(metrics.mean_cosine(pictures, np.zeros((2, 5))) == 0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        metrics.cosine_matrix(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="people, photos, width"):
        metrics.centroids(np.ones((2, 3)))
    with pytest.raises(ValueError, match="one owner a picture"):
        metrics.retrieved(np.ones((2, 3)), np.ones((4, 3)), np.array([1]))


def test_copy_paste_is_high_for_a_copy_and_zero_for_equal_sets() -> None:
    rng = np.random.default_rng(1)
    references, unseen = unit(rng, 1, 200), unit(rng, 4, 200)
    assert metrics.copy_paste(references, references, unseen)[0] > 0.8
    assert np.allclose(metrics.copy_paste(unseen, references, references), 0)
    assert np.all(metrics.copy_paste(unseen, np.zeros((2, 200)), unseen) == 0)


def test_retrieval_by_hand() -> None:
    gallery = np.eye(4)
    pictures = np.array([[1, 0.2, 0, 0], [1, 0.2, 0, 0], [0, 0, 0, 0], [0, 0, 0.1, 0.9]])
    hits = metrics.retrieved(pictures, gallery, np.array([0, 1, 0, 3]))
    assert hits.tolist() == [True, False, False, True]


def test_centroids_ignore_photos_without_a_face() -> None:
    rng = np.random.default_rng(2)
    photos = unit(rng, 3, 2, 6)
    padded = np.concatenate([photos, np.zeros((3, 1, 6))], axis=1)
    mean = photos.mean(1)
    assert np.allclose(metrics.centroids(padded), mean / np.linalg.norm(mean, axis=1, keepdims=True))
    assert np.all(metrics.centroids(np.zeros((1, 2, 6))) == 0)


def test_strangers_are_others_of_the_same_class() -> None:
    rng = np.random.default_rng(3)
    galleries, pictures = unit(rng, 4, 2, 8), unit(rng, 3, 8)
    classes = ["man", "woman", "man", "man"]
    expected = (1 - cdist(pictures, galleries[[2, 3]].reshape(-1, 8), "cosine")).mean(1)
    assert np.allclose(metrics.stranger_cosine(pictures, galleries, 0, classes), expected)
    assert np.all(metrics.stranger_cosine(pictures, galleries, 1, classes) == 0)


def test_face_diversity_equals_scipys_mean_pairwise_distance() -> None:
    pictures = unit(np.random.default_rng(4), 5, 7)
    with_blank = np.concatenate([pictures, np.zeros((1, 7))])
    assert metrics.face_diversity(with_blank) == pytest.approx(pdist(pictures, "cosine").mean())
    assert metrics.face_diversity(pictures[:1]) == 0


def test_ratio_of_means_is_undefined_over_a_ceiling_of_zero() -> None:
    assert metrics.ratio_of_means(np.array([1.0, 2]), np.array([2.0, 4])) == 0.5
    assert np.isnan(metrics.ratio_of_means(np.array([1.0]), np.array([-1.0])))


def test_a_floor_around_zero_counts_as_a_hundredth() -> None:
    assert metrics.times_floor(np.array([0.6, 0.8]), np.array([0.1, 0.3])) == pytest.approx(3.5)
    assert metrics.times_floor(np.array([0.5]), np.array([-0.2])) == pytest.approx(50)


def test_prompt_accuracy_weighs_attributes_alike() -> None:
    correct, stated = np.array([[10.0, 0, 0], [8, 1, 0]]), np.array([[10.0, 1, 0], [10, 1, 0]])
    by_attribute = metrics.accuracy_by_attribute(correct, stated)
    assert by_attribute[:2].tolist() == [0.9, 0.5]
    assert np.isnan(by_attribute[2])
    assert metrics.prompt_accuracy(correct, stated) == pytest.approx(0.7)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8, unique=True))
def test_monotone_means_rank_correlation_one(curve: list[float]) -> None:
    rank = spearmanr(np.arange(len(curve)), curve).statistic
    assert metrics.is_monotone(np.array(curve), rising=True) == bool(np.isclose(rank, 1))
    assert metrics.is_monotone(np.array(curve), rising=False) == bool(np.isclose(rank, -1))


def test_monotone_share() -> None:
    curves = np.array([[1.0, 2, 3], [1, 3, 2], [3, 2, 1], [0, 1, 1]])
    assert metrics.monotone_share(curves, rising=True) == 0.25
    assert metrics.monotone_share(curves, rising=False) == 0.25


def test_bootstrap_agrees_with_scipys_percentile_interval() -> None:
    rng = np.random.default_rng(5)
    top, bottom = rng.normal(0.6, 0.1, 80), rng.normal(0.8, 0.05, 80)
    ours = metrics.bootstrap(metrics.ratio_of_means, top, bottom, samples=4000)
    theirs = scipy_bootstrap(
        (top, bottom), lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), paired=True, method="percentile",
        n_resamples=4000, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert ours.value == pytest.approx(top.mean() / bottom.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert ours.people == 80


def test_bootstrap_repeats_with_its_seed_and_refuses_nonsense() -> None:
    data = np.random.default_rng(6).normal(size=20)
    assert metrics.bootstrap(np.mean, data, samples=50) == metrics.bootstrap(np.mean, data, samples=50)
    for columns, options in (
        ((), {}),
        ((data, data[:3]), {}),
        ((data,), {"samples": 0}),
        ((data,), {"level": 1}),
    ):
        with pytest.raises(ValueError, match="give"):
            metrics.bootstrap(np.mean, *columns, **options)


def test_everybody_is_drawn_as_often_and_with_a_seed_of_its_own() -> None:
    seen = metrics.draws(lambda who: float((who == 0).mean()), np.arange(5))
    assert len(seen) == 2000
    assert seen.mean() == pytest.approx(1 / 5, abs=0.01)
    assert len(metrics.draws(np.mean, np.arange(5), samples=1)) == 1
    default = metrics.draws(np.mean, np.arange(50.0), samples=20)
    assert np.array_equal(default, metrics.draws(np.mean, np.arange(50.0), samples=20, seed=0))
    found = metrics.bootstrap(np.mean, np.arange(50.0), samples=20, seed=3)
    assert found == metrics.interval(24.5, metrics.draws(np.mean, np.arange(50.0), samples=20, seed=3), 50)
    assert found != metrics.bootstrap(np.mean, np.arange(50.0), samples=20)


def test_an_interval_holds_95_percent_and_moves_to_the_figure_where_asked() -> None:
    found = np.append(np.linspace(0, 100, 1001), np.nan)
    assert metrics.interval(50, found, 7) == metrics.Interval(50, pytest.approx(2.5), pytest.approx(97.5), 7)
    moved = metrics.interval(40, found, 7, recentre=True)
    assert moved == metrics.Interval(40, pytest.approx(-7.5), pytest.approx(87.5), 7)
    one = metrics.interval(1.0, np.array([2.0]), 7)
    assert (one.low, one.high) == (2, 2)
    for value, resamples in ((np.nan, found), (1.0, np.array([np.nan]))):
        assert metrics.interval(value, resamples, 7) == metrics.Interval(None, None, None, 7)
    with pytest.raises(ValueError, match="level is 0"):
        metrics.interval(1, found, 7, 0)


def test_two_faces_have_a_diversity_and_a_falling_curve_may_not_stand_still() -> None:
    faces = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert metrics.face_diversity(faces) == pytest.approx(metrics.face_diversity(faces[::-1]))
    assert np.isfinite(metrics.face_diversity(faces))
    assert not metrics.is_monotone(np.array([3.0, 2.0, 2.0]), rising=False)
    assert not metrics.is_monotone(np.array([2.0, 2.0, 3.0]), rising=True)
    curves = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 4.0]])
    assert metrics.monotone_share(curves, rising=True) == pytest.approx(2 / 3)
    assert metrics.monotone_share(curves, rising=False) == pytest.approx(1 / 3)


def test_an_attribute_that_one_prompt_states_counts() -> None:
    correct, stated = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    found = metrics.accuracy_by_attribute(correct, stated)
    assert found[0] == 1
    assert np.isnan(found[1])


def test_a_setting_at_the_bar_is_good_enough() -> None:
    assert metrics.choose([Point(0, 3, 0.9, 0.93), Point(0.2, 3, 0.7, 0.95)], 0.93).merge == 0
    with pytest.raises(SettingsError, match=r"^the sweep has no settings; give at least one merge step$"):
        metrics.choose([], 0.93)


def test_bootstrap_of_an_undefined_figure_is_undefined() -> None:
    found = metrics.bootstrap(metrics.ratio_of_means, np.ones(3), np.zeros(3), samples=10)
    assert (found.value, found.low, found.high) == (None, None, None)


def test_the_setting_chosen_is_the_likest_that_reaches_the_bar() -> None:
    points = [
        Point(0, 3, 0.9, 0.8),
        Point(0.2, 3, 0.7, 0.95),
        Point(0.3, 3, 0.6, 0.97),
        Point(0.5, 3, 0.1, 0.99),
    ]
    assert metrics.choose(points, 0.93).merge == 0.2
    assert metrics.choose(points, 0.999).merge == 0.5
    with pytest.raises(SettingsError, match="at least one merge step"):
        metrics.choose([], 0.9)
