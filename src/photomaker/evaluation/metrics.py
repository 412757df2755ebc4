"""Metrics as pure functions from embeddings and labels to figures, without models or files.

Embeddings are unit vectors [n, width]. A row of zeros means "no face was found": every cosine with it is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photomaker.errors import SettingsError

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]


LOWEST_FLOOR = 0.01
"""Mean cosine with strangers below which a multiple of it is meaningless."""


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        value: The figure on all people; None if it is undefined (a ratio over what is not positive).
        low: Lower end of the interval; None if it is undefined.
        high: Upper end of the interval; None if it is undefined.
        people: How many people (or pairs) were resampled.
    """

    value: float | None
    low: float | None
    high: float | None
    people: int


@dataclass(frozen=True)
class Point:
    """One setting of a sweep, with what it reached.

    Attributes:
        merge: Share of the steps that use the text-only prompt, 0..1.
        guidance: Guidance scale; None stands for the method's own default.
        likeness: Mean cosine to unseen photos, -1..1.
        accuracy: Prompt accuracy, 0..1.
    """

    merge: float
    guidance: float | None
    likeness: float
    accuracy: float


def cosine_matrix(first: Floats, second: Floats) -> Floats:
    """Cosine of every row of one array with every row of another.

    cos(a, b) = a.b / (|a| |b|), and 0 where either row is all zeros.

    Args:
        first: [n, width], any length of rows.
        second: [m, width].

    Returns:
        [n, m], each in -1..1.

    Raises:
        ValueError: The arrays are not two-dimensional or differ in width.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:  # noqa: PLR2004
        raise ValueError(
            f"embeddings have shapes {first.shape} and {second.shape}; give [n, width] and [m, width]"
        )
    return _unit(first) @ _unit(second).T


def mean_cosine(pictures: Floats, photos: Floats) -> Floats:
    """Mean cosine of each picture with a person's photos.

    c_i = mean over j of cos(picture_i, photo_j), over the photos in which a face was found; a picture
    without a face has c_i = 0, and so has every picture when no photo shows a face.

    Args:
        pictures: [n, width]; zero rows are pictures without a face.
        photos: [m, width]; zero rows are photos without a face and are left out.

    Returns:
        [n], each in -1..1.

    Raises:
        ValueError: The arrays are not two-dimensional or differ in width.
    """
    usable = photos[np.any(photos != 0, axis=1)]
    if len(usable) == 0:
        return np.zeros(len(pictures))
    return cosine_matrix(pictures, usable).mean(axis=1)


def copy_paste(pictures: Floats, references: Floats, unseen: Floats) -> Floats:
    """How much more similar pictures are to their reference photos than to other photos of the same person.

    cp_i = mean cos(picture_i, references) - mean cos(picture_i, unseen photos). A method that has learned the
    person has cp near 0; one that copies its references has a high cp. It is 0 where either set shows no face.

    Args:
        pictures: [n, width].
        references: [m, width] photos the method was given.
        unseen: [k, width] photos it was not given.

    Returns:
        [n], each in -2..2.

    Raises:
        ValueError: The arrays are not two-dimensional or differ in width.
    """
    if not (np.any(references) and np.any(unseen)):
        return np.zeros(len(pictures))
    return mean_cosine(pictures, references) - mean_cosine(pictures, unseen)


def centroids(photos: Floats) -> Floats:
    """One gallery vector for each person: the mean of their photo embeddings, scaled to length 1.

    Args:
        photos: [people, photos, width]; zero rows (no face) do not contribute.

    Returns:
        [people, width] unit vectors; zeros for a person without any face.

    Raises:
        ValueError: The array is not three-dimensional.
    """
    if photos.ndim != 3:  # noqa: PLR2004
        raise ValueError(f"photos have shape {photos.shape}; give [people, photos, width]")
    return _unit(photos.sum(axis=1))


def retrieved(pictures: Floats, gallery: Floats, owners: Integers) -> Bools:
    """Whether the nearest person of a gallery is the right one (top-1).

    Args:
        pictures: [n, width]; a zero row (no face) is never a hit.
        gallery: [people, width].
        owners: [n] row in the gallery of the person each picture shows.

    Returns:
        [n] bool. Ties go to the lower row of the gallery.

    Raises:
        ValueError: The arrays do not fit together.
    """
    if len(owners) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures have {len(owners)} owners; give one owner a picture")
    nearest = cosine_matrix(pictures, gallery).argmax(axis=1)
    return (nearest == owners) & np.any(pictures != 0, axis=1)


def stranger_cosine(pictures: Floats, galleries: Floats, person: int, classes: Sequence[str]) -> Floats:
    """Mean cosine of each picture with photos of other people of the same class: the floor of likeness.

    Args:
        pictures: [n, width] pictures of one person.
        galleries: [people, photos, width] unseen photos of everybody.
        person: Row of the person in `galleries`.
        classes: Class of everybody.

    Returns:
        [n]; zeros if nobody else has that class.

    Raises:
        ValueError: The arrays do not fit together.
    """
    others = [row for row, name in enumerate(classes) if name == classes[person] and row != person]
    if not others:
        return np.zeros(len(pictures))
    return mean_cosine(pictures, galleries[others].reshape(-1, galleries.shape[2]))


def face_diversity(pictures: Floats) -> float:
    """Mean pairwise distance 1 - cos between pictures, over those with a face.

    The paper's Face Div is the mean pairwise LPIPS of face crops; this is its cheap relative on recogniser
    embeddings, so the two are not comparable.

    Args:
        pictures: [n, width].

    Returns:
        A number in 0..2; 0 for fewer than two faces.
    """
    faces = pictures[np.any(pictures != 0, axis=1)]
    if len(faces) < 2:  # noqa: PLR2004
        return 0.0
    upper = np.triu_indices(len(faces), k=1)
    return float(1.0 - cosine_matrix(faces, faces)[upper].mean())


def ratio_of_means(numerator: Floats, denominator: Floats) -> float:
    """Mean of one array over the mean of another; nan if the denominator's mean is not positive.

    The ratio of means and not the mean of ratios, where a person with a tiny ceiling would decide the figure.
    """
    below = float(np.mean(denominator))
    return float(np.mean(numerator)) / below if below > 0 else float("nan")


def times_floor(likeness: Floats, floor: Floats) -> float:
    """Mean likeness in multiples of the mean floor, where a floor below 0.01 counts as 0.01.

    Cosines of strangers scatter around 0, where a plain ratio has no meaning; so this is never too high a multiple.
    """
    return float(np.mean(likeness)) / max(float(np.mean(floor)), LOWEST_FLOOR)


def accuracy_by_attribute(correct: Floats, stated: Floats) -> Floats:
    """Accuracy of each attribute over everybody.

    accuracy_a = sum over people of correct[p, a] / sum over people of stated[p, a].

    Args:
        correct: [people, attributes] how often the classifier saw what the prompt states.
        stated: [people, attributes] how often prompts stated the attribute.

    Returns:
        [attributes] in 0..1; nan for an attribute that no prompt stated.
    """
    total = stated.sum(axis=0).astype(float)
    return np.divide(correct.sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)


def prompt_accuracy(correct: Floats, stated: Floats) -> float:
    """Mean over attributes of `accuracy_by_attribute`: each counts the same, however often it is stated."""
    return float(np.nanmean(accuracy_by_attribute(correct, stated)))


def is_monotone(curve: Floats, *, rising: bool) -> bool:
    """Whether every step of a curve [k] goes strictly up (or strictly down)."""
    steps = np.diff(curve)
    return bool(np.all(steps > 0) if rising else np.all(steps < 0))


def monotone_share(curves: Floats, *, rising: bool) -> float:
    """Share of the rows of [n, k] that are strictly monotone, 0..1."""
    return float(np.mean([is_monotone(row, rising=rising) for row in curves]))


def bootstrap(
    statistic: Callable[..., float], *columns: Floats, samples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of a statistic, resampling people with all their data.

    Args:
        statistic: Takes the arrays (with people resampled along the first axis) and returns one number.
        *columns: Arrays whose first axis is people, all of one length.
        samples: Number of resamples, 1 or more.
        seed: Seed of the resampling; the same seed gives the same interval.
        level: Share of the resamples inside the interval, between 0 and 1.

    Returns:
        The statistic on everybody, with the interval; resamples where it is undefined (nan) are left out.

    Raises:
        ValueError: No people, arrays of different lengths, or `samples` or `level` out of range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (the percentile interval).
    """
    found = draws(statistic, *columns, samples=samples, seed=seed)
    return interval(float(statistic(*columns)), found, len(columns[0]), level)


