"""Several people as one identity, for prompts such as "a man img and a woman img"."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from photomaker.errors import IdentityError
from photomaker.types import Identity

FEWEST, MOST = 2, 4
"""Most people in a picture: with more, each has too few pixels for a likeness."""


def together(identities: Sequence[Identity]) -> Identity:
    """Combine several people.

    Args:
        identities: 2 to 4 of one method and encoder, in the order of their triggers.

    Returns:
        Identity with `id_features` and `weights` of all photos and `subjects` int64 [refs], the person of each from 0.

    Raises:
        IdentityError: There are fewer or more people, or they do not belong together.
    """
    if not FEWEST <= len(identities) <= MOST:
        raise IdentityError(
            f"the number of identities to combine is {len(identities)}; give {FEWEST} to {MOST}, one for each "
            "person in the picture"
        )
    first = identities[0]
    for place, one in enumerate(identities, 1):
        if "id_features" not in one.tensors or "subjects" in one.tensors:
            raise IdentityError(
                f"identity {place} has several people, or a method that cannot combine people; give others"
            )
        if (
            one.method != first.method
            or one.tensors["id_features"].shape[1:] != first.tensors["id_features"].shape[1:]
        ):
            raise IdentityError(
                f"identity {place} was made by a different model ({one.method}), not {first.method}; make both "
                "with the same"
            )
    weights = [one.tensors.get("weights", torch.ones(len(one.tensors["id_features"]))) for one in identities]
    tensors = {
        "id_features": torch.cat([one.tensors["id_features"] for one in identities]),
        "weights": torch.cat(weights),
        "subjects": torch.cat([torch.full((len(own),), k) for k, own in enumerate(weights)]),
    }
    notes = {name: first.notes[name] for name in ("encoder", "encoder_sha256") if name in first.notes}
    return Identity(first.method, tensors, {**notes, "together": [dict(one.notes) for one in identities]})


def apart(identity: Identity) -> tuple[Identity, ...]:
    """The people that `together` put together, each as an identity of their own; one person stays as they are."""
    subjects = identity.tensors.get("subjects")
    if subjects is None:
        return (identity,)
    notes = identity.notes.get("together", [{}] * (int(subjects.max()) + 1))
    shared = {name: one for name, one in identity.tensors.items() if name != "subjects"}
    return tuple(
        Identity(identity.method, {name: one[subjects == place] for name, one in shared.items()}, own)
        for place, own in enumerate(notes)
    )


def photos_of_each(identity: Identity) -> tuple[int, ...]:
    """Photos with a weight of each person in an identity; one number for that of one person."""
    weights = identity.tensors.get("weights", torch.ones(len(identity.tensors["id_features"])))
    subjects = identity.tensors.get("subjects")
    if subjects is None:
        return (int((weights > 0).sum()),)
    return tuple(int(((weights > 0) & (subjects == k)).sum()) for k in range(int(subjects.max()) + 1))
