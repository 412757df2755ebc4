"""Identity files that nobody vouches for."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from photomaker.errors import IdentityError
from photomaker.types import FORMAT, Identity

GOOD = {"format": FORMAT, "method": "photomaker-v1", "notes": "{}"}
FEATURES = {"id_features": torch.ones(2, 8), "weights": torch.ones(2)}


def written(path, tensors, metadata):
    save_file(tensors, path, metadata=metadata)
    return path


def test_a_good_file_is_read(tmp_path):
    notes = {"a": [1, None], "photos": []}
    path = written(tmp_path / "a.safetensors", FEATURES, GOOD | {"notes": json.dumps(notes)})
    identity = Identity.load(path)
    assert (identity.method, identity.notes) == ("photomaker-v1", notes)
    assert torch.equal(identity.tensors["id_features"], FEATURES["id_features"])


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": FORMAT, "notes": "{}"},
        {"format": FORMAT, "method": "x"},
        GOOD | {"notes": "no JSON"},
        GOOD | {"notes": "[]"},
        GOOD | {"notes": "5"},
        GOOD | {"notes": "[" * 20_000 + "]" * 20_000},
        GOOD | {"notes": '{"a": ' * 20_000 + "1" + "}" * 20_000},
        GOOD | {"notes": "9" * 5000},
    ],
    ids=["no method", "no notes", "no JSON", "a list", "a number", "deep list", "deep object", "digits"],
)
def test_damaged_notes_are_told_in_one_sentence(tmp_path, metadata):
    path = written(tmp_path / "a.safetensors", FEATURES, metadata)
    with pytest.raises(IdentityError, match=r"the notes in .*a\.safetensors are damaged; make it again"):
        Identity.load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"id_features": torch.full((2, 8), float("nan"))}, "has numbers that are not finite"),
        ({"id_features": torch.ones(2, 8, dtype=torch.int32)}, "are torch.int32"),
        ({"id_features": torch.ones(8)}, r"\(8,\), no features of photos"),
        ({"id_features": torch.ones(0, 8)}, "no features of photos"),
        (FEATURES | {"weights": torch.ones(3)}, "the weights .* do not fit its 2 photos"),
        (FEATURES | {"weights": -torch.ones(2)}, "the weights .* do not fit its 2 photos"),
        (FEATURES | {"weights": torch.ones(2, dtype=torch.int64)}, "the weights .* do not fit"),
    ],
)
def test_tensors_that_no_method_makes_are_refused(tmp_path, tensors, message):
    with pytest.raises(IdentityError, match=message):
        Identity.load(written(tmp_path / "a.safetensors", tensors, GOOD))


def test_weights_may_be_small_and_features_may_stand_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    Identity.load(written(path, FEATURES | {"weights": torch.tensor([0.0, 0.5])}, GOOD))
    Identity.load(written(path, {"id_features": torch.ones(2, 8)}, GOOD))
    Identity.load(written(path, {"weights": torch.ones(2)}, GOOD))


def test_the_words_name_file_and_remedy(tmp_path):
    path = written(tmp_path / "a.safetensors", FEATURES | {"weights": torch.ones(3)}, GOOD)
    words = f"the weights in {path} do not fit its 2 photos; make it again from the photos"
    with pytest.raises(IdentityError, match=f"^{re.escape(words)}$"):
        Identity.load(path)


def test_other_files_are_told_apart(tmp_path):
    with pytest.raises(IdentityError, match="is a safetensors file but no identity"):
        Identity.load(written(tmp_path / "a.safetensors", FEATURES, {"format": "pt"}))
    (tmp_path / "b.safetensors").write_bytes(b"x" * 30)
    with pytest.raises(IdentityError, match="is not an identity file or is damaged"):
        Identity.load(tmp_path / "b.safetensors")
    with pytest.raises(IdentityError, match="there is no identity file"):
        Identity.load(tmp_path)
