"""Identities from photos, and the identities of a call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from photomaker import registry
from photomaker.checks import shown
from photomaker.encoders import PhotoMakerIDEncoder, preprocess
from photomaker.encoders.preprocess import PhotoLike, as_picture, is_one_photo
from photomaker.errors import IdentityError, PhotoError, SettingsError, WeightsError
from photomaker.images import list_photos
from photomaker.pipelines.drop_in.adapters import AdapterMixin, execution_of
from photomaker.types import Identity

METHOD = "photomaker-"
Photos = PhotoLike | Sequence[PhotoLike] | Sequence[Sequence[PhotoLike]]
FaceEmbeds = Tensor | np.ndarray | Sequence[Tensor | np.ndarray | Sequence[float]]


class IdentityMixin(AdapterMixin):
    """Makes identities from photos.

    Attributes:
        face_models: What embeds faces for V2 adapters where no `id_embeds` are given: the name of an InsightFace model
            pack, a folder of such models, or an object with `embed(photos)`, which gives an array or None a photo.
    """

    face_models: Any = "buffalo_l"

    @torch.no_grad()
    def encode_identity(
        self,
        photos: PhotoLike | Sequence[PhotoLike],
        weights: Sequence[float] | None = None,
        notes: Mapping[str, Any] | None = None,
        id_embeds: FaceEmbeds | None = None,
    ) -> Identity:
        """Make an identity from photos of a person.

        Args:
            photos: One or more photos of one person: PIL pictures, arrays, tensors, or paths of files and folders.
            weights: Weight of each photo, >= 0; 0 leaves it out. None is 1 everywhere.
            notes: Added to the identity's notes.
            id_embeds: For V2 adapters, a face embedding of each photo [refs, E], as the recogniser gives it, not
                normalised. None has them made by `face_models`; photos without a face are then left out.

        Returns:
            Identity with `id_features` float32 [refs, D], for V2 [refs, tokens, D], and `weights` float32 [refs].

        Raises:
            PhotoError: No photo, one that cannot be used (see `photomaker.encoders.as_picture`), or no face in any.
            SettingsError: Weights or face embeddings do not fit the photos or the adapter.
            WeightsError: The face models cannot be loaded, or the adapter was loaded without its image encoder.
        """
        return identity_of(self._loaded_encoder(), photos, weights, notes, id_embeds, self._face_embedder)

    def _face_embedder(self) -> Any:  # noqa: ANN401 - an object with `embed(photos)`
        self.face_models = opened_embedder(self.face_models)
        return self.face_models

    def identities_of(
        self,
        rows: int,
        photos: Photos | None,
        identity: Identity | Sequence[Identity] | None,
        id_embeds: FaceEmbeds | None,
    ) -> list[Identity]:
        """The people of a call, one for each of its rows.

        Args:
            rows: Rows of prompts.
            photos: Photos of one person, or of several.
            identity: Identities instead of photos.
            id_embeds: Face embeddings of the photos.

        Raises:
            PhotoError: Neither or both of photos and identity are given; there are not as many people as rows.
            IdentityError: An identity was made with another encoder.
            SettingsError: See `encode_identity`.
        """
        if (photos is None) == (identity is None):
            raise PhotoError(
                "give either input_id_images, the photos of the person, or identity, made from them"
            )
        if identity is not None and id_embeds is not None:
            raise PhotoError("an identity already contains face embeddings; leave id_embeds out")
        if identity is not None:
            given = [identity] if isinstance(identity, Identity) else list(identity)
            for one in given:
                check_identity(one, self._loaded_encoder())
        else:
            assert photos is not None
            people = _people(photos)
            faces = _faces_of(people, id_embeds)
            given = [
                self.encode_identity(person, id_embeds=own) for person, own in zip(people, faces, strict=True)
            ]
        if len(given) == 1:
            return given * rows
        if len(given) != rows:
            raise PhotoError(
                f"there are {len(given)} people for {rows} prompts; give one, or one for each prompt"
            )
        return given


def opened_embedder(face_models: Any) -> Any:  # noqa: ANN401 - an object with `embed(photos)`
    """The face embedder for V2 adapters.

    Args:
        face_models: The name of an InsightFace model pack, a folder of such models, or an opened embedder.

    Raises:
        SettingsError: The extra `insightface` is not installed.
        WeightsError: The models cannot be loaded.
    """
    if isinstance(face_models, str | os.PathLike):
        return registry.find("face embedder", "insightface").open(face_models)
    return face_models


def identity_of(
    encoder: PhotoMakerIDEncoder,
    photos: PhotoLike | Sequence[PhotoLike],
    weights: Sequence[float] | None,
    notes: Mapping[str, Any] | None,
    id_embeds: FaceEmbeds | None,
    embedder: Callable[[], Any],
) -> Identity:
    """Make an identity from photos; see `IdentityMixin.encode_identity` for the arguments.

    Args:
        encoder: The ID encoder.
        photos: Of one person.
        weights: Of the photos.
        notes: For the identity.
        id_embeds: Face embeddings for V2.
        embedder: Opens what makes them where they are not given.

    Raises:
        PhotoMakerError: As there.
    """
    if not encoder.sees:
        raise WeightsError(
            "the adapter was loaded without its image encoder, which photos need; load it again with it, or give a "
            "saved identity"
        )
    pictures = _pictures(photos)
    pixels = preprocess(pictures, encoder.config.image_size)
    given = torch.ones(len(pictures)) if weights is None else torch.tensor(list(weights), dtype=torch.float32)
    if given.shape != (len(pictures),) or not bool((torch.isfinite(given) & (given >= 0)).all()):
        raise SettingsError(
            f"the photo weights are {given.tolist()}; give one number from 0 up for each photo"
        )
    faces, seen, told = _faces(encoder, pictures, id_embeds, embedder)
    pixels, given = pixels[seen], given[seen]
    with execution_of(encoder) as device:
        inputs = [one[None].to(device, encoder.dtype) for one in (pixels, *faces)]
        features, given = encoder.composed(encoder.encode_photos(*inputs), given[None].to(device))
    return Identity(
        METHOD + encoder.version,
        {"id_features": features[0].float().cpu(), "weights": given[0].cpu()},
        {"encoder": f"{METHOD}{encoder.version}", "encoder_sha256": _hash_of(encoder)}
        | told
        | dict(notes or {}),
    )


def _hash_of(encoder: PhotoMakerIDEncoder) -> str | None:
    known = getattr(encoder.config, "weights_sha256", None)
    return None if known is None else str(known)


def _faces(
    encoder: PhotoMakerIDEncoder,
    pictures: list[Image],
    id_embeds: FaceEmbeds | None,
    embedder: Callable[[], Any],
) -> tuple[list[Tensor], list[int], dict[str, Any]]:
    """Face embeddings [seen, E] in a list, empty for V1; the photos that have one; and notes."""
    everyone = list(range(len(pictures)))
    if not encoder.needs_faces:
        if id_embeds is not None:
            raise SettingsError(
                f"the loaded adapter is {encoder.version} and takes no id_embeds; leave them out or load a V2 one"
            )
        return [], everyone, {}
    width = int(encoder.config.id_embeddings_dim)
    if id_embeds is not None:
        return [_face_tensor(id_embeds, len(pictures), width)], everyone, {}
    models = embedder()
    found = models.embed(pictures)
    seen = [place for place, face in enumerate(found) if face is not None]
    missing = [str(place + 1) for place in everyone if place not in seen]
    if not seen:
        raise PhotoError("no face was found in any photo; give photos with a large and clear face")
    if missing:
        warnings.warn(
            f"no face was found in photo {', '.join(missing)} of {len(pictures)}; it is left out",
            stacklevel=5,
        )
    embeds = _face_tensor([found[place] for place in seen], len(seen), width)
    return [embeds], seen, dict(getattr(models, "notes", {}))


def check_identity(identity: Identity, encoder: PhotoMakerIDEncoder) -> None:
    """Check that an identity was made by an ID encoder.

    Raises:
        IdentityError: It was made by another method, or with another encoder.
    """
    if identity.method != METHOD + encoder.version or "id_features" not in identity.tensors:
        raise IdentityError(
            f"the identity was made by {identity.method}, the loaded adapter is {METHOD}{encoder.version}; "
            "make it again with this adapter"
        )
    width = identity.tensors["id_features"].shape[-1]
    known, own = identity.notes.get("encoder_sha256"), _hash_of(encoder)
    foreign = known is not None and own is not None and known != own
    if width != encoder.width or foreign:
        raise IdentityError(
            "the identity was made with another ID encoder; make it again with the loaded adapter"
        )


def _one_person(photos: PhotoLike | Sequence[PhotoLike]) -> list[PhotoLike]:
    if is_one_photo(photos):
        return [cast(PhotoLike, photos)]
    if not isinstance(photos, Sequence | np.ndarray | Tensor):
        raise PhotoError(
            f"the photos are {shown(photos)}, a {type(photos).__name__}; give photos or their paths"
        )
    return list(cast(Sequence[PhotoLike], photos))


def _pictures(photos: PhotoLike | Sequence[PhotoLike]) -> list[Image]:
    """Pictures of one person, those of a folder one by one."""
    found: list[PhotoLike] = []
    for photo in _one_person(photos):
        found += list_photos([photo]) if isinstance(photo, str | os.PathLike) else [photo]
    return [as_picture(photo, f"photo {place}") for place, photo in enumerate(found, start=1)]


def _people(photos: Photos) -> list[list[PhotoLike]]:
    """Photos by person: of one photo or a flat list, one person; of a list of lists, as many as it has."""
    several = _one_person(cast(Sequence[PhotoLike], photos))
    if all(is_one_photo(photo) for photo in several):
        return [several]
    return [_one_person(one) for one in several]


def _faces_of(people: Sequence[object], id_embeds: FaceEmbeds | None) -> list[FaceEmbeds | None]:
    """Face embeddings by person."""
    if id_embeds is None or len(people) == 1:
        return [id_embeds] * len(people)
    if len(id_embeds) != len(people):
        raise SettingsError(
            f"there are {len(people)} people, but id_embeds for {len(id_embeds)}; give a list with those of each"
        )
    return [cast(FaceEmbeds, one) for one in id_embeds]


def _face_tensor(given: FaceEmbeds, photos: int, width: int) -> Tensor:
    """Face embeddings as float32 [photos, width]."""
    sentence = f"give one face embedding of {width} numbers for each of {photos} photos"
    try:
        embeds = torch.stack([torch.as_tensor(one, dtype=torch.float32).cpu() for one in given])
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(f"id_embeds have unequal lengths or are not numbers; {sentence}") from error
    if embeds.dim() == 3 and len(embeds) == 1:  # noqa: PLR2004 - a batch of one, as the official code has it
        embeds = embeds[0]
    if embeds.shape != (photos, width):
        raise SettingsError(f"id_embeds have shape {tuple(embeds.shape)}; {sentence}")
    if not bool(torch.isfinite(embeds).all()):
        raise SettingsError(f"id_embeds have numbers that are not finite; {sentence}")
    return embeds
