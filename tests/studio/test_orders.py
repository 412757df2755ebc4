"""Orders: people, prompts, seeds, sizes and styles in, requests out; refused where they cannot be drawn."""

import pytest
import torch
from PIL import Image
from tests.studio.fakes import FakeDetector, FakeMethod, FakeRecogniser, picture, save

from photomaker.errors import IdentityError, PhotoError, PromptError, SettingsError
from photomaker.studio.engine import FACE_EMBEDDINGS, Backends, Engine, mix
from photomaker.studio.opening import Profile
from photomaker.studio.orders.order import Order, Someone, as_people
from photomaker.studio.photos.sitting import Sitting
from photomaker.types import Extras, Identity, Lora, Reference, Request, Sample, Sampling, Start, Structure

pytestmark = pytest.mark.usefixtures("no_coach")

PROMPT = "a photo of a woman img in the snow"
PROMPTS = (PROMPT, "a sketch of a woman img")


@pytest.fixture
def engine():
    return Engine(FakeMethod, Backends(FakeDetector(), FakeRecogniser()))


@pytest.fixture
def unloaded():
    return Engine(lambda: pytest.fail("a model was loaded"), Backends(FakeDetector(), FakeRecogniser()))


@pytest.fixture
def ada(tmp_path):
    (tmp_path / "ada").mkdir()
    save(tmp_path / "ada" / "a.png")
    return tmp_path / "ada"


@pytest.fixture
def ben(tmp_path):
    (tmp_path / "ben").mkdir()
    save(tmp_path / "ben" / "b.png", who=255)
    return tmp_path / "ben"


def said(samples):
    return [(one.notes["person"], one.request.prompt, one.request.sampling.seed) for one in samples]


def test_each_person_goes_with_each_prompt_and_each_picture_has_its_seed(engine, ada, ben):
    samples = engine.generate([[ada], [ben]], PROMPTS, n=2, sampling=Sampling(seed=3))
    people = ("person 1", "person 2")
    assert said(samples) == [(who, prompt, seed) for who in people for prompt in PROMPTS for seed in (3, 4)]


def test_people_are_told_apart_by_their_likeness(engine, ada, ben):
    first, second = engine.generate([Someone(ada, "ada"), Someone(ben, "ben")], PROMPT)
    assert first.likeness == pytest.approx(1.0)  # the fake draws the first seed as the person of angle 0
    assert second.likeness == pytest.approx(0.0, abs=1e-6)


def test_pairs_go_one_by_one(engine, ada, ben):
    order = Order((Someone(ada, "ada"), Someone(ben, "ben")), PROMPTS, pairs=True)
    assert said(engine.generate(order)) == [("ada", PROMPTS[0], 0), ("ben", PROMPTS[1], 0)]
    assert order.total == 2


def test_seeds_may_be_given_one_by_one(engine, ada):
    samples = engine.generate(ada, PROMPT, n=3, seeds=[5, 1, 7])
    assert [one.request.sampling.seed for one in samples] == [5, 1, 7]


def test_a_list_of_files_is_one_person_and_a_list_of_lists_several(ada, ben):
    files = sorted(ada.iterdir()) + sorted(ben.iterdir())
    assert [one.name for one in as_people(files)] == ["person 1"]
    assert len(as_people([[ada], [ben]])) == 2
    assert [one.name for one in as_people(ada)] == ["ada"]
    assert [one.name for one in as_people([Someone(ada), Someone(ben, "Benjamin")])] == ["ada", "Benjamin"]
    made = Identity("fake", {}, {"name": "Ada"})
    assert [one.name for one in as_people([made, Sitting((Reference(picture()),))])] == ["Ada", "person 2"]


def test_a_saved_identity_may_be_named_by_its_file(engine, ada, tmp_path):
    file = engine.identity(ada).save(tmp_path / "ada.safetensors")
    (sample,) = engine.generate(file, PROMPT)
    assert sample.likeness == pytest.approx(1.0)
    assert sample.notes["person"] == "ada"


