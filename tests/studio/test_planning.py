"""Orders looked at: what is drawn, what is refused, what is told, before a model is loaded."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from photomaker.errors import PhotoError, PromptError, SettingsError, WeightsError
from photomaker.methods.base import Method
from photomaker.studio.events import Cancel
from photomaker.studio.opening import Profile
from photomaker.studio.orders.order import Order, Someone, as_people, as_prompts
from photomaker.studio.orders.planning import planned
from photomaker.studio.orders.prompts import check_prompt
from photomaker.studio.photos import face_backends
from photomaker.studio.photos.face_backends import Backends, chosen
from photomaker.studio.photos.sitting import Sitting, choose_faces
from photomaker.types import Extras, Face, Identity, Lora, Pose, Reference, Sampling

PROMPT = "a photo of a woman img in the snow"


class Plain(Method):
    name = "plain"

    def fit(self, references, *, notes=None): ...

    def generate(self, identity, requests, *, watch=None): ...


def base(folder, side=128, blocks=4):
    for part, config in (("unet", {"sample_size": side}), ("vae", {"block_out_channels": [1] * blocks})):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    return folder


def sitting(notes=()):
    return Sitting((Reference(Image.new("RGB", (64, 64)), face=None),), notes)


def order(**changes):
    return Order(**({"people": (Someone(sitting(), "ada"),), "prompts": (PROMPT,)} | changes))


ANYTHING = Profile()


def plan(given, profile=ANYTHING, measures=True, styles=None):
    return planned(given, profile, lambda _: pytest.fail("looked"), measures, styles)


class Follows(Plain):
    name, takes = "follows", frozenset({"pose"})


def test_a_pose_is_looked_at_before_a_model_is_loaded(tmp_path):
    picture = Image.new("RGB", (64, 64))
    profile = Profile(Follows, base(tmp_path))
    points = np.ones((5, 2), np.float32)
    small, large = (Face((0.0, 0.0, side, side), 1.0, points * side) for side in (4.0, 20.0))

    def posed(source, faces, profile=profile, **changes):
        given = order(extras=Extras(pose=Pose(source, 0.5)), **changes)
        detect = None if faces is None else (lambda _: faces)
        made = planned(given, profile, lambda _: pytest.fail("looked"), False, None, True, detect)
        return made.groups[0].requests[0].extras.pose

    found = posed(picture, [small, large])
    assert found.landmarks.tolist() == large.landmarks.tolist()
    assert (found.source, found.scale) == (picture, 0.5)
    assert posed(picture, None).landmarks is None
    assert posed("draft", []).landmarks is None
    with pytest.raises(PhotoError, match="no face was found in the pose picture"):
        posed(picture, [])
    with pytest.raises(SettingsError, match="the pose is 64 x 64, but the pictures are 128 x 64"):
        posed(picture, [large], sampling=Sampling(width=128, height=64))
    with pytest.raises(SettingsError, match=r"the method plain cannot draw with a pose; .* use instantid"):
        posed(picture, [large], profile=Profile(Plain, base(tmp_path)))


def test_a_style_is_in_prompt_and_negative_and_a_users_file_counts(tmp_path):
    made = plan(order(style="comic", negative="blurry"))
    (request,) = made.groups[0].requests
    assert made.prompts == (request.prompt,)
    assert "a woman img in the snow" in request.prompt and "a photo of" not in request.prompt
    assert request.negative_prompt.startswith("blurry, ")
    own = tmp_path / "own.yaml"
    own.write_text("wax:\n  prompt: 'wax of {subject}'\n")
    assert plan(order(style="wax"), styles=own).prompts == ("wax of a woman img in the snow",)
    with pytest.raises(SettingsError, match="no style 'wax'"):
        plan(order(style="wax"))
    plain = plan(order(negative="blurry"))
    assert (plain.prompts, plain.groups[0].requests[0].negative_prompt) == ((PROMPT,), "blurry")


def test_the_bundled_model_draws_its_own_form_of_a_style():
    small = Profile(bundled=True)
    assert plan(order(style="sketch"), small).prompts != plan(order(style="sketch")).prompts
    with pytest.raises(SettingsError, match="the bundled model cannot draw the style 'anime'"):
        plan(order(style="anime"), small)


def test_a_trigger_in_the_negative_prompt_is_refused_and_one_in_the_prompt_is_put_in():
    with pytest.raises(PromptError, match=r"the negative prompt 'an IMG' contains the trigger word 'img'"):
        plan(order(negative="an IMG"))
    assert check_prompt("a man ", "images") == "a man img"
    assert plan(order(prompts=("a man",))).prompts == ("a man img",)


@pytest.mark.parametrize(
    ("best_of", "measures", "fine"), [(1, False, True), (2, False, False), (3, False, False), (2, True, True)]
)
def test_best_of_needs_likeness(best_of, measures, fine):
    if fine:
        assert len(plan(order(best_of=best_of), measures=measures).groups[0].requests) == best_of
    else:
        words = f"best_of is {best_of}, but no recogniser measures likeness; leave it at 1"
        with pytest.raises(SettingsError, match=f"^{words}$"):
            plan(order(best_of=best_of), measures=measures)


def test_a_size_by_name_becomes_pixels_and_a_far_one_is_told(tmp_path):
    known = Profile(base=base(tmp_path), faces="none")
    made = plan(order(size="portrait"), known)
    sampling = made.groups[0].requests[0].sampling
    assert (sampling.width, sampling.height, made.order.size) == (896, 1152, None)
    assert not any("is far from" in note for note in made.notes)
    for given in (
        order(size="2048x2048"),
        order(sampling=Sampling(width=2048)),
        order(sampling=Sampling(height=2048)),
    ):
        (note,) = [note for note in plan(given, known).notes if "is far from" in note]
        assert "2048" in note
    with pytest.raises(
        SettingsError, match="size is 'portrait', but the base is unknown; give width and height"
    ):
        plan(order(size="portrait"))
    assert plan(order(sampling=Sampling(width=2048))).notes == ()
    assert plan(order(), Profile(base=tmp_path / "none", faces="none")).groups
    with pytest.raises(WeightsError):
        plan(order(size="portrait"), Profile(base=tmp_path / "none", faces="none"))


def test_what_a_method_or_base_cannot_do_is_refused(tmp_path):
    asked = order(extras=Extras(loras=(Lora("none.safetensors"),)))
    with pytest.raises(SettingsError, match="the method plain cannot draw with a LoRA"):
        plan(asked, Profile(kind=Plain))
    with pytest.raises(WeightsError, match="none.safetensors".replace(".", r"\.")):
        plan(asked, Profile(base=base(tmp_path), faces="none"))
    assert plan(asked).groups


def test_notes_are_told_once_and_each_where_it_belongs(tmp_path):
    known = base(tmp_path)
    strange = order(prompts=("a photo of a woman img with a dragon", "a sketch of a woman img with a dragon"))
    (note,) = plan(strange, Profile(bundled=True)).notes
    assert note.startswith("the bundled model has never seen: dragon")
    assert plan(strange).notes == ()
    two = (Someone(sitting(("a note",)), "ada"), Someone(sitting(("a note",)), "ben"))
    assert plan(order(people=two)).notes == ("a note",)
    (told,) = plan(order(), Profile(base=known, finds="dlib (Boost)")).notes
    assert told == "faces are found and compared by dlib (Boost)"
    (told,) = plan(order(), Profile(base=known), measures=False).notes
    assert told.startswith("no likeness is measured and no faces are detected")
    (told,) = plan(order(), Profile(base=known, faces="none"), measures=False).notes
    assert told.endswith("because of --faces none")
    assert plan(order(), Profile(base=known, finds="")).notes == ()
    assert plan(order(), Profile(base=known, bundled=True, finds="")).notes == ()


def test_people_are_looked_at_after_everything_else():
    seen = []

    def look(who):
        seen.append(who)
        return sitting()

    given = order(people=(Someone("folder", "ada"), Someone(Identity("x", {}), "ben")))
    made = planned(given, Profile(), look, True)
    assert seen == ["folder"]
    assert isinstance(made.order.people[0].who, Sitting) and isinstance(made.order.people[1].who, Identity)
    with pytest.raises(SettingsError):
        planned(order(people=(Someone("x", "x"),), style="nothing"), Profile(), look, True)
    assert seen == ["folder"]


def test_names_of_people():
    photo = Image.new("RGB", (9, 9))
    named, plain = Identity("x", {}, {"name": "Ada"}), Identity("x", {})
    assert [one.name for one in as_people([named, plain, sitting()])] == ["Ada", "person 2", "person 3"]
    assert [one.name for one in as_people([Someone(plain), Someone("photos/ben", "Ben")])] == [
        "person 1",
        "Ben",
    ]
    assert [one.name for one in as_people([photo, photo])] == ["person 1"]
    assert as_people("photos/ada")[0].name == "ada"
    words = "the list of people or photos is empty; give photos of a person, or an identity"
    with pytest.raises(PhotoError, match=f"^{words}$"):
        as_people([])
    words = "a prompt is 5, a int; write for example 'a photo of a woman img in the snow'"
    with pytest.raises(PromptError, match=f"^{words}$"):
        as_prompts(["a man", 5])


def test_requests_carry_what_the_order_says():
    extras = Extras(loras=(Lora("x"),))
    (one, two) = order(n=2, sampling=Sampling(seed=4), extras=extras).requests("p", "no")
    assert (one.prompt, one.negative_prompt, one.extras, one.sampling.seed, two.sampling.seed) == (
        "p",
        "no",
        extras,
        4,
        5,
    )


class Two:
    """Finds as many faces as a picture's red says; the person's is the one further right."""

    unsure = 0.0

    def detect(self, image):
        count = image.getpixel((0, 0))[0]
        return [Face((10.0 * at, 0, 10.0 * at + 9 - at, 9), 1.0, np.zeros((5, 2))) for at in range(count)]


class Places:
    """A face is who stands there."""

    asked = 0

    def embed_batch(self, images, faces):
        assert all(image.mode == "RGB" for image in images) and len(images) == len(faces)
        self.asked += 1
        return np.stack(
            [
                np.eye(3)[0 if image.getpixel((0, 0))[0] == 1 else int(face.box[0] // 10)] * 1.0
                for image, face in zip(images, faces, strict=True)
            ]
        )


def photos(*counts):
    from photomaker.images import Photo

    return [
        Photo(Image.new("RGB", (64, 64), (count, 0, 0)), f"{at}.png", "") for at, count in enumerate(counts)
    ]


def test_of_several_faces_that_of_the_other_photos_is_taken():
    recogniser = Places()
    found = choose_faces(photos(3, 2, 1), Two(), recogniser)
    assert [one.face.box[0] for one in found.references] == [0, 0, 0]
    assert found.notes == tuple(
        f"{name}.png shows {count} faces; the one in the other photos is used"
        for name, count in ((0, 3), (1, 2))
    )
    assert recogniser.asked == 3
    alone = choose_faces(photos(2), Two(), recogniser)
    assert alone.notes == ("0.png shows 2 faces; the largest is used",)
    assert choose_faces(photos(2, 1), Two()).notes == ("0.png shows 2 faces; the largest is used",)
    assert (
        choose_faces(photos(2, 0), Two(), recogniser).notes[0] == "0.png shows 2 faces; the largest is used"
    )
    before = recogniser.asked
    assert choose_faces(photos(1, 1), Two(), recogniser).notes == ()
    assert recogniser.asked == before


def test_the_largest_is_the_largest_wherever_it_stands():
    class Growing(Two):
        def detect(self, image):
            return [Face((0, 0, 5.0 + at, 5.0), 1.0, np.zeros((5, 2))) for at in (0, 2, 1)]

    assert choose_faces(photos(1), Growing()).references[0].face.box[2] == 7


def test_auto_takes_what_is_installed(monkeypatch):
    there = {"dlib", "face_recognition_models"}
    monkeypatch.setattr(face_backends, "find_spec", lambda name: name if name in there else None)
    assert chosen("auto", bundled=False) == "dlib"
    assert chosen("auto", bundled=True) == "bundled"
    assert chosen("insightface", bundled=True) == "insightface"
    there.remove("face_recognition_models")
    assert chosen("auto", bundled=False) == "none"
    assert face_backends.open_backends("none") == Backends()
    own = face_backends.open_backends("bundled")
    assert own.line == "" and own.recogniser.name == own.detector.name == "bundled"


def test_a_cancelled_call_says_what_stays():
    from photomaker.errors import Cancelled

    token = Cancel()
    token.check()
    token.cancel()
    words = "cancelled; finished pictures stay"
    with pytest.raises(Cancelled, match=f"^{re.escape(words)}$"):
        token.check()
