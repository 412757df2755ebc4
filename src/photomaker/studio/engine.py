"""The engine of a sitting: a person's photos in, pictures of that person out, each with its likeness."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from photomaker import weights
from photomaker.errors import IdentityError, SettingsError
from photomaker.hub import adapter_file, base_folder, variant_of
from photomaker.images import Photo
from photomaker.methods.base import Method, Need
from photomaker.prompts import parse
from photomaker.registry import find
from photomaker.studio.device import Place, choose
from photomaker.studio.photos import Sitting, choose_faces, read_photos
from photomaker.studio.prompts import check_prompt
from photomaker.types import MEMORY_PLANS, Identity, Reference, Request, Sample, Sampling

if TYPE_CHECKING:
    from photomaker.encoders.mixing import Mixing
    from photomaker.faces import Detector, Recogniser

PHOTOMAKER = "photomaker"
FACES = ("auto", "bundled", "none")
FACE_EMBEDDINGS = "face_embeddings"
"""Tensor [photos, width] that an identity carries beside the method's own, to score likeness without the photos."""

Progress = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""
Who = Identity | Sitting | str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Image.Image]


@dataclass(frozen=True)
class Backends:
    """What finds and compares faces; None where nothing does."""

    detector: Detector | None = None
    recogniser: Recogniser | None = None


