"""Stacked fusion: against the formula row by row, for ragged batches, without touching its arguments."""

import pytest
import torch
from tests.tiny import VISION, WIDTH

from photomaker.encoders import FuseModule, PhotoMakerIDEncoder, vision_config
from photomaker.errors import IdentityError


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return FuseModule(WIDTH).requires_grad_(False)


def arguments(counts=(3, 1)):
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(len(counts), 12, WIDTH, generator=generator)
    features = torch.randn(len(counts), max(counts), WIDTH, generator=generator)
    mask = torch.zeros(len(counts), 12, dtype=torch.bool)
    for row, count in enumerate(counts):
        mask[row, 2 + row : 2 + row + count] = True
    return embeds, features, mask


def by_hand(module, class_row, feature):
    """The formula of the paper and the released code, in torch functions, for one token."""
    from torch.nn.functional import gelu, layer_norm, linear

    def mlp(part, x):
        normed = layer_norm(x, x.shape, part.layernorm.weight, part.layernorm.bias)
        return linear(gelu(linear(normed, part.fc1.weight, part.fc1.bias)), part.fc2.weight, part.fc2.bias)

    x = mlp(module.mlp1, torch.cat([class_row, feature])) + class_row
    return layer_norm(x + mlp(module.mlp2, x), x.shape, module.layer_norm.weight, module.layer_norm.bias)


def test_each_class_token_is_fused_with_its_own_photo(module):
    embeds, features, mask = arguments()
    fused = module(embeds, features, mask)
    for row, start, count in ((0, 2, 3), (1, 3, 1)):
        for place in range(count):
            wanted = by_hand(module, embeds[row, start + place], features[row, place])
            torch.testing.assert_close(fused[row, start + place], wanted)
    assert torch.equal(fused[~mask], embeds[~mask])


def test_arguments_stay_as_they_are(module):
    embeds, features, mask = arguments()
    before = [tensor.clone() for tensor in (embeds, features, mask)]
    module(embeds, features, mask)
    assert all(torch.equal(one, other) for one, other in zip(before, (embeds, features, mask), strict=True))


def test_a_row_with_fewer_photos_is_as_if_alone(module):
    embeds, features, mask = arguments()
    alone = module(embeds[1:], features[1:, :1], mask[1:])
    torch.testing.assert_close(module(embeds, features, mask)[1:], alone)


def test_weights_interpolate_between_class_word_and_fusion(module):
    embeds, features, mask = arguments((2, 2))
    full = module(embeds, features, mask)
    weights = torch.tensor([[0.0, 0.25], [1.0, 1.0]])
    mixed = module(embeds, features, mask, weights)
    torch.testing.assert_close(mixed[0, 2], embeds[0, 2])
    torch.testing.assert_close(mixed[0, 3], embeds[0, 3] + 0.25 * (full[0, 3] - embeds[0, 3]))
    assert torch.equal(mixed[1], full[1])


def test_more_class_tokens_than_photos_is_refused(module):
    embeds, features, mask = arguments((3, 1))
    with pytest.raises(IdentityError, match="3 class tokens for 2"):
        module(embeds, features[:, :2], mask)


def test_forward_is_encode_then_fuse_and_drops_photos_without_a_token():
    torch.manual_seed(0)
    encoder = PhotoMakerIDEncoder(vision_config(**VISION)).eval().requires_grad_(False)
    pixels = torch.randn(2, 3, 3, 32, 32)
    embeds, _, mask = arguments((2, 1))
    together = encoder(pixels, embeds, mask)
    features = encoder.encode_photos(pixels)
    assert features.shape == (2, 3, WIDTH)
    assert torch.equal(together, encoder.fuse(embeds, features, mask))
    torch.testing.assert_close(together, encoder(pixels[:, :2], embeds, mask))


def test_counts_smaller_than_the_mask_are_refused():
    encoder = PhotoMakerIDEncoder(vision_config(**VISION))
    embeds, features, mask = arguments((3, 1))
    with pytest.raises(IdentityError, match="outnumber"):
        encoder.fuse(embeds, features, mask, counts=torch.tensor([2, 1]))


def test_gradients_reach_encoder_and_fusion():
    encoder = PhotoMakerIDEncoder(vision_config(**VISION))
    embeds, _, mask = arguments((2, 1))
    encoder(torch.randn(2, 2, 3, 32, 32), embeds, mask).square().sum().backward()
    without = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
    assert not without