def test_the_best_are_chosen_within_each_person_and_prompt(engine, ada, ben):
    samples = engine.generate([[ada], [ben]], PROMPTS, n=1, best_of=5)
    # angle 0 is most like ada, the largest angle most like ben
    assert [one.request.sampling.seed for one in samples] == [0, 0, 4, 4]
    assert all(one.likeness is not None for one in samples)


def test_pictures_come_as_soon_as_they_are_drawn(engine, ada):
    plan = engine.plan(Order((Someone(ada),), (PROMPT,), n=5))
    stream = engine.stream(plan, batch=2)
    next(stream)
    assert engine.method.batches == [2]
    assert len(list(stream)) == 4
    assert engine.method.batches == [2, 2, 1]


WRONG = [
    ({"prompt": None}, PromptError, "the prompt is None, a NoneType; write for example"),
    ({"prompt": 7}, PromptError, "the prompt is 7, a int"),
    ({"prompt": []}, PromptError, "there is no prompt"),
    ({"prompt": [PROMPT, None]}, PromptError, "a prompt is None"),
    ({"prompt": b"a man img"}, PromptError, "a bytes"),
    ({"n": 1.5}, SettingsError, "n is 1.5; give 1 or more"),
    ({"n": "2"}, SettingsError, "n is '2'"),
    ({"n": True}, SettingsError, "n is True"),
    ({"n": 10**9}, SettingsError, "1000000000 pictures; give one of at most 100000"),
    ({"best_of": None}, SettingsError, "best_of is None"),
    ({"batch": 0.5}, SettingsError, "batch is 0.5"),
    ({"sampling": 7}, SettingsError, "sampling is 7, a int; give a Sampling"),
    ({"negative": 3}, PromptError, "the negative prompt is 3"),
    ({"seeds": 5}, SettingsError, "seeds is 5, a int; give a list"),
    ({"seeds": [1, 2]}, SettingsError, "there are 2 seeds for 1 pictures"),
    ({"seeds": [-1]}, SettingsError, "a seed is -1"),
    (
        {"seeds": [1], "best_of": 2},
        SettingsError,
        "best_of is 2, which cannot be combined with a list of seeds",
    ),
    ({"size": 512}, SettingsError, "size is 512, a int"),
    ({"size": "huge"}, SettingsError, "the base is unknown"),
    ({"style": 1}, SettingsError, "style is 1"),
    ({"style": "watercolor"}, SettingsError, "did you mean 'watercolour'"),
    ({"extras": {}}, SettingsError, "extras is {}"),
    ({"who": 123}, SettingsError, "the person is 123, a int; give an identity, or photos"),
    ({"who": None}, SettingsError, "the person is None"),
    ({"who": []}, PhotoError, "the list of people or photos is empty"),
    ({"who": [1, 2]}, SettingsError, "a photo is 1, a int"),
    ({"who": {"a": 1}}, SettingsError, "a dict"),
    ({"who": "none.safetensors"}, IdentityError, "there is no identity file none.safetensors"),
    ({"pairs": True, "prompt": PROMPTS}, SettingsError, "1 people and 2 prompts, which make no pairs"),
    ({"sampling": Sampling(scheduler="eulr")}, SettingsError, "did you mean 'euler'"),
    ({"sampling": Sampling(seed=2**63 - 1), "n": 2}, SettingsError, "the last picture's seed"),
    ({"sampling": Sampling(width=64), "size": "square"}, SettingsError, "both size"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG, ids=[str(one[0]) for one in WRONG])
def test_what_cannot_be_meant_is_refused_in_one_sentence(unloaded, ada, changed, error, message):
    given = {"who": ada, "prompt": PROMPT, **changed}
    with pytest.raises(error) as caught:
        unloaded.generate(given.pop("who"), given.pop("prompt"), **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(steps="x"), "steps is 'x'; give a whole number from 1 to 1000"),
        (lambda: Sampling(steps=2.0), "steps is 2.0"),
        (lambda: Sampling(guidance="5"), "guidance is '5'"),
        (lambda: Sampling(guidance=float("inf")), "guidance is inf"),
        (lambda: Sampling(merge="a lot"), "merge is 'a lot'"),
        (lambda: Sampling(seed=None), "seed is None"),
        (lambda: Sampling(width=100), "width is 100; give a multiple of 8"),
        (lambda: Sampling(height=10**6), "height is 1000000"),
        (lambda: Sampling(scheduler=3), "scheduler is 3"),
        (lambda: Sampling(guidance_start=0.8, guidance_stop=0.2), "let it start first"),
        (lambda: Sampling(guidance_stop=2), "guidance_stop is 2"),
        (lambda: Request(PROMPT, "fast"), "sampling is 'fast'"),
        (lambda: Request(PROMPT, extras=None), "extras is None"),
        (lambda: Lora(""), "the LoRA's name is empty"),
        (lambda: Lora("x", float("nan")), "the LoRA's weight is nan"),
        (lambda: Structure("net", "edges.png"), "the structure picture is 'edges.png'"),
        (lambda: Structure("net", picture(), start=0.5, stop=0.5), "let it start first"),
        (lambda: Start(picture(), 0), "strength is 0"),
        (lambda: Start(picture(), mask=Image.new("L", (8, 8))), "black all over"),
        (lambda: Extras(Start(picture()), t2i=Structure("net", picture())), "cannot be combined with"),
        (lambda: mix(None, None, 0.5), "the person is None"),
        (lambda: Engine.open(device=5), "device is 5"),
        (lambda: Engine.open(base=5), "base is 5"),
        (lambda: Engine.open(image_encoder="no"), "image_encoder is 'no'"),
    ],
)
def test_values_of_another_type_are_refused_where_they_are_made(make, message):
    with pytest.raises(SettingsError) as caught:
        make()
    assert message in str(caught.value)


