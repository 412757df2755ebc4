"""The photo coach: checks photos before drawing, and says which to keep or drop, why, and what to do.

Thresholds were chosen on drawn people with planted faults, by `scripts/calibrate_coach.py`; benchmarks/photos.md has
what they reach on others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from photomaker.images import Photo
from photomaker.studio.photos import face_backends
from photomaker.studio.photos.covered import margins
from photomaker.studio.photos.sitting import MOST, Sitting, faces_in, persons

if TYPE_CHECKING:
    from photomaker.faces import Detector, Recogniser
    from photomaker.types import Face, Reference

NO_FACE, SEVERAL, SMALL, CUT, BLURRED = "no face", "several faces", "small face", "cut off", "blurred"
DARK, BRIGHT, TURNED, GREY = "dark", "blown out", "turned away", "black and white"
SUNGLASSES, MASK, COVERED = "sunglasses", "mask", "covered"
DUPLICATE, STRANGER, FEW, LYING = "near duplicate", "another person", "few photos", "not upright"
ALIKE = "all from one side"
GRAVE = frozenset({NO_FACE, SMALL, CUT, BLURRED, MASK, COVERED, DUPLICATE, STRANGER})
"""Findings for which a photo is dropped; the others are only reported."""

POOR = frozenset({SMALL, CUT, BLURRED, DARK, BRIGHT, MASK, COVERED, TURNED})
"""Findings that prevent comparing a face."""

CHIP = 128
"""Side in pixels at which faces are judged: about what an image encoder sees of one."""
LEAST_FACE = 56.0
"""Pixels of a face's longer side."""
SHARP = 0.0032
"""Fine detail of a face over the variance of its brightness, below which it is blurred."""
DIM, PALE, CLIPPED = 64.0, 125.0, 0.25
"""Brightness in 0..255: a face is too dark if its brightest parts are below the first, whatever its skin, and blown out
if its darkest are above the second or so much of it is white."""
TURN, FRONTAL = 40.0, 8.0
"""Degrees from which a face is turned away, and up to which it is seen from the front; see `turn`."""
NOSE = 0.4
"""How far the nose is before the eyes, in distances between the eyes: what generic models of a head have."""
BORDER, SURE = 0.35, 0.5
"""Border around a photo in which no face was found, as a share of its sides; score from which a face there counts."""
EYES, SHADE, MOUTH, WARM = 0.05, 0.9, 0.5, 0.03
"""Share of the places around the eyes that look like the cheeks, below which something covers the eyes, and brightness
of the brightest of them over the cheeks' that says the same; share of the places around the mouth that are warm, below
which something covers it; and how much redder than blue, in shares of the brightness, skin is at least."""
UNSURE = -4.0
"""Margin of the mouth of a drawn face, below which colours alone are not believed: beards are not warm either."""
EDGE = 0.01
"""Room between a face's box and the edge of the photo, in longer sides of the box, below which the face is cut off."""
COLOUR = 4.0
"""Median difference of the colour channels in 0..255 below which a photo has no colour."""
TWIN = 9.0
"""Mean difference of two faces at 32 x 32 pixels, brightness and contrast set equal, that are one photo twice."""
ODD = 0.5
"""Likeness to the other photos over the median of all, below which a photo shows somebody else."""
ENOUGH = 3
"""Below this number, more photos would help."""

_REMEDIES = {
    NO_FACE: "leave it out, or give one with a large face seen from the front",
    SEVERAL: "the face that matches the other photos is used; crop the photo if it is the wrong one",
    SMALL: "give a closer photo, or a larger file of this one",
    CUT: "give a photo with the whole face and some room around it",
    BLURRED: "give a sharper one",
    DARK: "give one with more light on the face",
    BRIGHT: "give one with less light on the face",
    LYING: "it is rotated for use; rotate the file to be sure",
    TURNED: "give one seen more from the front",
    SUNGLASSES: "give one that shows the eyes",
    MASK: "give one that shows the whole face",
    COVERED: "give one that shows the whole face",
    GREY: "give one in colour, or the pictures may lose theirs",
    DUPLICATE: "it adds nothing; give one from a different angle, or with a different expression",
    STRANGER: "leave it out if it is somebody else",
    ALIKE: "add one that is turned the other way",
    FEW: "three to five photos, from several angles and in different light, improve the likeness",
}


