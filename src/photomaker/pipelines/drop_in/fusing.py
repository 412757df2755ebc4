"""Prompts and people brought together: the stacked ID embedding in place of the class tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from photomaker.encoders import PhotoMakerIDEncoder, active_features, photos_of_each
from photomaker.errors import IdentityError
from photomaker.pipelines.drop_in.adapters import execution_of
from photomaker.pipelines.steps.merging import Conditioning
from photomaker.prompts import Copies, EncodedPrompts
from photomaker.types import Identity


def copies_of(identity: Identity, tokens: int) -> Copies:
    """Class tokens that an identity's photos take, for several people a number each.

    Args:
        identity: Of one person, or of several.
        tokens: Class tokens of a photo.

    Raises:
        IdentityError: One of several people has no photo with a weight.
    """
    each = tuple(count * tokens for count in photos_of_each(identity))
    if "subjects" not in identity.tensors:
        return each[0]
    if 0 in each:
        raise IdentityError(
            f"person {each.index(0) + 1} of {len(each)} has no photo with a weight above 0; leave the person out, "
            "or give a photo a weight"
        )
    return each


def merged(
    encoder: PhotoMakerIDEncoder, encoded: EncodedPrompts, identities: Sequence[Identity]
) -> Conditioning:
    """The conditioning after merging, without prompt weights.

    Args:
        encoder: The ID encoder.
        encoded: Prompts with as many class tokens as the photos take.
        identities: One a row; one whose photos all have weight 0 leaves its row as it is.
    """
    people = [active_features(identity) for identity in identities]
    active = torch.tensor([len(features) > 0 for features, _ in people], device=encoded.embeds.device)
    return Conditioning(_fused(encoder, encoded, people, active), encoded.pooled, active)


def _fused(
    encoder: PhotoMakerIDEncoder,
    encoded: EncodedPrompts,
    people: list[tuple[Tensor, Tensor]],
    active: Tensor,
) -> Tensor:
    features, weights = _padded(people, encoder.num_tokens, encoder.width)
    with execution_of(encoder) as device:
        embeds = encoded.embeds.to(device, encoder.dtype)
        masks = [
            mask.to(device) & active.to(device)[:, None]
            for mask in (encoded.class_tokens, encoded.class_tokens_2)
        ]
        return _fuse_both(encoder, embeds, features.to(embeds), weights.to(embeds), masks)


def _padded(people: list[tuple[Tensor, Tensor]], tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Features [rows, most * tokens, width] and weights [rows, most * tokens], short rows padded with zeros."""
    most = max(1, *(len(features) for features, _ in people)) * tokens
    features = torch.zeros(len(people), most, width)
    weights = torch.ones(len(people), most)
    for row, (own, own_weights) in enumerate(people):
        features[row, : len(own) * tokens] = own.reshape(-1, width)
        weights[row, : len(own) * tokens] = own_weights.repeat_interleave(tokens)
    return features, weights


def _fuse_both(
    encoder: PhotoMakerIDEncoder, embeds: Tensor, features: Tensor, weights: Tensor, masks: list[Tensor]
) -> Tensor:
    """Fuse where the class word may stand at different places in the two text encoders' halves of the embeddings."""
    if torch.equal(masks[0], masks[1]):
        return encoder.fuse(embeds, features, masks[0], weights=weights)
    cut = encoder.config.projection_dim
    # the second half is brought to the places of the first, fused there, and taken back to its own places
    aligned = embeds.clone()
    aligned[..., cut:][masks[0]] = embeds[..., cut:][masks[1]]
    fused = encoder.fuse(aligned, features, masks[0], weights=weights)
    result = torch.cat([fused[..., :cut], embeds[..., cut:]], dim=-1)
    result[..., cut:][masks[1]] = fused[..., cut:][masks[0]]
    return result