def test_drawing_checks_what_it_is_given(engine):
    made = Identity("fake", {FACE_EMBEDDINGS: torch.ones(1, 2)})
    for identity, requests, message in (
        ("ada", [], "the identity is 'ada'"),
        (made, Request(PROMPT), "requests is Request"),
        (made, [PROMPT], "a request is"),
    ):
        with pytest.raises(SettingsError, match=message):
            engine.draw(identity, requests)


def test_an_extra_that_the_method_does_not_take_is_refused_before_photos_are_read():
    engine = Engine(lambda: pytest.fail("loaded"), Backends(), profile=Profile(FakeMethod))
    for extras, name in (
        (Extras(loras=(Lora("x"),)), "LoRA"),
        (Extras(Start(picture())), "start picture"),
        (Extras(controls=(Structure("net", picture()),)), "ControlNet"),
    ):
        with pytest.raises(SettingsError, match=f"the method fake cannot draw with a {name}; leave it out"):
            engine.generate("/no/such/photos", PROMPT, extras=extras)


def test_a_notebook_shows_picture_prompt_seed_and_likeness():
    sample = Sample(picture(), Request("a <b>man</b> img", Sampling(seed=7)), 0.5)
    assert sample._repr_png_().startswith(b"\x89PNG")
    shown = sample._repr_html_()
    assert "a &lt;b&gt;man&lt;/b&gt; img (seed 7, likeness 0.50)" in shown
    assert "data:image/png;base64," in shown
    assert repr(sample) == "Sample(64 x 64, a <b>man</b> img (seed 7, likeness 0.50))"


def test_representations_are_short_and_without_tensors():
    identity = Identity("photomaker-v1", {"id_features": torch.zeros(3, 256)}, {"photos": [1, 2, 3]})
    assert repr(identity) == "Identity(photomaker-v1, 3 photos, 3.0 KiB)"
    assert repr(Identity("lora", {})) == "Identity(lora, 0.0 KiB)"
    assert repr(Engine(FakeMethod, Backends(), profile=Profile(line="fake on cpu"))) == "Engine(fake on cpu)"
