"""The engine with a fake method and fake faces: what it asks of them, and what it makes of their answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.studio.fakes import FakeDetector, FakeMethod, FakeRecogniser, picture, save

from photomaker.errors import IdentityError, PhotoError, PromptError, SettingsError, WeightsError
from photomaker.studio.engine import FACE_EMBEDDINGS, Backends, Engine, mix
from photomaker.studio.events import Note, Tuned
from photomaker.studio.photos import face_backends
from photomaker.studio.pictures.saving import describe
from photomaker.types import Identity, Reference, Sampling

pytestmark = pytest.mark.usefixtures("no_coach")

PROMPT = "a photo of a woman img in the snow"


@pytest.fixture
def method():
    return FakeMethod()


@pytest.fixture
def engine(method):
    return Engine(lambda: method, Backends(FakeDetector(), FakeRecogniser()))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        save(folder / name)
    return folder


def test_pictures_carry_their_likeness_and_seed(engine, photos):
    samples = engine.generate(photos, PROMPT, n=3, sampling=Sampling(seed=7))
    assert [sample.request.sampling.seed for sample in samples] == [7, 8, 9]
    assert samples[0].likeness == pytest.approx(np.cos(70 / 255 * np.pi / 2), abs=1e-6)
    assert samples[1].likeness < samples[0].likeness
    assert samples[2].likeness is None  # the fake draws no face for a seed that ends in 9


def test_best_of_keeps_what_is_most_like_the_person(engine, photos):
    samples = engine.generate(photos, PROMPT, n=2, best_of=5)
    assert [sample.request.sampling.seed for sample in samples] == [0, 1]
    scores = [sample.likeness for sample in samples]
    assert scores == sorted(scores, reverse=True)


def test_best_of_needs_something_that_measures(method, photos):
    with pytest.raises(SettingsError, match="best_of is 2"):
        Engine(lambda: method, Backends()).generate(photos, PROMPT, best_of=2)


def test_work_is_cut_into_batches_and_reported(engine, method, photos):
    seen = []
    engine.generate(photos, PROMPT, n=5, batch=2, progress=lambda done, total: seen.append((done, total)))
    assert method.batches == [2, 2, 1]
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(("name", "value"), [("n", 0), ("best_of", 0), ("batch", -1)])
def test_numbers_out_of_range_are_named(engine, photos, name, value):
    with pytest.raises(SettingsError, match=f"{name} is {value}"):
        engine.generate(photos, PROMPT, **{name: value})


@pytest.mark.parametrize(
    ("prompt", "negative", "error"),
    [
        ("a castle", None, PromptError),
        ("a man img and a woman img", None, PromptError),
        (PROMPT, "img", PromptError),
    ],
)
def test_a_prompt_is_refused_before_photos_are_read_or_a_model_is_loaded(prompt, negative, error):
    engine = Engine(lambda: pytest.fail("a model was loaded"), Backends())
    with pytest.raises(error):
        engine.generate("/no/such/photos", prompt, negative=negative)


def test_photos_are_refused_before_a_model_is_loaded(tmp_path):
    engine = Engine(lambda: pytest.fail("a model was loaded"), Backends(FakeDetector(), FakeRecogniser()))
    save(tmp_path / "a.png", faces=0)
    with pytest.raises(PhotoError, match="no face"):
        engine.generate(tmp_path, PROMPT)


def test_pictures_may_be_given_in_the_place_of_files(engine):
    assert (
        len(engine.look([picture(), picture(), Image.new("RGBA", (64, 64), (1, 0, 0, 255))]).references) == 3
    )


def test_an_identity_remembers_the_faces(engine, photos, tmp_path):
    identity = engine.identity(photos)
    assert tuple(identity.tensors[FACE_EMBEDDINGS].shape) == (2, 2)
    loaded = Identity.load(identity.save(tmp_path / "ada.safetensors"))
    assert engine.likeness([picture(who=0)], loaded) == [pytest.approx(1.0)]


def test_an_identity_without_faces_has_no_likeness(engine):
    assert engine.likeness([picture()], Identity("fake", {})) == [None]
    assert engine.likeness([], Identity("fake", {FACE_EMBEDDINGS: torch.ones(1, 2)})) == []


def test_an_identity_of_another_recogniser_is_refused(engine):
    with pytest.raises(IdentityError, match="have 5 numbers, the recogniser's 2"):
        engine.likeness([picture()], Identity("fake", {FACE_EMBEDDINGS: torch.ones(1, 5)}))


def person(value, who):
    faces = torch.from_numpy(FakeRecogniser().embed_batch([picture(who=who)], [None]))
    tensors = {"id_features": torch.full((2, 3), value), "weights": torch.ones(2), FACE_EMBEDDINGS: faces}
    return Identity("photomaker-v1", tensors)


def test_mixing_moves_from_one_to_the_other():
    first, second = person(0.0, 0), person(1.0, 255)
    values = [
        float(mix(first, second, share).tensors["id_features"].mean()) for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert values == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert len(mix(first, second, 0.5).tensors[FACE_EMBEDDINGS]) == 2
    assert torch.equal(mix(first, second, 1).tensors[FACE_EMBEDDINGS], second.tensors[FACE_EMBEDDINGS])
    with pytest.raises(SettingsError, match=r"the share is 1\.5"):
        mix(first, second, 1.5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "abacus"}, SettingsError, "abacus"),
        ({"device": "cuda:77"}, SettingsError, "does not have"),
        ({"dtype": "fp8"}, SettingsError, "dtype is 'fp8'"),
        ({"base": "/none"}, SettingsError, "an adapter is missing"),
        ({"adapter": "/none"}, SettingsError, "a base is missing"),
        ({"base": "/none", "adapter": "/none"}, WeightsError, "not a diffusers model folder"),
        ({"method": "lroa"}, SettingsError, "there is no method 'lroa'; did you mean 'lora'"),
        ({"method": "lora", "adapter": "x.safetensors"}, SettingsError, "takes no adapter"),
        (
            {"method": "lora", "face_models": "buffalo_l"},
            SettingsError,
            "the method lora takes no face_models",
        ),
        ({"method": "lora", "base": "/none"}, WeightsError, "not a diffusers model folder"),
        ({"method": "instantid"}, WeightsError, "no bundled weights of instantid; give its base and adapter"),
    ],
)
def test_an_engine_that_cannot_work_is_not_opened(options, error, words):
    with pytest.raises(error, match=words):
        Engine.open(**options)


def test_instantid_is_opened_by_its_folder_and_follows_a_pose(tmp_path, monkeypatch):
    from tests.tiny import FakeFaces, tiny_instantid, tiny_ip_adapter, tiny_pipeline

    from photomaker.methods import instantid
    from photomaker.types import Extras, Pose

    monkeypatch.setattr(instantid, "opened_faces", lambda _place: FakeFaces())
    file, base = tiny_instantid(tmp_path), tiny_pipeline(tmp_path)
    with pytest.raises(WeightsError, match="an IP-Adapter of the faceid form, not InstantID's"):
        Engine.open(base, tiny_ip_adapter(tmp_path, "faceid"), method="instantid", faces="none")
    engine = Engine.open(base, file.parent, method="instantid", faces="none")
    pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    extras = Extras(pose=Pose(pictures[0], 0.5))
    order = {"sampling": Sampling(steps=1), "extras": extras, "on_event": lambda _: None}
    (sample,) = engine.generate(pictures, "a photo of a man img", **order)
    assert sample.image.size == (64, 64) and engine.about["method"] == "instantid"
    described = describe(sample)
    assert described["pose"].endswith(" scale 0.5") and described["guidance"] == "5.0"


def test_a_method_that_is_tuned_is_told_the_class_word_and_tells_its_steps(tmp_path, photos, monkeypatch):
    from tests.tiny import tiny_pipeline

    from photomaker.methods.lora import Lora

    few = replace(Lora.published, tuning=replace(Lora.published.tuning, steps=2))
    monkeypatch.setattr(Lora, "published", few)
    engine = Engine.open(base=tiny_pipeline(tmp_path), method="lora", device="cpu", faces="none")
    told = []
    identity = engine.identity(photos, "woman", lambda done, of: told.append((done, of)))
    assert (identity.method, identity.notes["class_word"], told) == ("lora", "woman", [(1, 2), (2, 2)])
    events = []
    prompt = "a photo of a man img"
    (sample,) = engine.generate(photos, prompt, sampling=Sampling(steps=2), on_event=events.append)
    assert [(one.step, one.steps) for one in events if isinstance(one, Tuned)] == [(1, 2), (2, 2)]
    assert sample.image.size == (64, 64)
    assert engine.class_word("a photo of an old man img") == "man"
    assert engine.about["method"] == "lora"


def test_a_method_gets_back_what_it_made_without_the_faces(engine, method, photos, tmp_path, monkeypatch):
    made, drawn = engine.identity(photos), []
    assert FACE_EMBEDDINGS in made.tensors
    draw = method.generate
    monkeypatch.setattr(method, "generate", lambda who, some: drawn.append(who) or draw(who, some))
    (sample,) = engine.generate(made, PROMPT)
    assert set(drawn[0].tensors) == set(method.fit([Reference(picture())]).tensors)
    assert sample.likeness is not None


def test_a_method_without_tuning_is_told_no_class_word(engine, photos):
    assert engine.class_word(PROMPT) is None
    assert "class_word" not in engine.identity(photos).notes


def test_a_tiny_model_goes_all_the_way(tmp_path, photos, monkeypatch):
    from tests.tiny import tiny_adapter, tiny_pipeline

    monkeypatch.setattr(face_backends, "PREFERRED", ())
    engine = Engine.open(base=tiny_pipeline(tmp_path), adapter=tiny_adapter(tmp_path), device="cpu")
    told = []
    samples = engine.generate(photos, PROMPT, n=2, sampling=Sampling(steps=2, seed=3), on_event=told.append)
    (note,) = [one.text for one in told if isinstance(one, Note)]
    assert note.startswith("no likeness is measured and no faces are detected: there is no face backend")
    assert all(sample.image.size == (64, 64) and sample.likeness is None for sample in samples)
    assert samples[0].image.tobytes() != samples[1].image.tobytes()
    assert samples[0].request.sampling.guidance is not None
    again = engine.generate(
        engine.identity(photos), PROMPT, sampling=Sampling(steps=2, seed=4), on_event=told.append
    )
    difference = np.abs(np.asarray(again[0].image, int) - np.asarray(samples[1].image, int))
    assert difference.max() <= 1


def test_a_consent_note_is_kept_and_told_by_every_picture(engine, photos):
    identity = engine.identity(photos, consent=" Ada, today, for tests ")
    assert identity.notes["consent"] == "Ada, today, for tests"
    samples = engine.generate(identity, PROMPT, n=2)
    assert [sample.notes["consent"] for sample in samples] == ["Ada, today, for tests"] * 2
    assert "consent" not in engine.generate(photos, PROMPT)[0].notes


def test_a_consent_note_that_is_none_is_refused_before_photos_are_read(engine):
    with pytest.raises(SettingsError, match="the consent note is ''"):
        engine.identity("no such folder", consent="")


def test_the_coach_judges_photos_before_a_model_is_loaded(photos):
    def never():
        raise AssertionError

    engine = Engine(never, Backends(FakeDetector(), FakeRecogniser()))
    report = engine.coach(photos)
    assert [one.photo.name for one in report.photos] == ["a.png", "b.png"]
    assert report.text.splitlines()[0] == f"{len(report.kept)} of 2 photos to keep"
    assert all(f"{one.photo.name} (" in report.text for one in report.photos)
    with pytest.raises(SettingsError, match="there is no face backend"):
        Engine(never, Backends()).coach(photos)


def test_an_engine_mixes_people_as_the_function_does(engine):
    first, second = (engine.identity([picture(who=who)]) for who in (0, 200))
    mixed, wanted = Engine.mix(first, second, 0.3), mix(first, second, 0.3)
    assert mixed.notes == wanted.notes
    for name, tensor in wanted.tensors.items():
        assert torch.equal(mixed.tensors[name], tensor)
    assert FACE_EMBEDDINGS in mixed.tensors