@dataclass(frozen=True)
class Finding:
    """A finding about a photo, or about all of them.

    Attributes:
        kind: What it is, for programs.
        text: What was seen, with the figure.
        remedy: What to do.
    """

    kind: str
    text: str
    remedy: str

    @property
    def grave(self) -> bool:
        """Whether to drop the photo."""
        return self.kind in GRAVE


@dataclass(frozen=True)
class Judged:
    """A photo with its findings.

    Attributes:
        photo: The photo.
        face: The person's face; None if there is none.
        findings: What there is to say.
        likeness: Mean likeness to the other photos; None if nothing compares faces, or there are no others.
        worth: Likeness that the others' mean face loses without this photo: above 0 it helps, below it harms.
    """

    photo: Photo
    face: Face | None
    findings: tuple[Finding, ...] = ()
    likeness: float | None = None
    worth: float | None = None

    @property
    def keep(self) -> bool:
        """Whether to use it."""
        return not any(one.grave for one in self.findings)


@dataclass(frozen=True)
class Report:
    """The coach's report.

    Attributes:
        photos: One by one, in the order in which they were given.
        findings: About all of them.
    """

    photos: tuple[Judged, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def kept(self) -> tuple[Judged, ...]:
        """The photos to use."""
        return tuple(one for one in self.photos if one.keep)

    @property
    def text(self) -> str:
        """A line for each photo, and one for each finding about all of them."""
        lines = [f"{len(self.kept)} of {len(self.photos)} photos to keep"]
        for one in self.photos:
            said = "; ".join(f"{finding.text}: {finding.remedy}" for finding in one.findings) or "good"
            lines.append(f"{one.photo.name} ({'keep' if one.keep else 'drop'}): {said}")
        return "\n".join([*lines, *(f"{one.text}: {one.remedy}" for one in self.findings)])

    def as_json(self) -> dict[str, Any]:
        """Plain data."""

        def told(findings: Sequence[Finding]) -> list[dict[str, str]]:
            return [{"kind": one.kind, "text": one.text, "remedy": one.remedy} for one in findings]

        return {
            "photos": [
                {
                    "name": one.photo.name,
                    "sha256": one.photo.sha256,
                    "keep": one.keep,
                    "face": None if one.face is None else [round(float(edge), 1) for edge in one.face.box],
                    "likeness": None if one.likeness is None else round(one.likeness, 3),
                    "worth": None if one.worth is None else round(one.worth, 3),
                    "findings": told(one.findings),
                }
                for one in self.photos
            ],
            "findings": told(self.findings),
            "kept": len(self.kept),
        }


@dataclass
class _Seen:
    photo: Photo
    faces: list[Face]
    embeddings: np.ndarray | None
    drawn: bool = False
    place: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def face(self) -> Face | None:
        return self.faces[self.place] if self.faces else None

    @property
    def grave(self) -> bool:
        return any(finding.grave for finding in self.findings)

    def say(self, kind: str, text: str, remedy: str | None = None) -> None:
        self.findings.append(Finding(kind, text, remedy or _REMEDIES[kind]))


def coached(photos: Sequence[Photo], detector: Detector, recogniser: Recogniser | None = None) -> Report:
    """Check a person's photos.

    Args:
        photos: At least one.
        detector: Finds faces.
        recogniser: Compares them; None leaves out what needs comparing.
    """
    seen = [_look(photo, detector, recogniser) for photo in photos]
    places = persons([one.embeddings for one in seen], [[face.area for face in one.faces] for one in seen])
    for one, place in zip(seen, places, strict=True):
        one.place = place
    for one in seen:
        _judge(one, len(seen) > 1 and recogniser is not None)
    likeness, worth = _compare(seen)
    _twins(seen)
    judged = tuple(
        Judged(one.photo, one.face, tuple(one.findings), like, value)
        for one, like, value in zip(seen, likeness, worth, strict=True)
    )
    kept = [one for one in judged if one.keep]
    if len(kept) < ENOUGH:
        few = Finding(FEW, f"{len(kept)} of {len(judged)} photos are good", _REMEDIES[FEW])
        return Report(judged, (few,))
    return Report(judged, _sides([turn(one.face) for one in kept if one.face is not None]))


def _sides(turns: Sequence[float]) -> tuple[Finding, ...]:
    """Whether all photos are seen from one side, by the turns of their faces in degrees."""
    if all(abs(one) <= FRONTAL for one in turns):
        text = "all photos are seen from the front"
        return (Finding(ALIKE, text, "add one from each side, and the likeness holds in more poses"),)
    for way, sign in (("right", 1), ("left", -1)):
        if all(sign * one > FRONTAL for one in turns):
            return (Finding(ALIKE, f"in all photos the face is turned to the {way}", _REMEDIES[ALIKE]),)
    return ()


def advised(sitting: Sitting, recogniser: Recogniser | None = None) -> Sitting:
    """A sitting with what there is to say of its photos among its notes; of more than `MOST`, the best alone.

    Args:
        sitting: Photos whose faces were found; one that was taken as it is stays as it is.
        recogniser: Compares faces; None leaves out what needs comparing.
    """
    references = sitting.references
    if any(one.face is None for one in references):
        return sitting
    seen = [_known(one, recogniser) for one in references]
    for one in seen:
        _judge(one, len(seen) > 1 and recogniser is not None)
    _compare(seen)
    _twins(seen)
    if len(seen) <= MOST:
        said = [
            f"{one.photo.name}: {finding.text}; {finding.remedy}" for one in seen for finding in one.findings
        ]
        return replace(sitting, notes=(*sitting.notes, *said))
    places = best(seen)
    chosen = tuple(references[at] for at in places)
    return Sitting(chosen, (*_of_these(sitting.notes, references, places), _why(seen, places)))


def _known(reference: Reference, recogniser: Recogniser | None) -> _Seen:
    assert reference.face is not None
    photo = Photo(reference.image, reference.name or "the photo", reference.sha256)
    embeddings = None if recogniser is None else recogniser.embed_batch([photo.image], [reference.face])
    return _Seen(
        photo, [reference.face], embeddings, getattr(recogniser, "name", "") == face_backends.BUNDLED
    )


def best(seen: Sequence[_Seen]) -> list[int]:
    """Places of the `MOST` photos to use: none that is better left out, if that leaves enough.

    Taken one by one, so that the mean of the faces that are taken stays nearest to the mean of all; by the size of the
    face where nothing compares them.
    """
    good = [at for at, one in enumerate(seen) if not one.grave]
    places = good if len(good) >= ENOUGH else list(range(len(seen)))
    if any(one.embeddings is None for one in seen):
        return sorted(sorted(places, key=lambda at: -seen[at].faces[0].area)[:MOST])
    faces = np.stack([seen[at].embeddings[0] for at in places])  # type: ignore[index]
    taken: list[int] = []
    aim, total = faces.mean(0), np.zeros(faces.shape[1])
    for _ in range(min(MOST, len(places))):
        means = total + faces
        nearness = means @ aim / np.maximum(np.linalg.norm(means, axis=1), 1e-9)
        nearness[taken] = -np.inf
        taken.append(int(nearness.argmax()))
        total = total + faces[taken[-1]]
    return sorted(places[at] for at in taken)


def _why(seen: Sequence[_Seen], places: Sequence[int]) -> str:
    """One sentence: how many photos are used, and why the others are not."""
    kinds = Counter(
        next(finding.kind for finding in one.findings if finding.grave) for one in seen if one.grave
    )
    left = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    rest = len(seen) - kinds.total() - len(places)
    parts = [f"{kinds.total()} should be left out ({left})"] if kinds else []
    if rest > 0:
        parts.append(f"the faces of the other {rest} add the least")
    return f"the best {len(places)} of {len(seen)} photos are used: {' and '.join(parts)}"


def _of_these(
    notes: Sequence[str], references: Sequence[Reference], places: Sequence[int]
) -> tuple[str, ...]:
    """The notes without those about unused photos."""
    unused = {one.name for at, one in enumerate(references) if at not in set(places)}
    return tuple(note for note in notes if not any(note.startswith(f"{name} ") for name in unused))


# ---- one photo


def _look(photo: Photo, detector: Detector, recogniser: Recogniser | None) -> _Seen:
    upright, faces = faces_in(photo, detector)
    lying = upright.image.size != photo.image.size or upright.notes != photo.notes
    faces = faces or _hidden(photo.image, detector)
    photo = upright
    embeddings = None
    if faces and recogniser is not None:
        embeddings = recogniser.embed_batch([photo.image] * len(faces), faces)
    seen = _Seen(photo, faces, embeddings, detector.name == face_backends.BUNDLED)
    if lying:
        seen.say(LYING, "it is on its side or upside down")
    return seen


def _hidden(image: Image.Image, detector: Detector) -> list[Face]:
    """Faces that are found only in better light, or with room around the photo: what is wrong can then be said."""
    lit = ImageOps.autocontrast(image.convert("RGB"), cutoff=1)
    faces = detector.detect(lit)
    if faces:
        return faces
    wide, high = (round(side * BORDER) for side in image.size)
    framed = np.pad(np.asarray(lit), ((high, high), (wide, wide), (0, 0)), mode="edge")
    limits = np.array([image.width, image.height] * 2)
    moved = []
    for face in detector.detect(Image.fromarray(framed)):
        box = np.clip(np.asarray(face.box) - np.array([wide, high] * 2), 0, limits)
        moved.append(
            replace(face, box=tuple(box.tolist()), landmarks=face.landmarks - np.array([wide, high]))
        )
    return [face for face in moved if face.area > 0 and face.score >= SURE]


def _judge(one: _Seen, compared: bool) -> None:
    face, image = one.face, one.photo.image
    if face is None:
        one.say(NO_FACE, "no face was found")
        return
    if len(one.faces) > 1:
        largest = "the largest is taken; cut the others off if it is the wrong one"
        one.say(SEVERAL, f"it shows {len(one.faces)} faces", None if compared else largest)
    longer = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    if longer < LEAST_FACE:
        one.say(SMALL, f"the face is {longer:.0f} pixels large, {LEAST_FACE:.0f} are needed")
    if room(image, face) < EDGE:
        one.say(CUT, "the face is cut off by the edge of the photo")
    chip = face_chip(image, face)
    if longer >= LEAST_FACE and fineness(chip) < SHARP:
        one.say(BLURRED, "the face is blurred")
    lowest, highest, burnt = brightness(chip)
    if highest < DIM:
        one.say(DARK, f"the face is dark (its brightest parts are {highest:.0f} of 255)")
    elif lowest > PALE or burnt > CLIPPED:
        one.say(
            BRIGHT,
            f"the face is blown out (its darkest parts are {lowest:.0f} of 255, {100 * burnt:.0f} % is white)",
        )
    if abs(turned := turn(face)) > TURN:
        one.say(TURNED, f"the face is turned away, by about {abs(turned):.0f} degrees")
    lit = highest >= DIM and lowest <= PALE
    _judge_colour(one, image, face if lit and longer >= LEAST_FACE else None)


def _judge_colour(one: _Seen, image: Image.Image, face: Face | None) -> None:
    """Findings from colours; None if the face is too unclear to tell it from what covers it."""
    if colour(image) < COLOUR:
        one.say(GREY, "the photo has no colour")
    elif face is not None:
        eyes, mouth = bare(image, face)
        if eyes < EYES:
            one.say(SUNGLASSES, "something dark covers the eyes")
        seen = margins(image, face) if one.drawn else {}
        if mouth < MOUTH and seen.get("mouth", 0.0) > UNSURE:
            one.say(MASK, "something covers the mouth")
        if seen and not POOR & {finding.kind for finding in one.findings}:
            _judge_hidden(one, seen)


def _judge_hidden(one: _Seen, seen: dict[str, float]) -> None:
    """What the points of a drawn face do not tell: that it is turned far away, or what is before it."""
    known = {finding.kind for finding in one.findings}
    turned = seen.pop("turned") > 0
    covered = max(seen.values()) > 0 and SUNGLASSES not in known
    if covered:
        one.say(COVERED, "something is before the face")
    if turned:
        one.say(TURNED, "or it is turned far away" if covered else "the face is turned far away")


def face_chip(image: Image.Image, face: Face) -> np.ndarray:
    """The middle of a face at `CHIP` pixels: uint8 [128, 128, 3]."""
    x0, y0, x1, y1 = face.box
    inset_x, inset_y = 0.1 * (x1 - x0), 0.1 * (y1 - y0)
    box = (x0 + inset_x, y0 + inset_y, x1 - inset_x, y1 - inset_y)
    return np.asarray(image.convert("RGB").resize((CHIP, CHIP), Image.Resampling.BOX, box=box))


def fineness(chip: np.ndarray) -> float:
    """Fine detail of a face, over the variance of its brightness."""
    grey = chip.astype(float).mean(2)
    around = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    return float(np.square(grey[1:-1, 1:-1] - around).mean() / max(grey.var(), 1.0))


def brightness(chip: np.ndarray) -> tuple[float, float, float]:
    """Brightness of a face's darkest and brightest fiftieth, and its share of burnt-out pixels."""
    grey = chip.astype(float).mean(2)
    lowest, highest = np.quantile(grey, [0.02, 0.98])
    return float(lowest), float(highest), float((chip.min(2) >= 250).mean())  # noqa: PLR2004 - all but white


def turn(face: Face) -> float:
    """How far a face is turned, in degrees, to the right of the picture above 0.

    With d the way of the nose from the middle between the eyes, across the face and in distances between the eyes, the
    turn is atan(d / NOSE): the eyes come nearer to each other by its cosine, and the nose moves by its sine. Of dlib's
    points the nose's is its foot, which is nearer to the eyes, so that what is told as 40 degrees is some 50 there.
    """
    left, right, nose = (np.asarray(point, float) for point in face.landmarks[:3])
    across = right - left
    moved = float((nose - (left + right) / 2) @ across) / max(float(across @ across), 1e-6)
    return float(np.degrees(np.arctan(moved / NOSE)))


def bare(image: Image.Image, face: Face) -> tuple[float, float]:
    """How much of a face is skin where sunglasses and masks sit, by colour alone.

    Returns:
        Share of the places around the eyes that are like the cheeks, 0 where even the brightest are darker; and share
        of those around the mouth that are as warm as skin, 1 in a light in which the brow is not warm either.
    """
    pixels = np.asarray(image.convert("RGB")).astype(float)
    left, right, _, *corners = (np.asarray(point, float) for point in face.landmarks)
    eyes, mouth = (left + right) / 2, (corners[0] + corners[1]) / 2
    size = max(float(np.linalg.norm(right - left)), 1e-6)
    across, down = (right - left) / size, (mouth - eyes) / max(float(np.linalg.norm(mouth - eyes)), 1e-6)

    def grab(centre: np.ndarray, wide: float, high: float) -> np.ndarray:
        x, y = np.meshgrid(np.linspace(-wide, wide, 24), np.linspace(-high, high, 24))
        places = (centre + size * (x[..., None] * across + y[..., None] * down)).round().astype(int)
        rows = np.clip(places[..., 1], 0, pixels.shape[0] - 1)
        found: np.ndarray = pixels[rows, np.clip(places[..., 0], 0, pixels.shape[1] - 1)].reshape(-1, 3)
        return found

    cheeks = np.concatenate([grab(eye + 0.55 * size * down, 0.15, 0.1) for eye in (left, right)])
    sockets = np.concatenate([grab(eye, 0.25, 0.2) for eye in (left, right)])
    around = grab(mouth, 0.4, 0.3)
    brow = [np.median(grab(eyes - up * size * down, 0.12, 0.12), 0, keepdims=True) for up in (0.2, 0.35)]
    warm = max(float(_warmth(one)[0]) for one in brow) > WARM
    shown = float((_warmth(around) > WARM).mean()) if warm else 1.0
    cheek = np.median(cheeks, 0)
    shaded = float(np.quantile(sockets.mean(1), 0.9)) < SHADE * float(cheek.mean())
    return 0.0 if shaded else float(_alike(sockets, cheek).mean()), shown


def _shares(pixels: np.ndarray) -> np.ndarray:
    shares: np.ndarray = pixels / np.maximum(pixels.sum(-1, keepdims=True), 1)
    return shares


def _alike(pixels: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Which pixels are of a colour, in any light that a face may have."""
    light = pixels.mean(1) / max(float(skin.mean()), 1.0)
    apart = np.abs(_shares(pixels) - _shares(skin)).sum(1)
    alike: np.ndarray = (apart < 0.12) & (light > 0.55) & (light < 1.6)  # noqa: PLR2004
    return alike


def _warmth(pixels: np.ndarray) -> np.ndarray:
    shares = _shares(pixels)
    warmth: np.ndarray = shares[:, 0] - shares[:, 2]
    return warmth


def colour(image: Image.Image) -> float:
    """Median difference of the colour channels."""
    small = np.asarray(image.convert("RGB").resize((64, 64))).astype(float)
    return float(np.median(small.max(2) - small.min(2)))


def room(image: Image.Image, face: Face) -> float:
    """Room between the face's box and the nearest edge of the photo, in longer sides of the box."""
    x0, y0, x1, y1 = (float(edge) for edge in face.box)
    return min(x0, y0, image.width - x1, image.height - y1) / max(x1 - x0, y1 - y0, 1e-6)


# ---- photos beside each other


def _compare(seen: Sequence[_Seen]) -> tuple[list[float | None], list[float | None]]:
    """Likeness of each photo to the others and what it is worth; strangers are reported."""
    places = [at for at, one in enumerate(seen) if one.faces and one.embeddings is not None]
    likeness: list[float | None] = [None] * len(seen)
    worth: list[float | None] = [None] * len(seen)
    if len(places) < 2:  # noqa: PLR2004
        return likeness, worth
    faces = np.stack([seen[at].embeddings[seen[at].place] for at in places])  # type: ignore[index]
    cosines = faces @ faces.T
    others = ~np.eye(len(faces), dtype=bool)
    means = (cosines * others).sum(1) / others.sum(1)
    for at, value in zip(places, means.tolist(), strict=True):
        likeness[at] = value
    for at, value in zip(places, worths(faces).tolist(), strict=True):
        worth[at] = value
    if len(places) >= ENOUGH:
        limit = ODD * float(np.median(means))
        odd = [at for at, value in zip(places, means, strict=True) if value < limit]
        for at in odd:
            if POOR & {one.kind for one in seen[at].findings}:
                continue  # a face that is hardly visible is like nobody's
            seen[at].say(
                STRANGER, f"the face does not match those in the other photos (likeness {likeness[at]:.2f})"
            )
    return likeness, worth


def worths(faces: np.ndarray) -> np.ndarray:
    """What each photo is worth, by leaving it out.

    The mean of some photos' faces is worth its mean cosine to all photos but those of which it is made; a photo is
    worth what the mean of all others would lose without it, taken over the others that are left out in turn.

    Args:
        faces: [n, width] embeddings of length 1, n at least 2.

    Returns:
        [n]; 0 if there are only two.
    """
    count = len(faces)
    found = np.zeros(count)
    if count < ENOUGH:
        return found
    for at in range(count):
        with_it, without = [], []
        for target in range(count):
            if target == at:
                continue
            rest = [one for one in range(count) if one != target]
            with_it.append(_to_mean(faces, rest, target))
            without.append(_to_mean(faces, [one for one in rest if one != at], target))
        found[at] = np.mean(with_it) - np.mean(without)
    return found


def _to_mean(faces: np.ndarray, members: Sequence[int], target: int) -> float:
    mean = faces[list(members)].mean(0)
    return float(mean @ faces[target] / max(float(np.linalg.norm(mean)), 1e-9))


def _twins(seen: Sequence[_Seen]) -> None:
    """Report photos whose face is, pixel by pixel, that of an earlier one."""
    earlier: list[tuple[str, np.ndarray]] = []
    for one in seen:
        if one.face is None:
            continue
        points = np.asarray(one.face.landmarks, float)
        eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
        (x, y), half = (eyes + mouth) / 2, 1.1 * float(np.linalg.norm(mouth - eyes))
        place = (x - half, y - half, x + half, y + half)
        grey_photo = one.photo.image.convert("L")
        cut = grey_photo.transform((64, 64), Image.Transform.EXTENT, place, Image.Resampling.BILINEAR)
        grey = np.asarray(cut.resize((32, 32), Image.Resampling.BOX)).astype(float)
        grey = (grey - grey.mean()) / max(float(grey.std()), 1.0) * 50
        twin = next((name for name, known in earlier if np.abs(grey - known).mean() < TWIN), None)
        if twin is None:
            earlier.append((one.photo.name, grey))
        else:
            one.say(DUPLICATE, f"it is nearly the same as {twin}")
