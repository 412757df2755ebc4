"""An adapter without a diffusion model gives what the pipeline gives, by text encoders of any library."""

import pytest
import torch

from photomaker import Identity, PhotoMakerAdapter
from photomaker.encoders import together
from photomaker.errors import IdentityError, PhotoMakerError, PromptError, SettingsError, WeightsError

MAN = "a photo of a man img on the beach"
LONG = "a photo of a man img " + "with a red hat " * 30 + "on the beach"


class Texts:
    """The pipeline's text encoders behind the two names that the adapter asks for."""

    def __init__(self, pipe):
        self.tokenizers = (pipe.tokenizer, pipe.tokenizer_2)
        self.encoders = (pipe.text_encoder, pipe.text_encoder_2)
        self.asked = 0

    def encode(self, ids, ids_2):
        self.asked += 1
        hidden, pooled = [], None
        for own, encoder in zip((ids, ids_2), self.encoders, strict=True):
            output = encoder(torch.tensor(own).view(-1, 77), output_hidden_states=True)
            hidden.append(output.hidden_states[-2].reshape(1, len(own), -1))
            pooled = output[0][:1]
        return torch.cat(hidden, -1), pooled


@pytest.fixture(scope="module")
def adapter(tiny_adapter_file):
    return PhotoMakerAdapter.open(tiny_adapter_file)


@pytest.fixture(scope="module")
def adapter_v2(tiny_adapter_v2_file):
    return PhotoMakerAdapter.open(tiny_adapter_v2_file)


def of_pipeline(pipe, prompt, identity):
    """The embeddings as the pipeline's own parts make them, with and without the person."""
    photos = int((identity.tensors["weights"] > 0).sum())
    encoded = pipe.encode_prompts(prompt, photos=photos, long_prompt=True)
    rows = pipe.expand_prompts([prompt], [photos * pipe.num_tokens], long_prompt=True)
    with torch.no_grad():
        merged = pipe.condition(rows, [identity])
    return (
        merged.embeds,
        merged.pooled,
        encoded["prompt_embeds_text_only"],
        encoded["pooled_prompt_embeds_text_only"],
    )


def made(got):
    return got.embeds, got.pooled, got.text_only_embeds, got.text_only_pooled


@pytest.mark.parametrize("prompt", [MAN, "a (man:1.4) img in the (snow:0.6)", LONG])
@pytest.mark.parametrize("count", [1, 3])
def test_embeddings_are_the_pipelines(pipe, adapter, photos, prompt, count):
    identity = adapter.identity(photos[:count])
    got = adapter.prompt(prompt, identity, Texts(pipe))
    for one, wanted in zip(made(got), of_pipeline(pipe, prompt, identity), strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-5, rtol=0)
    assert (got.embeds - got.text_only_embeds).abs().max() > 0.1


def test_the_identity_is_the_pipelines(pipe, adapter, photos):
    ours, theirs = (one(photos[:3], [1, 0.5, 0]) for one in (adapter.identity, pipe.encode_identity))
    assert ours.method == theirs.method
    assert ours.notes == theirs.notes
    for name, tensor in theirs.tensors.items():
        torch.testing.assert_close(ours.tensors[name], tensor)


def test_the_lora_is_the_files(adapter, pipe):
    assert adapter.version == "v1"
    assert {name.split(".")[0] for name in adapter.lora} == {"unet"}
    assert len(adapter.lora) == 2 * len(
        [name for name, _ in pipe.unet.named_modules() if _is_projection(name)]
    )


def _is_projection(name):
    return ".attn" in name and name.endswith(("to_q", "to_k", "to_v", "to_out"))


def test_v2_takes_face_embeddings_and_two_tokens_a_photo(pipe, adapter_v2, photos):
    width = adapter_v2._encoder.config.id_embeddings_dim
    faces = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    identity = adapter_v2.identity(photos[:2], id_embeds=faces)
    got = adapter_v2.prompt(MAN, identity, Texts(pipe))
    changed = ((got.embeds - got.text_only_embeds).abs().amax(-1) > 1e-6).sum()
    assert adapter_v2.version == "v2"
    assert changed >= 4


def test_v2_has_faces_embedded_where_none_are_given(adapter_v2, photos):
    class Faces:
        notes = {"faces": "by this test"}  # noqa: RUF012

        def embed(self, pictures):
            return [torch.ones(adapter_v2._encoder.config.id_embeddings_dim) for _ in pictures]

    assert adapter_v2.identity(photos[:2], face_models=Faces()).notes["faces"] == "by this test"


def test_nobody_leaves_the_prompt_as_it_is(pipe, adapter, photos):
    got = adapter.prompt(MAN, adapter.identity(photos[:1], [0]), Texts(pipe))
    assert torch.equal(got.embeds, got.text_only_embeds)
    assert torch.equal(got.pooled, got.text_only_pooled)


def test_the_trigger_is_put_in(pipe, adapter, photos):
    got = adapter.prompt("a photo of a man on the beach", adapter.identity(photos[:1]), Texts(pipe))
    assert got.prompt == MAN


@pytest.mark.parametrize(
    ("prompt", "change", "error", "words"),
    [
        ("a house", None, PromptError, "no class word"),
        (7, None, PromptError, "the prompt is 7"),
        (MAN, lambda one: Identity("ip_adapter", one.tensors), IdentityError, "made by ip_adapter"),
        (MAN, lambda one: together([one, one]), IdentityError, "give an identity of one person"),
        (MAN, lambda _: "ada", SettingsError, "give an Identity"),
    ],
)
def test_mistakes_are_told_before_a_model_runs(pipe, adapter, photos, prompt, change, error, words):
    identity = adapter.identity(photos[:1])
    texts = Texts(pipe)
    with pytest.raises(error, match=words):
        adapter.prompt(prompt, identity if change is None else change(identity), texts)
    assert not texts.asked


def test_text_encoders_of_another_width_are_refused(pipe, adapter, photos):
    class Narrow(Texts):
        def encode(self, ids, ids_2):
            embeds, pooled = super().encode(ids, ids_2)
            return embeds[..., :-8], pooled

    with pytest.raises(IdentityError, match=r"width 72, but the adapter .* is for 80"):
        adapter.prompt(MAN, adapter.identity(photos[:1]), Narrow(pipe))


def test_what_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(WeightsError):
        PhotoMakerAdapter.open(tmp_path / "missing.bin")
    with pytest.raises(PhotoMakerError, match="one word without spaces"):
        PhotoMakerAdapter.open(trigger_word="a b")
