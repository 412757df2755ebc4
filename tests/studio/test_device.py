"""The precision of a CPU: bf16 where it is asked for, saves memory, or is timed to be faster with a large model."""

import pytest

from photomaker import bfloat16
from photomaker.studio import device
from photomaker.studio.device import LARGE, choose


@pytest.fixture(autouse=True)
def roomy(monkeypatch):
    monkeypatch.setattr(device, "_installed", lambda: 1e15)


@pytest.mark.parametrize(
    ("weights", "pays", "dtype"), [(LARGE, True, "bf16"), (LARGE, False, "fp32"), (LARGE - 1, True, "fp32")]
)
def test_a_large_model_takes_what_is_faster(monkeypatch, weights, pays, dtype):
    monkeypatch.setattr(bfloat16, "pays", lambda: pays)
    assert choose("cpu", weights=weights).dtype == dtype


def test_what_was_asked_for_is_taken(monkeypatch):
    monkeypatch.setattr(bfloat16, "pays", lambda: pytest.fail("nothing needs to be timed"))
    assert choose("cpu", "fp32", weights=LARGE).dtype == "fp32"
    assert choose("cpu", memory="lowest", weights=LARGE).dtype == "bf16"


def test_a_processor_without_the_instructions_is_not_timed(monkeypatch):
    bfloat16.pays.cache_clear()
    monkeypatch.setattr(bfloat16, "quick", lambda _device: False)
    monkeypatch.setattr(bfloat16, "_ratio", lambda *_: pytest.fail("it was timed"))
    try:
        assert not bfloat16.pays()
    finally:
        bfloat16.pays.cache_clear()


@pytest.mark.parametrize(("ratio", "pays"), [(1.1, False), (1.5, True)])
def test_the_instructions_must_be_faster_too(monkeypatch, ratio, pays):
    bfloat16.pays.cache_clear()
    monkeypatch.setattr(bfloat16, "quick", lambda _device: True)
    monkeypatch.setattr(bfloat16, "_ratio", lambda *_: ratio)
    try:
        assert bfloat16.pays() is pays
    finally:
        bfloat16.pays.cache_clear()


def test_the_ratio_is_of_the_same_work():
    import torch

    seen = []
    bfloat16._ratio(lambda one: seen.append(one.dtype), torch.zeros(1))
    assert set(seen) == {torch.float32, torch.bfloat16}