def draws(statistic: Callable[..., float], *columns: Floats, samples: int = 2000, seed: int = 0) -> Floats:
    """The statistic on each of the bootstrap's resamples, [samples]; nan if it is undefined.

    Args:
        statistic: As `bootstrap`.
        *columns: Arrays whose first axis is people, all of one length.
        samples: Number of resamples, 1 or more.
        seed: Seed of the resampling; with one seed two statistics see the same people drawn.

    Raises:
        ValueError: No people, arrays of different lengths, or `samples` out of range.
    """
    people = len(columns[0]) if columns else 0
    if people == 0 or any(len(column) != people for column in columns):
        raise ValueError(
            f"arrays have lengths {[len(c) for c in columns]}; give one row a person, at least one"
        )
    if samples < 1:
        raise ValueError(f"samples is {samples}; give 1 or more")
    rng = np.random.default_rng(seed)
    found = np.empty(samples)
    for index in range(samples):
        chosen = rng.integers(0, people, people)
        found[index] = statistic(*(column[chosen] for column in columns))
    return found


def interval(
    value: float, found: Floats, people: int, level: float = 0.95, *, recentre: bool = False
) -> Interval:
    """The percentile interval of resampled values around a figure.

    Args:
        value: The figure on everybody.
        found: [samples] what `draws` gives; nan is left out.
        people: How many people were resampled.
        level: Share of the resamples inside the interval, between 0 and 1.
        recentre: Whether to move the resamples so that their mean is `value`. Distances between sets of pictures grow
            when people are drawn twice, so their percentiles alone would lie above the figure.

    Returns:
        The interval; all None if the figure is undefined.

    Raises:
        ValueError: `level` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a share between 0 and 1")
    usable = found[~np.isnan(found)]
    if len(usable) == 0 or np.isnan(value):
        return Interval(None, None, None, people)
    shifted = usable - usable.mean() + value if recentre else usable
    tail = (1 - level) / 2
    low, high = np.quantile(shifted, [tail, 1 - tail])
    return Interval(value, float(low), float(high), people)


def frechet_distance(first: Floats, second: Floats) -> float:
    """Frechet distance between two sets of features as if each were normally distributed (FID).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), with means m and covariances C (n - 1 in the denominator). The trace
    of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric, so that no
    complex numbers appear. With fewer pictures than features the covariances are singular and the figure is biased
    upwards; it can then only be compared between sets of one size.

    Args:
        first: [n, width] features, n at least 2.
        second: [m, width] features, m at least 2.

    Returns:
        A number from 0 up.

    Raises:
        ValueError: The arrays do not fit together or have fewer than two rows.

    Source: Heusel et al., arXiv 1706.08500, equation 6.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:  # noqa: PLR2004
        raise ValueError(f"features have shapes {first.shape} and {second.shape}; give [n, width] twice")
    if min(len(first), len(second)) < 2:  # noqa: PLR2004
        raise ValueError(f"there are {len(first)} and {len(second)} pictures; give at least two of each")
    first, second = first.astype(float), second.astype(float)
    shift = first.mean(0) - second.mean(0)
    one, two = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ two @ root)
    trace = np.trace(one) + np.trace(two) - 2 * np.sqrt(np.clip(middle, 0, None)).sum()
    return max(0.0, float(shift @ shift + trace))


