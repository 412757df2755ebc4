"""Several people in one picture, from the order to the likeness of each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker import weights
from photomaker.encoders import apart, together
from photomaker.errors import IdentityError, PromptError, SettingsError
from photomaker.faces import Detector, Recogniser
from photomaker.methods.base import Method
from photomaker.prompts import insert_trigger
from photomaker.studio.engine import FACE_SUBJECTS, Backends, Engine, assigned
from photomaker.studio.opening import Profile
from photomaker.studio.orders.batch import draw_rows, planned_rows, read_orders
from photomaker.studio.orders.extras import extras_of, place
from photomaker.studio.orders.order import Order, Someone
from photomaker.studio.pictures.saving import describe
from photomaker.types import EXTRAS, Extras, Face, Identity

PROMPT = "a photo of a woman img on the left and a man img on the right"


class Pair(Detector):
    """As many faces as the picture's first red value says, from right to left."""

    def detect(self, image):
        count = image.getpixel((0, 0))[0]
        return [
            Face((40.0 - 30 * k, 0.0, 60.0 - 30 * k, 20.0), 0.9, np.zeros((5, 2), np.float32))
            for k in range(count)
        ]


class Sides(Recogniser):
    """The left face is Ada's, the right one Ben's."""

    def embed_batch(self, images, faces):
        return np.array([[1.0, 0.0] if one.box[0] < 30 else [0.1, 0.9] for one in faces], np.float32)


class Both(Method):
    name = "both"
    takes = EXTRAS

    def __init__(self, faces=2):
        self.faces, self.seen = faces, []

    def fit(self, references, *, notes=None):
        return Identity(
            "both", {"id_features": torch.ones(len(references), 3), "weights": torch.ones(len(references))}
        )

    def together(self, identities):
        return together(identities)

    def generate(self, identity, requests, *, watch=None):
        self.seen.append((identity, list(requests)))
        return [Image.new("RGB", (64, 64), (self.faces, 0, 0)) for _ in requests]


class Alone(Method):
    name = "alone"

    def fit(self, references, *, notes=None):
        return Identity("alone", {})

    def generate(self, identity, requests, *, watch=None):
        return []


def person(angle):
    faces = torch.tensor([[np.cos(angle), np.sin(angle)]], dtype=torch.float32)
    return Identity(
        "both",
        {"id_features": torch.full((1, 3), float(angle)), "weights": torch.ones(1), "face_embeddings": faces},
    )


ADA, BEN = person(0.0), person(np.pi / 2)


def opened(method):
    return Engine(lambda: method, Backends(Pair(), Sides()), profile=Profile(kind=type(method)))


def order(*people, prompts=(PROMPT,), **more):
    named = tuple(
        Someone(one, name)
        for one, name in zip(people or (ADA, BEN), ("ada", "ben", "c", "d", "e"), strict=False)
    )
    return Order(named, tuple(prompts), together=True, **more)


def test_all_people_are_in_each_picture_and_each_is_measured():
    method = Both()
    engine = opened(method)
    samples = engine.generate(order(n=2, prompts=(PROMPT, "a woman img and a man img")))
    assert len(samples) == 4 and [len(requests) for _, requests in method.seen] == [4]
    identity, _ = method.seen[0]
    assert identity.tensors["subjects"].tolist() == [0, 1]
    assert not any(name.startswith("face_embeddings") for name in identity.tensors)
    assert samples[0].likeness == pytest.approx((1.0 + 0.9) / 2)
    assert samples[0].notes["person"] == "ada, ben"
    both = engine.together([ADA, BEN])
    assert both.tensors[FACE_SUBJECTS].tolist() == [0, 1]
    assert engine.likeness_of_each([samples[0].image], both)[0] == pytest.approx([1.0, 0.9])


def test_who_is_missing_has_no_likeness():
    engine = opened(Both(faces=1))
    (sample,) = engine.generate(order())
    assert sample.likeness is None
    assert engine.likeness_of_each([sample.image], engine.together([ADA, BEN]))[0] == [
        None,
        pytest.approx(0.9),
    ]
    assert engine.likeness_of_each([Image.new("RGB", (64, 64))], engine.together([ADA, BEN])) == [
        [None, None]
    ]


def test_faces_are_given_so_that_all_fit_best():
    assert assigned(np.array([[0.9, 0.8], [0.85, 0.1]])) == [0.8, 0.85]
    assert assigned(np.array([[0.9, 0.2, 0.3], [0.1, 0.0, 0.4]])) == [0.9, 0.4]
    assert assigned(np.array([[0.2], [0.7]])) == [None, 0.7]
    assert assigned(np.array([[-0.2], [-0.7]])) == [-0.2, None]


def test_identities_without_faces_are_drawn_and_not_measured():
    bare = Identity("both", {name: one for name, one in BEN.tensors.items() if name != "face_embeddings"})
    (sample,) = opened(Both()).generate(order(ADA, bare))
    assert sample.likeness is None and "verdict" not in sample.notes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"people": (ADA,)}, "the number of people to draw together is 1; give 2 to 4"),
        ({"people": (ADA,) * 5}, "is 5; give 2 to 4"),
        ({"pairs": True, "prompts": (PROMPT,) * 2}, "pairs draws each person with one prompt"),
        ({"extras": Extras(layout=("left",))}, "the layout has 1 places for 2 people"),
    ],
)
def test_orders_that_cannot_be_are_refused(more, message):
    people = more.pop("people", (ADA, BEN))
    with pytest.raises(SettingsError, match=message):
        order(*people, **more)


