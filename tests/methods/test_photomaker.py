"""PhotoMaker as a method: defaults, backgrounds, batches, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker.errors import PhotoError, PromptError, SettingsError, WeightsError
from photomaker.methods.photomaker import PhotoMaker
from photomaker.pipelines.drawing.batches import Defaults
from photomaker.types import Face, Reference, Request, Sampling

PROMPT = "a photo of a man img on the beach"


@pytest.fixture(scope="module")
def method(tiny_base, tiny_adapter_file):
    return PhotoMaker.open(tiny_base, tiny_adapter_file, device="cpu")


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


def difference(one, other):
    return int(np.abs(np.array(one).astype(int) - np.array(other).astype(int)).max())


def test_pictures_come_in_the_order_of_the_requests_whatever_is_drawn_together(method, references):
    identity = method.fit(references[:2])
    requests = [
        Request(PROMPT, Sampling(steps=2, seed=1)),
        Request(PROMPT, Sampling(steps=3, seed=2)),
        Request("a sketch of a woman", Sampling(steps=2, seed=3)),
        Request(PROMPT, Sampling(steps=2, seed=1, guidance=2.0), negative_prompt="worst quality"),
        Request(PROMPT, Sampling(steps=2, seed=5, width=32, height=40)),
    ]
    together = method.generate(identity, requests)
    alone = [method.generate(identity, [request])[0] for request in requests]
    assert [picture.size for picture in together] == [(64, 64)] * 4 + [(32, 40)]
    assert all(difference(one, other) <= 2 for one, other in zip(together, alone, strict=True))
    assert difference(together[0], together[3]) > 5


def test_batches_are_no_larger_than_asked(method, references):
    calls = []
    unet = method.pipeline.unet
    hook = unet.register_forward_pre_hook(
        lambda _module, args, _kwargs: calls.append(len(args[0])), with_kwargs=True
    )
    small = PhotoMaker(method.pipeline, batch_size=2)
    try:
        small.generate(
            small.fit(references[:1]), [Request(PROMPT, Sampling(steps=1, seed=seed)) for seed in range(3)]
        )
    finally:
        hook.remove()
    assert calls == [4, 2]  # with guidance two rows each


def test_merge_is_a_share_of_the_steps(method, references, monkeypatch):
    seen = []

    def call(_prompts, **arguments):
        seen.append(arguments["start_merge_step"])
        return type("Result", (), {"images": [None]})

    recorder = _Recorder(method.pipeline, call)
    monkeypatch.setattr(method, "pipeline", recorder)
    monkeypatch.setattr(method.kit, "pipeline", recorder)
    for merge, steps in ((0.0, 20), (0.2, 20), (0.5, 3), (1.0, 10), (None, 10)):
        method.generate(method.fit(references[:1]), [Request(PROMPT, Sampling(steps=steps, merge=merge))])
    assert seen == [-1, 3, 1, 8, 1]


def test_a_merge_share_of_one_leaves_the_person_out(method, references):
    alone = [Request(PROMPT, Sampling(steps=3, seed=4, merge=1.0))]
    first, second = (method.generate(method.fit([reference]), alone)[0] for reference in references[:2])
    assert difference(first, second) == 0
    with_person = [Request(PROMPT, Sampling(steps=3, seed=4, merge=0.0))]
    first, second = (method.generate(method.fit([reference]), with_person)[0] for reference in references[:2])
    assert difference(first, second) > 0


class _Recorder:
    """The pipeline, with another call."""

    def __init__(self, pipeline, call):
        self._pipeline, self._call = pipeline, call

    def __getattr__(self, name):
        return getattr(self._pipeline, name)

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)


def test_defaults_may_come_with_the_adapter():
    noted = Defaults.noted(
        {"hidden_size": 1, "defaults": {"guidance": 3.0, "merge": 0.1, "background": "grey", "x": 1}}
    )
    assert noted == Defaults(3.0, 0.1, "grey")
    assert Defaults.noted({}) == Defaults()


def test_grey_background_hides_what_is_behind_the_person(method, photos):
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[10:30, 10:30] = 255
    other = Image.new("RGB", (40, 40), (0, 255, 0))
    other.paste(photos[0].crop((10, 10, 30, 30)), (10, 10))
    one, two = Reference(photos[0], mask=mask), Reference(other, mask=mask)

    def features(reference, background):
        return method.fit([reference], background=background).tensors["id_features"]

    assert torch.equal(features(one, "grey"), features(two, "grey"))
    assert not torch.equal(features(one, "keep"), features(two, "keep"))
    assert torch.equal(features(one, None), features(one, "keep"))
    assert torch.equal(features(Reference(photos[0]), "grey"), features(one, "keep"))


def test_notes_name_the_photos_and_the_encoder(method, references):
    identity = method.fit(references[:2], weights=[1, 0.5], notes={"class_word": "woman"})
    assert [photo["name"] for photo in identity.notes["photos"]] == ["photo 0", "photo 1"]
    assert identity.notes["encoder_sha256"] == method.pipeline.encoder_sha256
    assert identity.notes["class_word"] == "woman"
    assert identity.tensors["weights"].tolist() == [1.0, 0.5]


def test_mistakes_are_told(method, references, photos, tiny_base, tiny_adapter_file, tmp_path):
    with pytest.raises(SettingsError, match="'blur'"):
        method.fit(references[:1], background="blur")
    with pytest.raises(PhotoError, match="mask of photo ada"):
        empty = np.zeros((40, 40), dtype=np.uint8)
        method.fit([Reference(photos[0], name="ada", mask=empty)], background="grey")
    with pytest.raises(SettingsError, match="batch_size"):
        PhotoMaker(method.pipeline, batch_size=0)
    with pytest.raises(WeightsError, match="no adapter file"):
        PhotoMaker.open(tiny_base, tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="not a diffusers model folder"):
        PhotoMaker.open(tmp_path, tiny_adapter_file)
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionXLPipeline"}', encoding="utf-8"
    )
    with pytest.raises(WeightsError, match="cannot be loaded"):
        PhotoMaker.open(tmp_path, tiny_adapter_file)
    with pytest.raises(PromptError, match="no class word"):
        method.generate(method.fit(references[:1]), [Request(PROMPT), Request("a castle")])


def test_no_requests_no_pictures(method, references):
    assert method.generate(method.fit(references[:1]), []) == []


def test_an_adapter_trained_on_face_crops_sees_face_crops(method, photos, monkeypatch):
    face = Face((10.0, 12.0, 20.0, 20.0), 1.0, np.zeros((5, 2)))
    photo = Reference(photos[0], name="ada", face=face)
    whole = method.fit([photo]).tensors["id_features"]
    monkeypatch.setitem(method.pipeline.id_encoder.config.adapter_notes, "crop", 1.6)
    cropped = method.fit([photo]).tensors["id_features"]
    by_hand = method.pipeline.encode_identity([photos[0].crop((7, 8, 23, 24))]).tensors["id_features"]
    assert torch.equal(cropped, by_hand)
    assert not torch.equal(cropped, whole)
    with pytest.raises(PhotoError, match="photo bob has none"):
        method.fit([Reference(photos[0], name="bob")])


def test_prompts_of_any_length_are_read_whole(method, references):
    identity = method.fit(references[:3])
    start = "a photo of a man img " + "with a red hat " * 25
    late = "a red hat, " * 30 + "on a man"
    sampling = Sampling(steps=2, merge=0.0)
    drawn = method.generate(
        identity, [Request(text, sampling) for text in (start + "on the beach", start + "in the snow", late)]
    )
    assert difference(drawn[0], drawn[1]) > 0
    assert difference(drawn[0], drawn[2]) > 0
    assert not method.pipeline.is_long([PROMPT], identity, ["worst quality"])
    assert method.pipeline.is_long([PROMPT], identity, ["red " * 90])
