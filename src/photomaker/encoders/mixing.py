"""Identity mixing: a new person from the ID features of several, before fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from photomaker.errors import IdentityError, SettingsError
from photomaker.types import Identity

Mixing = Literal["blend", "proportion"]


def active_features(identity: Identity) -> tuple[Tensor, Tensor]:
    """Features [refs, D] (or [refs, tokens, D]) and weights [refs] of the photos of weight above 0."""
    features = identity.tensors["id_features"]
    weights = identity.tensors.get("weights", torch.ones(features.shape[0]))
    keep = weights > 0
    return features[keep], weights[keep]


def mix(parts: Sequence[tuple[Identity, float]], how: Mixing = "blend") -> Identity:
    """Mix identities.

    Args:
        parts: Identities with their shares, each share >= 0, in any unit (they are normalised to 1).
        how: "blend" interpolates the ID features photo by photo (shorter sets are repeated); "proportion" takes that
            share of photos from each, as many in all as the largest set has.

    Returns:
        An Identity of the same method.

    Raises:
        SettingsError: No parts, an impossible share, or an unknown `how`.
        IdentityError: The identities come from different methods or encoders, or hold no active photo.

    Source: arXiv 2312.04461, section 3.4 and figure 6 (proportion); the weighted variant: the authors' article.
    """
    shares = _normalised([share for _, share in parts])
    used = [(identity, share) for (identity, _), share in zip(parts, shares, strict=True) if share > 0]
    _check_same_space([identity for identity, _ in used])
    if how not in ("blend", "proportion"):
        raise SettingsError(f"how is {how!r}; give 'blend' or 'proportion'")
    active = [active_features(identity) for identity, _ in used]
    if any(len(features) == 0 for features, _ in active):
        raise IdentityError(
            "an identity to mix has weight 0 on every photo; give at least one photo a weight above 0"
        )
    kept_shares = [share for _, share in used]
    features, weights = (_blend if how == "blend" else _proportion)(active, kept_shares)
    first = used[0][0]
    same = {
        name: first.notes[name] for name in ("encoder", "encoder_sha256", "class_word") if name in first.notes
    }
    sources = [{"share": share, "notes": dict(identity.notes)} for identity, share in used]
    notes = same | {"mixed": how, "sources": sources}
    return Identity(first.method, {"id_features": features, "weights": weights}, notes)


def _normalised(shares: list[float]) -> list[float]:
    total = math.fsum(shares) if all(math.isfinite(share) and share >= 0 for share in shares) else 0.0
    if total <= 0:
        raise SettingsError(f"the shares of a mix are {shares}; give numbers from 0 up, at least one above 0")
    return [share / total for share in shares]


def _check_same_space(identities: list[Identity]) -> None:
    first = identities[0]
    for other in identities:
        if "id_features" not in other.tensors:
            raise IdentityError(f"an identity of method {other.method} has no ID features to mix")
        if other.method != first.method:
            raise IdentityError(
                f"identities of {first.method} and {other.method} cannot be mixed; make both with the same method"
            )
        widths = [tuple(one.tensors["id_features"].shape[1:]) for one in (first, other)]
        hashes = {one.notes.get("encoder_sha256") for one in (first, other)} - {None}
        if widths[0] != widths[1] or len(hashes) > 1:
            raise IdentityError(
                "the identities come from different ID encoders; make both with the same adapter"
            )


def _repeat(rows: Tensor, count: int) -> Tensor:
    return rows[torch.arange(count) % len(rows)]


def _blend(active: list[tuple[Tensor, Tensor]], shares: list[float]) -> tuple[Tensor, Tensor]:
    count = max(len(features) for features, _ in active)
    features = torch.stack(
        [share * _repeat(one, count) for (one, _), share in zip(active, shares, strict=True)]
    )
    weights = torch.stack(
        [share * _repeat(one, count) for (_, one), share in zip(active, shares, strict=True)]
    )
    return features.sum(dim=0), weights.sum(dim=0)


def _proportion(active: list[tuple[Tensor, Tensor]], shares: list[float]) -> tuple[Tensor, Tensor]:
    total = max(len(features) for features, _ in active)
    exact = [share * total for share in shares]
    counts = [math.floor(count) for count in exact]
    # largest remainders get the photos that rounding down left over
    by_remainder = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    features = torch.cat([_repeat(one, count) for (one, _), count in zip(active, counts, strict=True)])
    weights = torch.cat([_repeat(one, count) for (_, one), count in zip(active, counts, strict=True)])
    return features, weights
