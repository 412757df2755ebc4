"""Stacked fusion: against the formula row by row, for ragged batches, without touching its arguments."""

import pytest
import torch
from tests.tiny import VISION, WIDTH

from photomaker.encoders import FuseModule, PhotoMakerIDEncoder, vision_config
from photomaker.encoders.fusion import OneEmbedding
from photomaker.errors import IdentityError, SettingsError


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


def test_without_the_class_word_the_photos_alone_decide(module):
    embeds, features, mask = arguments()
    alone = FuseModule(WIDTH, class_word=False).requires_grad_(False)
    alone.load_state_dict(module.state_dict())
    fused = alone(embeds, features, mask)
    torch.testing.assert_close(fused[0, 2], by_hand(module, torch.zeros(WIDTH), features[0, 0]))
    assert torch.equal(alone(embeds + 1, features, mask)[mask], fused[mask])
    assert torch.equal(fused[~mask], embeds[~mask])
    assert not torch.equal(module(embeds + 1, features, mask)[mask], module(embeds, features, mask)[mask])


def test_averaging_is_the_weighted_mean_and_leaves_padding_out():
    features = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[1.0, 1, 1, 1], [1, 3, 0, 0], [0, 0, 0, 0]])
    one, weight = OneEmbedding(WIDTH, adaptive=False)(features, weights)
    assert one.shape == (3, 1, WIDTH)
    torch.testing.assert_close(one[0, 0], features[0].mean(0))
    torch.testing.assert_close(one[1, 0], 0.25 * features[1, 0] + 0.75 * features[1, 1])
    assert weight[:, 0].tolist() == [
        1,
        1,
        0,
    ]  # a person whose photos all have weight 0 stays out of the prompt
    two_tokens, _ = OneEmbedding(WIDTH, adaptive=False)(features.view(3, 4, 2, -1), weights)
    torch.testing.assert_close(two_tokens.flatten(2), one)


def test_the_linear_layer_starts_as_the_mean_and_learns_each_photos_share():
    features = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    weights = torch.ones(1, 3)
    layer = OneEmbedding(WIDTH, adaptive=True)
    torch.testing.assert_close(layer(features, weights)[0][0, 0], features[0].mean(0))
    layer(features, weights)[0].square().sum().backward()
    assert layer.score.weight.grad.abs().max() > 0
    with torch.no_grad():
        layer.score.weight.copy_(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1)))
        shares = (features[0] @ layer.score.weight[0]).softmax(0)
        torch.testing.assert_close(layer(features, weights)[0][0, 0], shares @ features[0])
        order = [2, 0, 1]
        torch.testing.assert_close(layer(features[:, order], weights)[0], layer(features, weights)[0])


def test_an_encoder_is_arranged_and_says_so_only_where_it_is_not_the_released_method():
    plain = PhotoMakerIDEncoder(vision_config(**VISION))
    assert plain.stacks
    assert not hasattr(plain.config, "stack") and not hasattr(plain.config, "class_word")
    names = set(plain.state_dict())
    plain.arrange("average", False)
    assert not plain.stacks and not plain.fuse_module.class_word
    assert (plain.config.stack, plain.config.class_word, set(plain.state_dict())) == ("average", False, names)
    plain.arrange("linear", True)
    assert set(plain.state_dict()) - names == {"one_embedding.score.weight"}
    layer = plain.one_embedding
    plain.arrange("linear", True)
    assert plain.one_embedding is layer
    again = PhotoMakerIDEncoder(plain.config)
    assert set(again.state_dict()) == set(plain.state_dict()) and again.fuse_module.class_word
    with pytest.raises(SettingsError, match="'avarage'; did you mean average"):
        plain.arrange("avarage", True)
    with pytest.raises(SettingsError, match="'x'; give stacked, average or linear"):
        plain.arrange("x", True)