def kernel_distance(first: Floats, second: Floats) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / width + 1)^3, unbiased (KID).

    Over all pairs at once, where the usual practice is a mean over random subsets; both estimate the same.

    Args:
        first: [n, width] features, n at least 2.
        second: [m, width] features, m at least 2.

    Returns:
        A number around 0 for sets of one kind; it can be a little below 0.

    Raises:
        ValueError: The arrays do not fit together or have fewer than two rows.

    Source: Binkowski et al., arXiv 1801.01401, section 4.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:  # noqa: PLR2004
        raise ValueError(f"features have shapes {first.shape} and {second.shape}; give [n, width] twice")
    n, m = len(first), len(second)
    if min(n, m) < 2:  # noqa: PLR2004
        raise ValueError(f"there are {n} and {m} pictures; give at least two of each")
    first, second = first.astype(float), second.astype(float)

    def kernel(one: Floats, two: Floats) -> Floats:
        return (one @ two.T / one.shape[1] + 1) ** 3

    own, other = kernel(first, first), kernel(second, second)
    inside = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(inside - 2 * kernel(first, second).mean())


def choose(points: Sequence[Point], bar: float) -> Point:
    """The setting to use: the best likeness among those whose prompt accuracy reaches the bar.

    If none reaches it, the one with the best prompt accuracy. Ties go to the earlier point.

    Args:
        points: The settings tried, at least one.
        bar: Prompt accuracy to reach, 0..1.

    Raises:
        SettingsError: There is no point.
    """
    if not points:
        raise SettingsError("the sweep has no settings; give at least one merge step")
    good = [point for point in points if point.accuracy >= bar]
    return (
        max(good, key=lambda point: point.likeness) if good else max(points, key=lambda point: point.accuracy)
    )


def _unit(rows: Floats) -> Floats:
    """Rows scaled to length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows, dtype=float), where=lengths > 0)