class Engine:
    """Generates pictures of people; the diffusion model is loaded when the first identity or picture is asked for.

    Example:
        >>> engine = Engine.open()  # doctest: +SKIP
        >>> ada = engine.identity("examples/ada")  # doctest: +SKIP
        >>> engine.generate(ada, "a photo of a woman img in the snow")[0].image.show()  # doctest: +SKIP
    """

    def __init__(
        self, method: Callable[[], Method], backends: Backends, about: Mapping[str, str] | None = None
    ) -> None:
        """Wrap a method; use `open` instead.

        Args:
            method: Loads the method; called once, when it is needed.
            backends: What finds and compares faces.
            about: What to write into every picture's file.
        """
        self._load = method
        self._backends = backends
        self.about = dict(about or {})

    @classmethod
    def open(
        cls,
        base: str | os.PathLike[str] | None = None,
        adapter: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        faces: str = "auto",
        memory: str = "auto",
        *,
        method: str = PHOTOMAKER,
        image_encoder: bool = True,
        face_models: str | os.PathLike[str] | None = None,
        variant: str | None = None,
    ) -> Engine:
        """Open an engine after checking that its weights are there and unaltered.

        Args:
            base: SDXL model as a diffusers folder or hub id; None is the bundled small model.
            adapter: PhotoMaker weights, official `.bin` or safetensors, as a file or hub id with the file's name, or
                those of the other method; None is the bundled ones. A base of one's own needs an adapter of its own,
                but for a method that is tuned for each person, which has none.
            device: `auto` or a torch device.
            dtype: `auto`, `fp32`, `bf16` or `fp16`.
            faces: `bundled` finds and compares faces by the bundled networks, which know drawn people only; `none` uses
                photos as they are and gives no likeness; `auto` is `bundled` with the bundled model, else `none`.
            memory: `max-speed`, `balanced`, `lowest`, or `auto` for the fastest that fits; see
                `photomaker.pipelines.memory`.
            method: Name of the method in the registry, see docs/methods.md, or "module:Class".
            image_encoder: False leaves PhotoMaker's image encoder out: saved identities do not need it, photos do.
            face_models: What embeds faces for V2 and FaceID adapters: a folder of ONNX models, or the name of an
                InsightFace pack.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: Method, device, precision, face backend or memory plan is unknown, only one of base and
                adapter is given, or the method takes no such option.
            WeightsError: A model file is missing or altered, or cannot be fetched from the hub.
        """
        if memory not in MEMORY_PLANS:
            raise SettingsError(f"memory is {memory!r}; choose {', '.join(MEMORY_PLANS)}")
        kind = find("method", method)
        base_path, adapter_path = _model_paths(kind, base, adapter, variant)
        files = [path for path in (base_path, adapter_path) if path is not None]
        place = choose(device, dtype, memory, _model_bytes(base_path, adapter_path))
        if faces not in FACES:
            raise SettingsError(f"faces is {faces!r}; choose {', '.join(FACES)}")
        wanted = ("bundled" if base is None else "none") if faces == "auto" else faces
        about = {
            "Software": f"photomaker {version('photomaker')}",
            "model": "photomaker small" if base is None else Path(base).name,
            "model_hash": weights.model_hash(*files),
            "method": method,
        }
        # None where nothing is given: some methods have settings of their own for the bundled base
        places = (None if base is None else base_path, None if adapter is None else adapter_path)
        options: dict[str, Any] = {"memory": memory, "face_models": face_models, "variant": variant}
        if kind.name == PHOTOMAKER:  # nobody needs the base again in a sitting
            options |= {"image_encoder": image_encoder, "fuse_lora": True}
        taken = _taken(kind, options)
        return cls(lambda: _open_method(kind, places, place, taken), _open_backends(wanted), about)

    @cached_property
    def method(self) -> Method:
        """The method, loaded at the first use."""
        return self._load()

    @property
    def detector(self) -> Detector | None:
        """What finds faces in photos."""
        return self._backends.detector

    @property
    def recogniser(self) -> Recogniser | None:
        """What compares faces."""
        return self._backends.recogniser

    def look(
        self, photos: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Image.Image]
    ) -> Sitting:
        """Read photos and find the person in each; no diffusion model is loaded.

        Args:
            photos: A folder, a file, or a sequence of folders, files and pictures.

        Raises:
            PhotoError: There is no photo, one cannot be read, or none shows a face.
        """
        several = [photos] if isinstance(photos, str | os.PathLike) else list(photos)
        read = [_as_photo(one, place) for place, one in enumerate(several, 1) if isinstance(one, Image.Image)]
        paths = [one for one in several if not isinstance(one, Image.Image)]
        if paths or not read:
            read += read_photos(paths)
        return self.choose(read)

    def choose(self, photos: Sequence[Photo]) -> Sitting:
        """Find the person in photos that were read already.

        Raises:
            PhotoError: None of them shows a face.
        """
        return choose_faces(photos, self.detector)

    @property
    def tunes(self) -> bool:
        """Whether the method is tuned for each person, which takes minutes instead of a moment."""
        return Need.TUNING in self.method.needs

    def identity(
        self,
        photos: Sitting | str | os.PathLike[str] | Sequence[Any],
        class_word: str | None = None,
        progress: Progress | None = None,
    ) -> Identity:
        """Make an identity of photos.

        Args:
            photos: What `look` takes or gives.
            class_word: What a method that is tuned for each person calls this one, such as `woman`; others note it.
            progress: Told of the steps of such a method.

        Raises:
            PhotoError: See `look`.
            SettingsError: The class word is no word, or the base cannot be tuned.
        """
        sitting = photos if isinstance(photos, Sitting) else self.look(photos)
        told: dict[str, Any] = {} if class_word is None else {"notes": {"class_word": class_word}}
        if progress is not None and self.tunes:
            told["progress"] = lambda step, steps, _: progress(step, steps)
        identity = self.method.fit(sitting.references, **told)
        embeddings = self._embed_references(sitting.references)
        if embeddings is None:
            return identity
        tensors = {**identity.tensors, FACE_EMBEDDINGS: torch.from_numpy(embeddings)}
        return replace(identity, tensors=tensors)

    def generate(
        self,
        who: Who,
        prompt: str,
        n: int = 1,
        sampling: Sampling | None = None,
        negative: str | None = None,
        best_of: int = 1,
        batch: int = 8,
        progress: Progress | None = None,
    ) -> list[Sample]:
        """Generate pictures of a person.

        Args:
            who: An identity, or photos.
            prompt: What the pictures show; the trigger is put in where it is missing.
            n: Number of pictures, 1 or more.
            sampling: How they are drawn; picture k has the seed `sampling.seed + k`.
            negative: What they shall not show.
            best_of: Draw so many times `n` and keep those that are most like the person.
            batch: Pictures drawn at once.
            progress: Told of the pictures done.

        Returns:
            `n` pictures in the order of their seeds, or the best first where `best_of` is above 1.

        Raises:
            SettingsError: A number is out of range, or `best_of` is asked for and nothing can measure likeness.
            PromptError: See `check_prompt`.
            PhotoError: See `look`.
        """
        complete = check_prompt(prompt, negative)
        for name, value in {"n": n, "best_of": best_of, "batch": batch}.items():
            if value < 1:
                raise SettingsError(f"{name} is {value}; give 1 or more")
        if best_of > 1 and self.recogniser is None:
            raise SettingsError(f"best_of is {best_of}, but nothing here measures likeness; leave it at 1")
        sampling = sampling or Sampling()
        requests = [
            Request(complete, replace(sampling, seed=sampling.seed + place), negative)
            for place in range(n * best_of)
        ]
        if not isinstance(who, Identity):
            sitting = who if isinstance(who, Sitting) else self.look(who)  # before any model is loaded
            who = self.identity(sitting, self.class_word(complete))
        samples = self.draw(who, requests, batch, progress)
        return samples if best_of == 1 else rank(samples)[:n]

    def class_word(self, prompt: str) -> str | None:
        """What a method that is tuned for each person would call this one; None where the method is not tuned."""
        return parse(prompt).class_word if self.tunes else None

    def draw(
        self,
        identity: Identity,
        requests: Sequence[Request],
        batch: int = 8,
        progress: Progress | None = None,
    ) -> list[Sample]:
        """Draw one picture for each request, prompts and seeds as they are given.

        Args:
            identity: Whom the pictures show.
            requests: What they show.
            batch: Pictures drawn at once.
            progress: Told of the pictures done.
        """
        requests = [self._settled(request) for request in requests]
        # a method gets back what it made: to some every tensor is a weight
        own = {name: one for name, one in identity.tensors.items() if name != FACE_EMBEDDINGS}
        plain = replace(identity, tensors=own)
        samples: list[Sample] = []
        if progress:
            progress(0, len(requests))
        for start in range(0, len(requests), batch):
            part = requests[start : start + batch]
            pictures = self.method.generate(plain, part)
            scores = self.likeness(pictures, identity)
            samples += [Sample(*one) for one in zip(pictures, part, scores, strict=True)]
            if progress:
                progress(len(samples), len(requests))
        return samples

    def likeness(self, pictures: Sequence[Image.Image], identity: Identity) -> list[float | None]:
        """How like the person each picture is: mean cosine of its largest face to the reference faces, in -1..1.

        None stands where no face was found, and everywhere if the identity carries no faces to compare with.
        """
        known = identity.tensors.get(FACE_EMBEDDINGS)
        if known is None or self.detector is None or self.recogniser is None:
            return [None] * len(pictures)
        known_faces = known.float().numpy()
        faces = [
            max(self.detector.detect(picture), key=lambda face: face.area, default=None)
            for picture in pictures
        ]
        seen = [(picture, face) for picture, face in zip(pictures, faces, strict=True) if face is not None]
        if not seen:
            return [None] * len(pictures)
        embedded = self.recogniser.embed_batch([picture for picture, _ in seen], [face for _, face in seen])
        if embedded.shape[1] != known_faces.shape[1]:
            raise IdentityError(
                f"the identity's faces have {known_faces.shape[1]} numbers, the recogniser's {embedded.shape[1]}; "
                "make the identity again from the photos"
            )
        scores = iter((embedded @ known_faces.T).mean(axis=1).tolist())
        return [None if face is None else next(scores) for face in faces]

    def _settled(self, request: Request) -> Request:
        """The request with the method's own guidance and merging, so that the picture's file can name them."""
        defaults, sampling = getattr(self.method, "defaults", None), request.sampling
        guidance, merge = sampling.guidance, sampling.merge
        guidance = getattr(defaults, "guidance", None) if guidance is None else guidance
        merge = getattr(defaults, "merge", None) if merge is None else merge
        return replace(request, sampling=replace(sampling, guidance=guidance, merge=merge))

    def _embed_references(self, references: Sequence[Reference]) -> np.ndarray | None:
        faces = [reference.face for reference in references]
        if self.recogniser is None or any(face is None for face in faces):
            return None
        found = [face for face in faces if face is not None]
        return self.recogniser.embed_batch([reference.image for reference in references], found)


