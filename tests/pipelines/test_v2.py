"""V2 adapters: face embeddings beside the photos, two tokens a photo."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from photomaker.encoders import PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken
from photomaker.errors import PhotoError, SettingsError
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.types import Identity

PROMPT = "a photo of a man img on the beach"
WIDTH = 16


class Faces:
    """Knows a face for every picture whose first pixel is not black."""

    notes: ClassVar = {"face_models": "fake"}

    def embed(self, photos):
        return [self.face(np.asarray(photo)) for photo in photos]

    @staticmethod
    def face(pixels):
        return None if not pixels[0, 0].any() else np.random.default_rng(int(pixels.sum())).normal(size=WIDTH)


@pytest.fixture(scope="module")
def pipe(tiny_base, tiny_adapter_v2_file):
    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.load_photomaker_adapter(tiny_adapter_v2_file)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def embeds():
    return torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))


def picture(pipe, prompt=PROMPT, seeds=(0,), **arguments):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    settings = {"num_inference_steps": 2, "start_merge_step": -1, "output_type": "latent"} | arguments
    return pipe(prompt, generator=generators, **settings).images


def test_the_version_is_read_from_the_weights(pipe):
    assert pipe.pm_version == "v2"
    assert pipe.num_tokens == 2
    assert isinstance(pipe.id_encoder, PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken)


def test_each_photo_takes_two_tokens_and_its_face_matters(pipe, photos, embeds):
    identity = pipe.encode_identity(photos[:2], id_embeds=embeds[:2])
    assert identity.tensors["id_features"].shape == (2, 2, 80)
    rows = pipe.expand_prompts([PROMPT], [4])
    assert rows[0][0].slots == rows[1][0].slots == 4
    one = picture(pipe, input_id_images=photos[:2], id_embeds=embeds[:2])
    assert not torch.equal(one, picture(pipe, input_id_images=photos[:2], id_embeds=embeds[1:3]))
    # a batch of one, lists and arrays say the same
    for same in (embeds[None, :2], list(embeds[:2]), embeds[:2].numpy()):
        assert torch.equal(one, picture(pipe, input_id_images=photos[:2], id_embeds=same))


def test_a_saved_identity_gives_the_same_picture(pipe, photos, embeds, tmp_path):
    identity = pipe.encode_identity(photos[:2], id_embeds=embeds[:2])
    again = Identity.load(identity.save(tmp_path / "a.safetensors"))
    drawn = picture(pipe, input_id_images=photos[:2], id_embeds=embeds[:2])
    assert torch.equal(picture(pipe, identity=again), drawn)


def test_a_batch_of_two_people_is_two_batches_of_one(pipe, photos, embeds):
    both = picture(
        pipe,
        [PROMPT, "a photo of a woman img"],
        (3, 4),
        input_id_images=[photos[:1], photos[1:3]],
        id_embeds=[embeds[:1], embeds[1:3]],
    )
    first = picture(pipe, PROMPT, (3,), input_id_images=photos[:1], id_embeds=embeds[:1])
    second = picture(pipe, "a photo of a woman img", (4,), input_id_images=photos[1:3], id_embeds=embeds[1:3])
    torch.testing.assert_close(both, torch.cat([first, second]), rtol=1e-4, atol=1e-4)


def test_faces_are_found_in_the_photos(pipe, photos, told):
    black = photos[0].copy()
    black.putpixel((0, 0), (0, 0, 0))
    pipe.face_models = Faces()
    with told("no face was found in photo 2 of 3"):
        identity = pipe.encode_identity([photos[1], black, photos[2]], weights=[1, 2, 3])
    assert identity.tensors["id_features"].shape[0] == 2
    assert identity.tensors["weights"].tolist() == [1, 3]
    assert identity.notes["face_models"] == "fake"
    with pytest.raises(PhotoError, match="no face was found in any photo"):
        pipe.encode_identity([black])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.zeros(1, WIDTH), "shape"),
        (torch.zeros(2, WIDTH + 1), "shape"),
        (torch.full((2, WIDTH), float("nan")), "not finite"),
        ([[1.0], [1.0, 2.0]], "unequal lengths"),
    ],
)
def test_face_embeddings_that_do_not_fit(pipe, photos, wrong, words):
    with pytest.raises(SettingsError, match=words):
        pipe.encode_identity(photos[:2], id_embeds=wrong)


def test_v1_takes_no_face_embeddings(tiny_base, tiny_adapter_file, photos, embeds):
    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    with pytest.raises(SettingsError, match="takes no id_embeds"):
        pipeline.encode_identity(photos[:1], id_embeds=embeds[:1])


def test_photos_that_do_not_fit_are_told(pipe, photos, embeds):
    from photomaker.errors import PromptError

    prompt = "a " * 70 + "man img on the beach"
    with pytest.raises(PromptError, match="photos take 10 tokens"):
        picture(pipe, prompt, input_id_images=photos, id_embeds=embeds)


def test_a_saved_pipeline_keeps_the_encoder(pipe, photos, embeds, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    again = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tmp_path / "saved", add_watermarker=False)
    assert again.pm_version == "v2"
    features = [
        one.encode_identity(photos[:1], id_embeds=embeds[:1]).tensors["id_features"] for one in (pipe, again)
    ]
    torch.testing.assert_close(*features)
