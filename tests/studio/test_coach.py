"""The coach finds planted faults and leaves good photos alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from photomaker import weights
from photomaker.images import Photo
from photomaker.studio.photos import coach
from photomaker.studio.photos.sitting import choose_faces, persons
from photomaker.synthetic import person, render, view
from photomaker.synthetic.compositions import compose, composition
from photomaker.synthetic.covers import covered

pytestmark = pytest.mark.skipif(not (weights.SMALL / "faces").is_dir(), reason="no bundled weights")
WHO = 3_600_001


@pytest.fixture(scope="module")
def backends():
    from photomaker.faces import BundledFaces, BundledRecogniser

    return BundledFaces.open(), BundledRecogniser.open()


def drawn(index, seed, eyewear="none"):
    seen = view(person(index), seed, style="photo", hat="none", eyewear=eyewear, scene="studio")
    return Image.fromarray(render(person(index), seen, 256).image)


def photo(image, name="odd"):
    return Photo(image.convert("RGB"), name, name)


@pytest.fixture(scope="module")
def good():
    return [photo(drawn(WHO, seed), f"good {seed}") for seed in range(5)]


def pair():
    both = composition(
        person(WHO), 9, person(WHO + 1), style="photo", scene="studio", hat="none", eyewear="none"
    )
    return Image.fromarray(compose(both, 3).image)


def masked():
    seen = view(person(WHO), 9, style="photo", hat="none", eyewear="none", scene="studio")
    made = render(person(WHO), seen, 256)
    nose, mouth = made.landmarks[2], made.landmarks[3:].mean(0)
    size = float(np.linalg.norm(made.landmarks[1] - made.landmarks[0]))
    picture = Image.fromarray(made.image)
    edges = (mouth[0] - size, nose[1] - 0.1 * size, mouth[0] + size, mouth[1] + 0.7 * size)
    ImageDraw.Draw(picture).rectangle(edges, fill="#9cc4e4")
    return picture


def held(cover, part):
    seen = view(person(WHO), 9, style="photo", hat="none", eyewear="none", scene="studio")
    return Image.fromarray(covered(person(WHO), seen, cover, part, 1, 256).image)


def turned():
    seen = view(person(WHO), 9, style="photo", hat="none", eyewear="none", scene="studio")
    return Image.fromarray(render(person(WHO), replace(seen, yaw=1.0), 256).image)


ODD = {
    coach.NO_FACE: lambda: Image.new("RGB", (200, 200), "green"),
    coach.SEVERAL: pair,
    coach.SMALL: lambda: drawn(WHO, 9).resize((100, 100)),
    coach.CUT: lambda: drawn(WHO, 9).crop((0, 0, 256, 140)),
    coach.BLURRED: lambda: drawn(WHO, 9).filter(ImageFilter.GaussianBlur(4)),
    coach.DARK: lambda: ImageEnhance.Brightness(drawn(WHO, 9)).enhance(0.12),
    coach.BRIGHT: lambda: drawn(WHO, 9).point(lambda level: 255 - (255 - level) * 0.3),
    coach.GREY: lambda: drawn(WHO, 9).convert("L"),
    coach.SUNGLASSES: lambda: drawn(WHO, 9, "sunglasses"),
    coach.MASK: masked,
    coach.DUPLICATE: lambda: drawn(WHO, 1).resize((300, 300)),
    coach.STRANGER: lambda: drawn(WHO + 1, 9),
    coach.COVERED: lambda: held("hand", "mouth"),
}  # fmt: skip


def test_good_photos_are_left_alone(backends, good):
    report = coach.coached(good, *backends)
    assert [one.findings for one in report.photos] == [()] * 5
    assert report.findings == ()
    assert len(report.kept) == 5


@pytest.mark.parametrize("kind", ODD)
def test_a_planted_fault_is_told_of_its_photo_alone(backends, good, kind):
    report = coach.coached([*good[:2], photo(ODD[kind]()), *good[2:]], *backends)
    odd = report.photos[2]
    assert kind in {one.kind for one in odd.findings}
    assert odd.keep == (kind not in coach.GRAVE)
    assert not any(one.findings for place, one in enumerate(report.photos) if place != 2)
    told = next(one for one in odd.findings if one.kind == kind)
    assert told.text and told.remedy and told.text[0].islower()


@pytest.mark.parametrize(("cover", "part"), [("hand", "left eye"), ("cup", "mouth"), ("phone", "left eye")])
def test_what_is_held_before_a_face_is_told(backends, good, cover, part):
    odd = coach.coached([*good, photo(held(cover, part))], *backends).photos[-1]
    assert {one.kind for one in odd.findings} & {coach.COVERED, coach.MASK, coach.SUNGLASSES}
    assert not odd.keep or coach.SUNGLASSES in {one.kind for one in odd.findings}


def test_a_face_turned_far_away_is_told(backends, good):
    odd = coach.coached([*good, photo(turned())], *backends).photos[-1]
    assert coach.TURNED in {one.kind for one in odd.findings}


def test_what_is_learned_of_drawn_faces_is_not_used_on_photographs(backends, good):
    class Other(type(backends[0])):
        name = "other"

    report = coach.coached([*good, photo(held("hand", "mouth"))], Other.open(), backends[1])
    assert coach.COVERED not in {one.kind for one in report.photos[-1].findings}


def test_of_two_faces_the_person_of_the_other_photos_is_taken_whoever_is_larger(backends, good):
    detector, recogniser = backends
    report = coach.coached([*good, photo(pair())], *backends)
    face = report.photos[-1].face
    own = np.stack([recogniser.embed(one.photo.image, one.face) for one in report.photos[:-1]]).mean(0)
    faces = detector.detect(report.photos[-1].photo.image)
    assert len(faces) == 2
    likest = max(faces, key=lambda one: float(recogniser.embed(report.photos[-1].photo.image, one) @ own))
    assert face.box == likest.box


def test_persons_by_hand():
    faces = [
        np.array([[1.0, 0.0], [0.0, 1.0]]),
        np.array([[0.0, 1.0]]),
        None,
        np.array([[0.6, 0.8], [0.8, 0.6]]),
    ]
    assert persons(faces, [[9, 1], [1], [], [1, 1]]) == [1, 0, 0, 0]
    assert persons([faces[0], None], [[1, 9], []]) == [1, 0]


def test_without_a_recogniser_what_needs_none_is_told(backends, good):
    report = coach.coached([*good, photo(ODD[coach.STRANGER]()), photo(ODD[coach.BLURRED]())], backends[0])
    assert [one.kind for one in report.photos[5].findings] == []
    assert [one.kind for one in report.photos[6].findings] == [coach.BLURRED]
    assert report.photos[0].likeness is None and report.photos[0].worth is None


def test_few_photos_are_told(backends, good):
    report = coach.coached(good[:2], *backends)
    (few,) = report.findings
    assert few.kind == coach.FEW and few.text.startswith("2 of 2")


def test_worth_is_what_the_others_lose():
    rng = np.random.default_rng(0)
    person_, noise = rng.normal(size=32), rng.normal(size=(5, 32))
    faces = person_ + 0.5 * noise
    faces[4] = rng.normal(size=32)  # somebody else
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    found = coach.worths(faces)
    assert (found[:4] > 0).all() and found[4] < 0
    by_hand = []
    for target in range(4):
        rest = [at for at in range(5) if at != target]
        means = [faces[rest].mean(0), faces[rest[:-1]].mean(0)]
        by_hand.append(np.subtract(*(mean @ faces[target] / np.linalg.norm(mean) for mean in means)))
    assert found[4] == pytest.approx(np.mean(by_hand))
    assert coach.worths(faces[:2]).tolist() == [0, 0]


def test_the_report_is_plain_data(backends, good):
    report = coach.coached([*good, photo(ODD[coach.NO_FACE]())], *backends)
    data = json.loads(json.dumps(report.as_json()))
    assert data["kept"] == 5
    assert data["photos"][5]["keep"] is False and data["photos"][5]["face"] is None
    assert data["photos"][5]["findings"][0]["kind"] == "no face"
    assert len(data["photos"][0]["face"]) == 4


def test_a_turned_head_by_its_landmarks():
    from photomaker.types import Face

    def face(nose):
        return Face((0, 0, 10, 10), 1.0, np.array([[2, 4], [8, 4], nose, [3, 9], [7, 9]], float))

    assert coach.turn(face([5, 6])) == 0
    assert coach.turn(face([7.4, 6])) == pytest.approx(45)
    assert coach.turn(face([2.6, 6])) == pytest.approx(-45)
    assert coach.turn(face([7.4, 6])) > coach.TURN > coach.turn(face([6, 6]))
    rolled = Face((0, 0, 10, 10), 1.0, np.array([[5, 2], [5, 8], [3, 7.4], [1, 3], [1, 7]], float))
    assert coach.turn(rolled) == pytest.approx(45)


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ([0, 3, -4], "all photos are seen from the front"),
        ([20, 12, 30], "in all photos the face is turned to the right"),
        ([-20, -12, -30], "in all photos the face is turned to the left"),
    ],
)
def test_photos_from_one_side_alone_are_told(turns, text):
    (found,) = coach._sides(turns)
    assert (found.kind, found.text) == (coach.ALIKE, text) and "add one" in found.remedy
    assert coach._sides([*turns, -turns[1] * 5]) == ()


def test_the_command(backends, good, tmp_path):
    from typer.testing import CliRunner

    from photomaker.apps.cli import app

    folder = tmp_path / "photos"
    folder.mkdir()
    for one in good[:3]:
        one.image.save(folder / f"{one.name}.png")
    ODD[coach.BLURRED]().save(folder / "soft.png")
    words = [
        "photos",
        "check",
        str(folder),
        "--json",
        str(tmp_path / "r.json"),
        "--sheet",
        str(tmp_path / "s.png"),
    ]
    result = CliRunner().invoke(app, words, prog_name="photomaker")
    assert result.exit_code == 0, result.output
    assert "3 of 4 photos to keep" in result.stdout
    assert json.loads((tmp_path / "r.json").read_text())["kept"] == 3
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 300
    refused = CliRunner().invoke(
        app, ["photos", "check", str(folder), "--faces", "none"], prog_name="photomaker"
    )
    assert refused.exit_code == 2 and "--faces none finds no face" in refused.stderr
    missing = CliRunner().invoke(app, ["photos", "check", str(tmp_path / "nobody")], prog_name="photomaker")
    assert missing.exit_code == 2


def sitting_of(photos, backends):
    return coach.advised(choose_faces(photos, *backends), backends[1])


def test_a_sitting_is_told_what_the_coach_sees_and_keeps_its_photos(backends, good):
    assert sitting_of(good, backends).notes == ()
    blurred = photo(ODD[coach.BLURRED](), "soft.png")
    sitting = sitting_of([*good[:2], blurred], backends)
    assert len(sitting.references) == 3
    assert sitting.notes == ("soft.png: the face is blurred; give a sharper one",)


def test_photos_taken_as_they_are_are_not_judged(good):
    assert coach.advised(choose_faces(good, None)).notes == ()


def test_of_very_many_photos_the_best_are_used_and_why_is_said(backends):
    many = [photo(drawn(WHO, seed), f"{seed}.png") for seed in range(coach.MOST + 4)]
    soft = [
        photo(drawn(WHO, seed).filter(ImageFilter.GaussianBlur(4)), f"soft {seed}.png") for seed in (50, 51)
    ]
    sitting = sitting_of([soft[0], *many, soft[1]], backends)
    names = [one.name for one in sitting.references]
    assert len(names) == coach.MOST and not any(name.startswith("soft") for name in names)
    (note,) = sitting.notes
    assert note == (
        "the best 16 of 22 photos are used: 2 should be left out (blurred 2) "
        "and the faces of the other 4 add the least"
    )
    used = np.mean([backends[1].embed(one.image, one.face) for one in sitting.references], axis=0)
    seen = choose_faces(many, *backends).references
    faces = np.stack([backends[1].embed(one.image, one.face) for one in seen])
    first = faces[: coach.MOST].mean(0)
    nearness = [float(one @ faces.mean(0) / np.linalg.norm(one)) for one in (used, first)]
    assert nearness[0] >= nearness[1]


def test_of_very_many_photos_the_largest_faces_are_used_where_nothing_compares(backends):
    many = [
        photo(drawn(WHO, seed).resize((side, side)), f"{side}.png")
        for seed, side in enumerate(range(220, 420, 10))
    ]
    sitting = coach.advised(choose_faces(many, backends[0]))
    used, faces = {one.name for one in sitting.references}, choose_faces(many, backends[0]).references
    smallest = sorted(faces, key=lambda one: one.face.area)[: len(many) - coach.MOST]
    assert used == {one.name for one in faces} - {one.name for one in smallest}