def rank(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, most like the person first; those without a face last."""
    return sorted(
        samples, key=lambda sample: -2.0 if sample.likeness is None else sample.likeness, reverse=True
    )


def mix(first: Identity, second: Identity, share: float, how: Mixing = "blend") -> Identity:
    """A person between two.

    Args:
        first: What share 0 gives.
        second: What share 1 gives.
        share: 0..1.
        how: `blend` interpolates features, `proportion` takes photos of each in that proportion.

    Raises:
        SettingsError: The share lies outside 0..1.
        IdentityError: The identities were made by different models.
    """
    from photomaker.encoders import mix as mix_features

    if not 0 <= share <= 1:
        raise SettingsError(
            f"the share is {share}; give a number from 0 (the first person) to 1 (the second)"
        )
    mixed = mix_features([(first, 1 - share), (second, share)], how=how)
    faces = [
        identity.tensors[FACE_EMBEDDINGS]
        for identity, part in ((first, 1 - share), (second, share))
        if part > 0 and FACE_EMBEDDINGS in identity.tensors
    ]
    return replace(mixed, tensors={**mixed.tensors, FACE_EMBEDDINGS: torch.cat(faces)}) if faces else mixed


def _as_photo(image: Image.Image, place: int) -> Photo:
    from photomaker.images import to_rgb

    return Photo(to_rgb(image), f"picture {place}", "")


def _model_paths(
    kind: type[Method],
    base: str | os.PathLike[str] | None,
    adapter: str | os.PathLike[str] | None,
    variant: str | None,
) -> tuple[Path, Path | None]:
    if Need.TUNING in kind.needs:
        if adapter is not None:
            raise SettingsError(
                f"{kind.name} is tuned for each person and takes no adapter ({adapter}); leave it out"
            )
    elif (base is None) != (adapter is None):
        missing = "an adapter" if adapter is None else "a base"
        raise SettingsError(
            f"{missing} is missing; give base and adapter together, or neither for the bundled model"
        )
    own = getattr(kind, "bundled_file", None)
    if base is None:
        return weights.bundled("base"), None if own is None else weights.bundled(own)
    folder = base_folder(base, variant)
    variant_of(folder, variant)  # told here, before anything is loaded
    return folder, None if adapter is None else adapter_file(adapter)


def _taken(kind: type[Method], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a method can be opened with; one that was given and is not among them is refused."""
    takes = signature(kind.open).parameters  # type: ignore[attr-defined]
    left = {name: value for name, value in options.items() if value not in (None, "auto")}
    unknown = sorted(left.keys() - takes.keys())
    if unknown:
        raise SettingsError(
            f"the method {kind.name} takes no {unknown[0]} ({left[unknown[0]]}); leave it out"
        )
    return {name: value for name, value in options.items() if name in takes}


def _model_bytes(base: Path, adapter: Path | None) -> int:
    """Bytes of the weights that are loaded: of several forms of a part, one."""
    parts = [folder for folder in base.iterdir() if folder.is_dir()]
    largest = (max((file.stat().st_size for file in part.glob("*.safetensors")), default=0) for part in parts)
    return sum(largest) + (0 if adapter is None else adapter.stat().st_size)


def _open_method(
    kind: Any,  # noqa: ANN401 - a method's class
    places: tuple[Path | None, Path | None],
    place: Place,
    options: Mapping[str, Any],
) -> Method:
    opened: Method = kind.open(*places, device=place.device, dtype=place.torch_dtype, **options)
    return opened


def _open_backends(wanted: str) -> Backends:
    if wanted == "none":
        return Backends()
    from photomaker.faces import BundledFaces, BundledRecogniser

    return Backends(BundledFaces.open(), BundledRecogniser.open())
