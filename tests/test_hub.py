"""Hub ids for base and adapter, from a cache as the hub's own library keeps it; the network is never asked."""

import shutil
from functools import partial

import pytest
from huggingface_hub import constants
from tests.tiny import in_hub_cache, tiny_instantid

from photomaker import hub
from photomaker.encoders.instantid import instantid_file
from photomaker.errors import WeightsError
from photomaker.studio.engine import Engine


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty hub cache, offline; `cache(repository, folder)` puts a repository into it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    return partial(in_hub_cache, tmp_path)


def test_a_published_ckpt_is_named_by_its_hub_id(cache, tmp_path):
    file = tmp_path / "flashface.ckpt"
    file.write_bytes(b"weights")
    snapshot = cache("someone/FlashFace", file)
    assert hub.adapter_file("someone/FlashFace/flashface.ckpt") == snapshot / "flashface.ckpt"


def test_instantid_is_fetched_with_its_identity_net(cache, tiny_folder):
    file = tiny_instantid(tiny_folder)
    snapshot = cache("someone/InstantID", file, file.parent / "ControlNetModel")
    for place in ("someone/InstantID", "someone/InstantID/ip-adapter.bin"):
        assert instantid_file(place) == snapshot / "ip-adapter.bin"
    cache("someone/half", file)
    with pytest.raises(WeightsError, match=r"config\.json of someone/half cannot be downloaded"):
        instantid_file("someone/half")


def test_hub_ids_are_found_in_the_cache(cache, tiny_base, tiny_adapter_file):
    base = cache("someone/tiny-sdxl", *tiny_base.iterdir())
    adapter = cache("someone/tiny-adapter", tiny_adapter_file)
    assert hub.base_folder("someone/tiny-sdxl") == base
    name = f"someone/tiny-adapter/{tiny_adapter_file.name}"
    assert hub.adapter_file(name) == adapter / tiny_adapter_file.name
    engine = Engine.open(base="someone/tiny-sdxl", adapter=name, device="cpu")
    assert engine.about["model"] == "tiny-sdxl"
    assert engine.method.pipeline.pm_version == "v1"


def test_official_repositories_need_no_file_name(cache, tiny_adapter_file, tmp_path):
    official = tmp_path / "photomaker-v1.bin"
    shutil.copy(tiny_adapter_file, official)
    snapshot = cache("TencentARC/PhotoMaker", official)
    assert hub.adapter_file("TencentARC/PhotoMaker") == snapshot / "photomaker-v1.bin"


def test_local_places_come_first(tiny_base, tiny_adapter_file):
    assert hub.base_folder(tiny_base) == tiny_base
    assert hub.adapter_file(tiny_adapter_file) == tiny_adapter_file


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("find", "place", "words"),
    [
        (hub.base_folder, "someone/nothing", "someone/nothing cannot be downloaded from the hub"),
        (hub.base_folder, "nothing", "not a diffusers model folder"),
        (hub.base_folder, "/none/such", "not a diffusers model folder"),
        (hub.adapter_file, "someone/nothing/a.bin", "a.bin of someone/nothing cannot be downloaded"),
        (hub.adapter_file, "someone/nothing", "no adapter file someone/nothing"),
        (hub.adapter_file, "a.bin", "no adapter file a.bin"),
        (hub.adapter_file, "../../a.bin", "no adapter file"),
    ],
)
def test_what_is_nowhere_is_told(find, place, words):
    with pytest.raises(WeightsError, match=words):
        find(place)


@pytest.fixture
def half(tiny_base, tmp_path):
    """The tiny base in its fp16 form alone."""
    import torch

    from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, dtype=torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    return tmp_path / "half"


def test_the_only_variant_is_taken(half, tiny_adapter_file):
    for variant in (None, "fp16"):
        engine = Engine.open(base=half, adapter=tiny_adapter_file, device="cpu", variant=variant)
        assert engine.method.pipeline.unet.conv_in.weight.shape[1] == 4


def test_a_variant_is_fetched_by_its_name(cache, half):
    snapshot = cache("someone/half", *half.iterdir())
    assert hub.base_folder("someone/half", "fp16") == snapshot
    assert hub.variant_of(snapshot) == "fp16"


def test_a_variant_that_is_not_there_is_told(half, tiny_base, tiny_adapter_file):
    for base, has in ((half, "fp16"), (tiny_base, "none")):
        with pytest.raises(WeightsError, match=f"no bf16 variant .it has: {has}."):
            Engine.open(base=base, adapter=tiny_adapter_file, device="cpu", variant="bf16")
