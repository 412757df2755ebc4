"""Identity mixing by blending features and by proportion of photos."""

import pytest
import torch

from photomaker.encoders import mix
from photomaker.errors import IdentityError, SettingsError
from photomaker.types import Identity


def person(value, count, encoder="a", method="photomaker-v1"):
    features = value + torch.arange(count)[:, None] * torch.ones(count, 4)
    return Identity(
        method, {"id_features": features, "weights": torch.ones(count)}, {"encoder_sha256": encoder}
    )


def test_blend_interpolates_pairwise_and_repeats_the_shorter_set():
    mixed = mix([(person(0.0, 1), 1), (person(10.0, 3), 3)])
    wanted = 0.25 * 0.0 + 0.75 * torch.tensor([10.0, 11.0, 12.0])
    assert torch.equal(mixed.tensors["id_features"], wanted[:, None].expand(3, 4))
    assert torch.equal(mixed.tensors["weights"], torch.ones(3))


@pytest.mark.parametrize("how", ["blend", "proportion"])
def test_share_one_is_the_person_bit_for_bit(how):
    one = person(0.3, 3)
    mixed = mix([(one, 2.0), (person(7.7, 5), 0.0)], how=how)
    assert torch.equal(mixed.tensors["id_features"], one.tensors["id_features"])


@pytest.mark.parametrize(
    ("share", "from_first"), [(1.0, 4), (0.75, 3), (0.5, 2), (0.25, 1), (0.0, 0), (0.6, 2), (0.65, 3)]
)
def test_proportion_takes_that_share_of_photos(share, from_first):
    mixed = mix([(person(0.0, 4), share), (person(100.0, 4), 1 - share)], how="proportion")
    features = mixed.tensors["id_features"][:, 0]
    assert features.shape == (4,)
    assert int((features < 50).sum()) == from_first


def test_each_photo_brings_its_weight_along():
    one, other = person(0.0, 4), person(100.0, 4)
    weighed = [
        Identity(who.method, {**who.tensors, "weights": torch.arange(1.0, 5) * scale}, who.notes)
        for who, scale in ((one, 1), (other, 0.1))
    ]
    mixed = mix([(weighed[0], 0.5), (weighed[1], 0.5)], how="proportion")
    torch.testing.assert_close(mixed.tensors["weights"], torch.tensor([1.0, 2.0, 0.1, 0.2]))


def test_photos_of_weight_nothing_do_not_take_part():
    one = person(0.0, 2)
    off = Identity(one.method, {**one.tensors, "weights": torch.tensor([0.0, 0.5])}, one.notes)
    mixed = mix([(off, 1), (person(10.0, 1), 1)])
    assert torch.equal(mixed.tensors["id_features"], torch.full((1, 4), 5.5))
    assert torch.equal(mixed.tensors["weights"], torch.tensor([0.75]))


def test_notes_say_what_was_mixed():
    mixed = mix([(person(0.0, 1), 1), (person(1.0, 1), 1)])
    assert mixed.notes["mixed"] == "blend"
    assert [source["share"] for source in mixed.notes["sources"]] == [0.5, 0.5]
    assert mixed.notes["encoder_sha256"] == "a"


@pytest.mark.parametrize("shares", [(0, 0), (-1, 2), (float("nan"), 1)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(SettingsError, match="shares of a mix"):
        mix([(person(0.0, 1), shares[0]), (person(1.0, 1), shares[1])])


@pytest.mark.parametrize("other", [person(0.0, 1, encoder="b"), person(0.0, 1, method="instantid")])
def test_other_encoders_and_methods_are_refused(other):
    with pytest.raises(IdentityError):
        mix([(person(0.0, 1), 1), (other, 1)])


def test_an_unknown_way_is_refused():
    with pytest.raises(SettingsError, match="'average'"):
        mix([(person(0.0, 1), 1)], how="average")