def test_a_layout_is_for_several_people():
    with pytest.raises(SettingsError, match="a layout is for several people"):
        Order((Someone(ADA),) * 2, ("a man img",), extras=Extras(layout=("left", "right")))
    Order((Someone(ADA),), ("a man img",), extras=Extras(layout=("left",)))  # where the one person is


def test_prompts_name_everybody():
    engine = opened(Both())
    for prompt, message in (
        ("a photo of a man img", "'img' 1 times, but there are 2 people"),
        ("two people on the beach", "has 0 class words for 2 people"),
        ("a man, a woman and a boy", "has 3 class words for 2 people"),
    ):
        with pytest.raises(PromptError, match=message):
            engine.plan(order(prompts=(prompt,)))
    (plan,) = engine.plan(order(prompts=("a (woman) on the left and an old man on the right",))).prompts
    assert plan == "a (woman) img on the left and an old man img on the right"
    assert insert_trigger("a man and a woman") == "a man img and a woman"


def test_a_method_that_cannot_is_told_before_anything_is_loaded():
    engine = Engine(lambda: 1 / 0, Backends(Pair(), Sides()), profile=Profile(kind=Alone))
    with pytest.raises(SettingsError, match="the method alone cannot draw several people in one picture"):
        engine.plan(order())
    with pytest.raises(SettingsError, match="the method alone cannot draw several people"):
        opened(Alone()).together([ADA, BEN])
    with pytest.raises(IdentityError, match="a different model"):
        opened(Both()).together([ADA, replace(BEN, method="other")])


def test_people_that_were_put_together_can_be_taken_apart():
    both = together([replace(ADA, notes={"class_word": "woman"}), BEN])
    assert [one.tensors["id_features"].tolist() for one in apart(both)] == [
        ADA.tensors["id_features"].tolist(),
        BEN.tensors["id_features"].tolist(),
    ]
    first, second = apart(both)
    assert set(first.tensors) == {"id_features", "weights"} and first.method == "both"
    assert (first.notes, second.notes) == ({"class_word": "woman"}, {})
    assert apart(ADA) == (ADA,)


def test_places_are_read_as_people_write_them(tmp_path):
    mask = tmp_path / "mask.png"
    Image.new("L", (32, 32), 255).save(mask)
    assert place(" Left ") == "left" and place("0, 0,.5,1") == (0.0, 0.0, 0.5, 1.0)
    made = extras_of(layout=("right", str(mask)))
    assert made.asked == {"layout"} and made.layout[1].size == (32, 32)
    with pytest.raises(SettingsError, match="the region 'top' is neither left, middle, right nor a box"):
        place("top")
    sample = opened(Both()).generate(order(extras=Extras(layout=[[0, 0, 0.5, 1], "right"])))[0]
    assert describe(sample)["layout"] == "0,0,0.5,1; right"
    assert describe(replace(sample, request=replace(sample.request, extras=made)))["layout"].startswith(
        "right; mask "
    )


def test_words_are_looked_at_whoever_they_stand_behind():
    from photomaker.prompts.trigger import without_triggers
    from photomaker.studio.orders.vocabulary import unknown_words

    assert without_triggers("a (man:1.2) img and a woman img in snow") == "a man and a woman in snow"
    assert without_triggers("a manimg in snow") == "a man in snow"
    assert unknown_words("a man img on a bicycle and a woman img with a zeppelin") == ("bicycle", "zeppelin")


@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="no bundled weights")
def test_the_bundled_model_plans_pictures_of_two():
    engine = Engine.open()
    plan = engine.plan(
        Order((Someone("examples/ada", "ada"), Someone("examples/ben", "ben")), (PROMPT,), together=True)
    )
    assert plan.order.total == 1 and len(plan.groups) == 1


def test_files_of_orders_draw_people_together(tmp_path):
    for name, one in (("ada", ADA), ("ben", BEN)):
        one.save(tmp_path / f"{name}.safetensors")
    (tmp_path / "orders.yaml").write_text(
        f"people: {{ada: {tmp_path}/ada.safetensors, ben: {tmp_path}/ben.safetensors}}\n"
        f"orders:\n  - {{prompts: '{PROMPT}', together: true, layout: [left, right], n: 2}}\n"
        "  - {prompts: a woman img, people: ada}\n"
    )
    rows = read_orders(tmp_path / "orders.yaml")
    assert [row.person for row in rows] == ["ada, ben", "ada"]
    method = Both()
    engine = opened(method)
    finished = draw_rows(engine, rows, planned_rows(engine, rows), tmp_path / "out")
    assert [len(one.paths) for one in finished] == [2, 1] and all(
        p.is_file() for one in finished for p in one.paths
    )
    assert method.seen[0][0].tensors["subjects"].tolist() == [0, 1]
    again = draw_rows(engine, rows, planned_rows(engine, rows), tmp_path / "out")
    assert len(method.seen) == 2 and [one.paths for one in again] == [one.paths for one in finished]
