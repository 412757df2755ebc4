"""The engine: takes an order and returns pictures with their likeness; thread-safe."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from photomaker.checks import instance, number, whole
from photomaker.encoders.together import apart
from photomaker.errors import IdentityError, SettingsError
from photomaker.faces.base import Segmenter
from photomaker.images import Photo
from photomaker.methods.base import Method, Need
from photomaker.prompts import parse
from photomaker.speeds import EXACT, Speed
from photomaker.studio.events import Cancel, Denoised, Drawn, Listener, Note, Queued, Tuned
from photomaker.studio.opening import PHOTOMAKER, Profile, prepared
from photomaker.studio.orders.order import Order, Someone, Who, as_people, as_prompts
from photomaker.studio.orders.planning import Group, Plan, planned
from photomaker.studio.photos.coach import Report, advised, coached
from photomaker.studio.photos.face_backends import BUNDLED, Backends
from photomaker.studio.photos.sitting import Sitting, choose_faces, read_photos
from photomaker.studio.photos.verdict import Verdict
from photomaker.studio.pictures.redraw import (
    SmallFace,
    checked,
    faces_of,
    matching,
    places_of,
    redrawn_note,
    request_for,
    small_face,
    threshold,
    whose,
)
from photomaker.studio.provenance.consent import checked as checked_consent
from photomaker.studio.provenance.consent import told_of as consent_of
from photomaker.studio.provenance.consent import with_consent
from photomaker.studio.turns import Turns
from photomaker.types import PLAIN, Extras, Face, Identity, Reference, Request, Sample, Sampling

if TYPE_CHECKING:
    from photomaker.encoders.mixing import Mixing
    from photomaker.faces import Detector, Recogniser
    from photomaker.pipelines.steps.watching import Step
    from photomaker.studio.orders.styles import Style
    from photomaker.studio.photos.coach import Report

FACE_EMBEDDINGS = "face_embeddings"
"""Tensor [photos, width] in an identity, besides the method's own, to measure likeness without the photos.

For recognisers other than the bundled one, their name follows after a dot."""
FACE_SUBJECTS = f"{FACE_EMBEDDINGS}_subjects"
"""Tensor [photos] in an identity of several people: the person of each face."""
FACES = 8
"""Number of largest faces in a picture that are matched to several people."""
BATCH = 8
"""Pictures in a batch."""

Progress = Callable[[int, int], None]
"""Called with the number of finished pictures and the total."""


class Engine:
    """Makes pictures of people; the diffusion model is loaded for the first identity or picture.

    Any number of threads may call it at once: they are served batch by batch in the order of their calls, and each gets
    what it would get alone.

    Examples:
        >>> engine = Engine.open()  # doctest: +SKIP
        >>> ada = engine.identity("examples/ada")  # doctest: +SKIP
        >>> engine.generate(ada, "a photo of a woman img in the snow")[0].image.show()  # doctest: +SKIP
    """

    def __init__(
        self,
        method: Callable[[], Method],
        backends: Backends,
        about: Mapping[str, str] | None = None,
        profile: Profile | None = None,
        styles: str | os.PathLike[str] | None = None,
    ) -> None:
        """Wrap a method; use `open` instead.

        Args:
            method: Loads the method; called once, when it is needed.
            backends: The face backend.
            about: Metadata for every picture's file.
            profile: What is known about the model before it is loaded.
            styles: A file with the user's styles.
        """
        self._load = method
        self._backends = backends
        self.about = dict(about or {})
        self.profile = profile or Profile()
        self._styles = None if styles is None else Path(styles)
        self._turns = Turns()
        # face networks are small and quick, so callers take turns
        self._looking = threading.RLock()

    @classmethod
    def open(  # noqa: PLR0913 - all that can be chosen, by name
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
        styles: str | os.PathLike[str] | None = None,
    ) -> Engine:
        """Open an engine after checking that its weights exist and are unaltered.

        Args:
            base: SDXL model as a diffusers folder or hub id; None is the bundled small model.
            adapter: PhotoMaker weights, official `.bin` or safetensors, as a file or hub id with the file's name, or
                those of the other method; None is the bundled ones. A custom base needs its own adapter, except for
                tuned methods, which have none.
            device: `auto` or a torch device.
            dtype: `auto`, `fp32`, `bf16` or `fp16`.
            faces: `dlib` finds and compares faces in photographs (extra `faces`); `auraface` too, by models under
                Apache-2.0 that are downloaded at first use, and `insightface` by models for non-commercial research
                (extra `insightface`); `bundled` uses the bundled networks, which know only drawn people; `none` uses
                photos as they are and gives no likeness; `auto` is `bundled` with the bundled model, else `dlib` if
                it is installed, else `none`.
            memory: `max-speed`, `balanced`, `lowest`, or `auto` for the fastest that fits; see
                `photomaker.pipelines.drawing.memory`.
            method: Name of the method in the registry, see docs/methods.md, or "module:Class".
            image_encoder: False does not load PhotoMaker's image encoder, which photos need and saved
                identities do not.
            face_models: The face models for V2 and FaceID adapters: a folder of ONNX models, or the name of an
                InsightFace pack.
            variant: Variant of the base's weight files, such as `fp16`; None is the plain or only one.
            styles: A YAML file with your own styles, see docs/using.md.

        Raises:
            SettingsError: Method, device, precision, face backend or memory plan is unknown, only one of base and
                adapter is given, or the method takes no such option.
            WeightsError: A model file is missing or altered, or cannot be downloaded from the hub.
        """
        options = {
            "memory": memory,
            "face_models": face_models,
            "variant": variant,
            "image_encoder": image_encoder,
        }
        opened = prepared(base, adapter, device, dtype, faces, method, options)
        return cls(opened.load, opened.backends, opened.about, opened.profile, styles)

    def __repr__(self) -> str:
        """The model in a few words."""
        return f"Engine({self.profile.line})"

    @cached_property
    def _method(self) -> Method:
        return self._load()

    @property
    def method(self) -> Method:
        """The method, loaded at first use."""
        if "_method" not in vars(self):
            with self._turns.turn():
                return self._method
        return self._method

    @property
    def detector(self) -> Detector | None:
        """The face detector."""
        return self._backends.detector

    @property
    def recogniser(self) -> Recogniser | None:
        """The recogniser."""
        return self._backends.recogniser

    def styles(self) -> Mapping[str, Style]:
        """The style presets by name: the shipped ones and the user's.

        Raises:
            SettingsError: That file cannot be read.
        """
        from photomaker.studio.orders.styles import styles

        return styles(self._styles)

    # ---- people

    def look(self, photos: Who) -> Sitting:
        """Read photos and find the person in each; no diffusion model is loaded.

        Args:
            photos: A folder, a file, a picture, or a sequence of these.

        Raises:
            PhotoError: There is no photo, one cannot be read, or none shows a face.
            SettingsError: It is not a photo.
        """
        return self.choose(_read(photos))

    def choose(self, photos: Sequence[Photo]) -> Sitting:
        """Find the person in photos that are already read; the coach's findings are among the notes.

        Raises:
            PhotoError: None of them shows a face.
        """
        with self._looking:
            return advised(choose_faces(photos, self.detector, self.recogniser), self.recogniser)

    def coach(self, photos: Who) -> Report:
        """Which photos to keep or drop, why, and what to do; no diffusion model is loaded.

        Args:
            photos: What `look` takes.

        Raises:
            PhotoError: There is no photo, or one cannot be read.
            SettingsError: It is not a photo, or there is no face backend.
        """
        report = self.judge(_read(photos))
        if report is None:
            raise SettingsError(
                f"faces is {self.profile.faces}, so there is no face backend and photos cannot be checked; open the "
                "engine with a face backend for them, such as dlib"
            )
        return report

    @staticmethod
    def mix(first: Identity, second: Identity, share: float, how: Mixing = "blend") -> Identity:
        """Mix two people, with measurable likeness; see `photomaker.studio.engine.mix`.

        Args:
            first: The person at share 0.
            second: The person at share 1.
            share: 0..1.
            how: `blend` interpolates features, `proportion` takes photos of each in that proportion.

        Raises:
            SettingsError: The share is outside 0..1, or a person is not an identity.
            IdentityError: The identities were made by different models.
        """
        return mix(first, second, share, how)

    def judge(self, photos: Sequence[Photo]) -> Report | None:
        """The coach's report on a person's photos; None without a face backend.

        Args:
            photos: At least one.
        """
        if self.detector is None:
            return None
        with self._looking:
            return coached(photos, self.detector, self.recogniser)

    @property
    def tunes(self) -> bool:
        """Whether the method is tuned for each person, which takes minutes."""
        return Need.TUNING in (self.profile.kind or self.method).needs

    def identity(
        self,
        photos: Sitting | Who,
        class_word: str | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        on_event: Listener | None = None,
        *,
        consent: str | None = None,
    ) -> Identity:
        """Make an identity from photos.

        Args:
            photos: What `look` takes or returns.
            class_word: Class word that a tuned method trains with, such as `woman`; other methods only record it.
            progress: Called with the steps of a tuned method.
            cancel: Stops it, within one step.
            on_event: Called with events: `Queued`, `Tuned`.
            consent: Who agreed, when, and to what: a note that stays with the identity, its mixes and every picture of
                it.

        Raises:
            PhotoError: See `look`.
            SettingsError: The class word is not a word, the consent note is empty or too long, or the base
                cannot be tuned.
            Cancelled: It was stopped.
        """
        if consent is not None:
            checked_consent(consent)
        sitting = photos if isinstance(photos, Sitting) else self.look(photos)
        told: dict[str, Any] = {} if class_word is None else {"notes": {"class_word": class_word}}
        if self.tunes and not (progress is None and cancel is None and on_event is None):
            told["progress"] = _tuning(progress, cancel, on_event)
        with self._turns.turn(cancel, _waiting(on_event)):
            identity = self._method.fit(sitting.references, **told)
        if consent is not None:
            identity = with_consent(identity, consent)
        embeddings = self._embed_references(sitting.references)
        if embeddings is None:
            return identity
        assert self.recogniser is not None
        tensors = {**identity.tensors, face_key(self.recogniser): torch.from_numpy(embeddings)}
        return replace(identity, tensors=tensors)

    def _embed_references(self, references: Sequence[Reference]) -> np.ndarray | None:
        faces = [reference.face for reference in references]
        if self.recogniser is None or any(face is None for face in faces):
            return None
        found = [face for face in faces if face is not None]
        with self._looking:
            return self.recogniser.embed_batch([reference.image for reference in references], found)

    # ---- pictures

    def generate(  # noqa: PLR0913 - all that can be asked, by name
        self,
        who: Who | Order | Plan,
        prompt: str | Sequence[str] | None = None,
        n: int = 1,
        sampling: Sampling | None = None,
        negative: str | None = None,
        best_of: int = 1,
        batch: int = BATCH,
        progress: Progress | None = None,
        *,
        seeds: Sequence[int] = (),
        size: str | None = None,
        style: str = "none",
        extras: Extras = PLAIN,
        pairs: bool = False,
        redraw: str | int = "off",
        speed: Speed | str = EXACT,
        cancel: Cancel | None = None,
        on_event: Listener | None = None,
    ) -> list[Sample]:
        """Make pictures of a person, or of several.

        Args:
            who: An identity or its file, or photos; a list of identities, or of lists of photos, is several people.
                Or a whole `Order`, with which only `batch`, `progress`, `cancel` and `on_event` may be given.
            prompt: A prompt or a list of prompts; the trigger is added if it is missing.
            n: Number of pictures of each person and prompt, 1 or more.
            sampling: Sampling settings; picture k has the seed `sampling.seed + k`.
            negative: What they should not show.
            best_of: Draw this many times `n` and keep those with the highest likeness.
            batch: Pictures in a batch.
            progress: Called with the number of finished pictures.
            seeds: One seed for each of the `n` pictures.
            size: `portrait`, `landscape`, `square` or `640x480`.
            style: Name of a style preset.
            extras: LoRA, start picture, ControlNets and more.
            pairs: Whether to pair the first person with the first prompt only, and so on.
            redraw: Whether to redraw small faces: `off`, `auto`, or a limit in pixels; see `Order`.
            speed: `exact`, `fast`, `turbo` or `auto`; see docs/speed.md.
            cancel: Stops the call within one denoising step, from another thread or a callback.
            on_event: Called with all events, see `photomaker.studio.events`; if None, notes are issued as warnings.

        Returns:
            `n` pictures of each person and prompt, by person, then prompt, in the order of their seeds, or the best
            first if `best_of` is above 1.

        Raises:
            SettingsError: A value has the wrong type or is out of range, `best_of` has no recogniser for the likeness,
                or the method does not support the order.
            PromptError: See `check_prompt`.
            PhotoError: See `look`.
            Cancelled: It was stopped.
        """
        if isinstance(who, Order | Plan):
            order: Order | Plan = who
        else:
            order = Order(
                as_people(who), as_prompts(prompt), pairs, n, tuple(_listed("seeds", seeds)), best_of,
                Sampling() if sampling is None else sampling, size, style, negative, extras, redraw,
                speed=speed,
            )  # fmt: skip
        return list(self.stream(order, batch, progress, cancel, on_event))

    def plan(self, order: Order) -> Plan:
        """Check an order before any diffusion model is loaded: read its photos, complete its prompts.

        Raises:
            PhotoMakerError: Something in it cannot be done.
        """
        instance("the order", order, Order, "give an Order")
        measures, finds = self.recogniser is not None, self.detector is not None
        return planned(
            order, self.profile, self.look, measures, self._styles, finds, self._detected if finds else None,
            self._cut_out if isinstance(self.detector, Segmenter) else None,
        )  # fmt: skip

    def _detected(self, picture: Image.Image) -> list[Face]:
        with self._looking:
            return [] if self.detector is None else self.detector.detect(picture)

    def _cut_out(self, picture: Image.Image, face: Face) -> np.ndarray:
        with self._looking:
            assert isinstance(self.detector, Segmenter)
            return self.detector.person_mask(picture, face)

    def stream(
        self,
        order: Order | Plan,
        batch: int = BATCH,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        on_event: Listener | None = None,
    ) -> Iterator[Sample]:
        """The pictures of an order, each as soon as it is finished; see `generate`.

        All errors in the order are raised by this call, before the first picture is drawn.
        """
        whole("batch", batch, 1)
        plan = order if isinstance(order, Plan) else self.plan(order)
        for note in plan.notes:
            if on_event is None:
                warnings.warn(note, stacklevel=3)
            else:
                on_event(Note(note))
        return self._stream(plan, batch, progress, cancel, on_event)

    def _stream(
        self,
        plan: Plan,
        batch: int,
        progress: Progress | None,
        cancel: Cancel | None,
        on_event: Listener | None,
    ) -> Iterator[Sample]:
        order, done, total = plan.order, 0, plan.order.total
        if progress:
            progress(0, total)
        for number_ in range(len(order.people)):
            groups = [group for group in plan.groups if group.person == number_]
            if not groups:
                continue
            who = self.who(plan, number_, cancel, on_event)
            requests = [request for group in groups for request in group.requests]
            drawn = self._drawn(who, requests, batch, cancel, on_event, (done, total), order.redraw)
            for sample in _kept(_counted(drawn, progress, (done, total)), groups, order):
                yield replace(sample, notes={**sample.notes, **told_of(plan, number_)})
            done += len(requests)

    def who(
        self, plan: Plan, number_: int, cancel: Cancel | None = None, on_event: Listener | None = None
    ) -> Identity:
        """The identity that a plan's pictures of a person show: the person, or all people if drawn together."""
        word = self.class_word(plan.groups[0].requests[0].prompt)

        def made(person: Someone) -> Identity:
            assert isinstance(person.who, Identity | Sitting)
            if isinstance(person.who, Identity):
                return person.who
            return self.identity(person.who, word, None, cancel, on_event)

        people = plan.order.people
        return self.together([made(one) for one in people]) if plan.order.together else made(people[number_])

    def together(self, identities: Sequence[Identity]) -> Identity:
        """Combine several people into one identity, for pictures that show all of them.

        Args:
            identities: 2 to 4, in the order of their triggers in the prompts.

        Raises:
            SettingsError: The method cannot draw several people.
            IdentityError: They do not fit together.
        """
        for one in _listed("identities", identities):
            instance(
                "an identity", one, Identity, "make one by Engine.identity, or load one by Identity.load"
            )
        method = self.method
        if not hasattr(method, "together"):
            raise SettingsError(
                f"the method {method.name} cannot draw several people in one picture; use photomaker or fastcomposer"
            )
        made: Identity = method.together([_plain(one) for one in identities])
        known = [self._known(one) for one in identities]
        if self.recogniser is None or any(one is None for one in known):
            return made
        faces = [torch.from_numpy(one) for one in known if one is not None]
        whose = torch.cat([torch.full((len(one),), number_) for number_, one in enumerate(faces)])
        return replace(
            made, tensors={**made.tensors, face_key(self.recogniser): torch.cat(faces), FACE_SUBJECTS: whose}
        )

    def class_word(self, prompt: str) -> str | None:
        """The class word with which a tuned method trains this person; None if the method is not tuned."""
        return parse(prompt).class_word if self.tunes else None

    def draw(
        self,
        identity: Identity,
        requests: Sequence[Request],
        batch: int = BATCH,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        on_event: Listener | None = None,
        redraw: str | int = "off",
    ) -> list[Sample]:
        """Draw one picture for each request, with prompts and seeds as given.

        Args:
            identity: The person.
            requests: The requests.
            batch: Pictures in a batch.
            progress: Called with the number of finished pictures.
            cancel: Stops it within one denoising step.
            on_event: Called with all events.
            redraw: Whether to redraw small faces; see `Order`.

        Raises:
            SettingsError: A value has the wrong type.
            IdentityError: The identity does not fit the model.
            Cancelled: It was stopped.
        """
        instance(
            "the identity", identity, Identity, "make one by Engine.identity, or load one by Identity.load"
        )
        for request in _listed("requests", requests):
            instance("a request", request, Request, "give a Request")
        whole("batch", batch, 1)
        total = len(requests)
        if progress:
            progress(0, total)
        batches = self._drawn(identity, requests, batch, cancel, on_event, (0, total), checked(redraw))
        return list(_counted(batches, progress, (0, total)))

    def _drawn(
        self,
        identity: Identity,
        requests: Sequence[Request],
        batch: int,
        cancel: Cancel | None,
        on_event: Listener | None,
        count: tuple[int, int],
        redraw: str | int = "off",
    ) -> Iterator[list[Sample]]:
        """Samples batch by batch, one turn each; `count` is the pictures finished before and the total."""
        plain = _plain(identity)
        done, total = count
        for start in range(0, len(requests), batch):
            watch = _watching(cancel, on_event, (done, total))
            watched = {} if watch is None else {"watch": watch}
            with self._turns.turn(cancel, _waiting(on_event)):
                part = [self._settled(request) for request in requests[start : start + batch]]
                pictures = self._method.generate(plain, part, **watched)
                small = self._small_faces(pictures, part, identity, redraw)
                self._draw_again(small, pictures, part, plain, watched)
            scores = self.likeness(pictures, identity)
            sizes = [[one.size for one in small if one.picture == at] for at in range(len(pictures))]
            notes = [{"redrawn": redrawn_note(own)} if own else {} for own in sizes]
            consent = consent_of(identity)
            samples = [
                Sample(
                    picture,
                    request,
                    score,
                    {**self._verdict(score, identity), **consent, **notes[number_]},
                )
                for number_, (picture, request, score) in enumerate(zip(pictures, part, scores, strict=True))
            ]
            done += len(samples)
            if on_event is not None:
                for place, sample in enumerate(samples, done - len(samples) + 1):
                    on_event(Drawn(sample, place, total))
            yield samples

    def _draw_again(
        self,
        small: Sequence[SmallFace],
        pictures: list[Image.Image],
        requests: Sequence[Request],
        identity: Identity,
        watched: Mapping[str, Any],
    ) -> None:
        """Draw small faces again, each of its own person alone, and put them back into the pictures."""
        if not small or self.profile.size is None:
            return
        side, people = self.profile.size.side, apart(identity)
        for person, alone in enumerate(people):
            own = [one for one in small if one.person == person]
            if not own:
                continue
            again = [
                request_for(one, pictures[one.picture], requests[one.picture], side, len(people))
                for one in own
            ]
            for one, drawn in zip(own, self._method.generate(alone, again, **watched), strict=True):
                pictures[one.picture] = one.put_back(pictures[one.picture], drawn)

    def _small_faces(
        self,
        pictures: Sequence[Image.Image],
        requests: Sequence[Request],
        identity: Identity,
        redraw: str | int,
    ) -> list[SmallFace]:
        """Each person's face in each picture where it is small enough to be drawn again."""
        if redraw == "off" or self.detector is None or (size := self.profile.size) is None:
            return []
        with self._looking:
            found = [self.detector.detect(picture) for picture in pictures]
            if "subjects" in identity.tensors:
                theirs = [
                    self._faces_of_each(*one, identity) for one in zip(pictures, requests, found, strict=True)
                ]
            else:
                theirs = [[face] for face in self._faces_of_one(pictures, found, identity)]
        below = threshold(redraw, size.side)
        small = [
            small_face(number_, picture, face, below, size.side, person)
            for number_, (picture, faces) in enumerate(zip(pictures, theirs, strict=True))
            for person, face in enumerate(faces)
        ]
        return [one for one in small if one is not None]

    def _faces_of_one(
        self, pictures: Sequence[Image.Image], found: Sequence[Sequence[Face]], identity: Identity
    ) -> list[Face | None]:
        known = self._known(identity)
        scores = [
            None
            if known is None or self.recogniser is None or len(faces) < 2  # noqa: PLR2004 - no choice
            else (self.recogniser.embed_batch([picture] * len(faces), faces) @ known.T).mean(1).tolist()
            for picture, faces in zip(pictures, found, strict=True)
        ]
        return faces_of(found, scores)

    def _faces_of_each(
        self, picture: Image.Image, request: Request, found: Sequence[Face], identity: Identity
    ) -> list[Face | None]:
        """The face of each of several people in a picture; None for somebody whose face cannot be told."""
        faces = sorted(found, key=lambda face: -face.area)[:FACES]
        people = int(identity.tensors["subjects"].max()) + 1
        likeness = self._likeness_of(picture, faces, identity) if faces else None
        return whose(faces, picture.size, places_of(request, people), likeness)

    def _likeness_of(
        self, picture: Image.Image, faces: Sequence[Face], identity: Identity
    ) -> np.ndarray | None:
        """How like each person of an identity each face is [people, faces]; None where nothing tells."""
        known, subjects = self._known(identity), identity.tensors.get(FACE_SUBJECTS)
        if known is None or self.recogniser is None:
            return None
        whose_ = np.zeros(len(known), np.int64) if subjects is None else subjects.numpy()
        seen = self.recogniser.embed_batch([picture] * len(faces), list(faces))
        return np.stack([(seen @ known[whose_ == one].T).mean(1) for one in range(int(whose_.max()) + 1)])

    def likeness(self, pictures: Sequence[Image.Image], identity: Identity) -> list[float | None]:
        """The likeness of each picture: mean cosine of its largest face to the reference faces, in -1..1.

        None if no face was found, or if the identity has no faces to compare with.
        """
        known_faces = self._known(identity)
        if known_faces is None or self.detector is None or self.recogniser is None:
            return [None] * len(pictures)
        if FACE_SUBJECTS in identity.tensors:
            each = self.likeness_of_each(pictures, identity)
            return [
                None
                if any(one is None for one in own)
                else float(np.mean([one for one in own if one is not None]))
                for own in each
            ]
        with self._looking:
            faces = [
                max(self.detector.detect(picture), key=lambda face: face.area, default=None)
                for picture in pictures
            ]
            seen = [
                (picture, face) for picture, face in zip(pictures, faces, strict=True) if face is not None
            ]
            if not seen:
                return [None] * len(pictures)
            embedded = self.recogniser.embed_batch(
                [picture for picture, _ in seen], [face for _, face in seen]
            )
        if embedded.shape[1] != known_faces.shape[1]:
            raise IdentityError(
                f"the identity's face embeddings have {known_faces.shape[1]} numbers, the recogniser's "
                f"{embedded.shape[1]}; make the identity again from the photos"
            )
        scores = iter((embedded @ known_faces.T).mean(axis=1).tolist())
        return [None if face is None else next(scores) for face in faces]

    def likeness_of_each(
        self, pictures: Sequence[Image.Image], identity: Identity
    ) -> list[list[float | None]]:
        """The likeness of each of several people in each picture.

        Faces are assigned to people so that the sum of likeness is largest. None means that no face is left for a
        person, or that nothing can be measured.
        """
        known, subjects = self._known(identity), identity.tensors.get(FACE_SUBJECTS)
        people = 1 if subjects is None else int(subjects.max()) + 1
        if known is None or self.detector is None or self.recogniser is None:
            return [[None] * people for _ in pictures]
        found: list[list[float | None]] = []
        for picture in pictures:
            with self._looking:
                faces = sorted(self.detector.detect(picture), key=lambda face: -face.area)[:FACES]
                scores = self._likeness_of(picture, faces, identity) if faces else None
            found.append([None] * people if scores is None else assigned(scores))
        return found

    def _known(self, identity: Identity) -> np.ndarray | None:
        """The embeddings of an identity's faces by this engine's recogniser [photos, width]."""
        known = None if self.recogniser is None else identity.tensors.get(face_key(self.recogniser))
        return None if known is None else known.float().numpy()

    def verdict(self, likeness: float, identity: Identity) -> Verdict | None:
        """The verdict on a likeness; None if the identity has no faces to compare with."""
        known = self._known(identity)
        if known is None or self.recogniser is None:
            return None
        return Verdict.of(likeness, known, self.recogniser.calibration)

    def _verdict(self, likeness: float | None, identity: Identity) -> dict[str, str]:
        if FACE_SUBJECTS in identity.tensors:
            return {}  # a mean over people says nothing about any one of them
        found = None if likeness is None else self.verdict(likeness, identity)
        return {} if found is None else {"verdict": found.text}

    def _settled(self, request: Request) -> Request:
        """The request with the method's default guidance and merge step, so that the picture's file records them."""
        defaults, sampling = getattr(self._method, "defaults", None), request.sampling
        guidance, merge = sampling.guidance, sampling.merge
        guidance = getattr(defaults, "guidance", None) if guidance is None else guidance
        merge = getattr(defaults, "merge", None) if merge is None else merge
        return replace(request, sampling=replace(sampling, guidance=guidance, merge=merge))


def assigned(scores: np.ndarray) -> list[float | None]:
    """The score of each person's face, with faces assigned so that the sum is largest.

    Args:
        scores: [people, faces].
    """
    return [
        None if face is None else float(scores[person, face]) for person, face in enumerate(matching(scores))
    ]


def _plain(identity: Identity) -> Identity:
    """The identity without this engine's tensors: some methods treat every tensor as a weight."""
    own = {name: one for name, one in identity.tensors.items() if not name.startswith(FACE_EMBEDDINGS)}
    return replace(identity, tensors=own)


def names_of(order: Order, person: int) -> str:
    """Metadata about the people for a picture's file."""
    return ", ".join(one.name for one in order.people) if order.together else order.people[person].name


def _tuning(
    progress: Progress | None, cancel: Cancel | None, on_event: Listener | None
) -> Callable[[int, int, Any], None]:
    def told(step: int, steps: int, _: Any) -> None:  # noqa: ANN401 - the loss, which nobody needs here
        if cancel is not None:
            cancel.check()
        if progress is not None:
            progress(step, steps)
        if on_event is not None:
            on_event(Tuned(step, steps))

    return told


def _waiting(on_event: Listener | None) -> Callable[[int], None] | None:
    return None if on_event is None else lambda place: on_event(Queued(place))


def _watching(
    cancel: Cancel | None, on_event: Listener | None, count: tuple[int, int]
) -> Callable[[Step], None] | None:
    if cancel is None and on_event is None:
        return None

    def watch(step: Step) -> None:
        if on_event is not None:
            on_event(Denoised(step.number, step.steps, *count, step))
        if cancel is not None:
            cancel.check()

    return watch


def _counted(
    batches: Iterator[list[Sample]], progress: Progress | None, count: tuple[int, int]
) -> Iterator[Sample]:
    done, total = count
    for samples in batches:
        done += len(samples)
        if progress:
            progress(done, total)
        yield from samples


def _kept(samples: Iterator[Sample], groups: Sequence[Group], order: Order) -> Iterator[Sample]:
    """The kept samples, group by group: all of them as they come, or the best of each group."""
    for group in groups:
        if order.best_of == 1:
            for _ in group.requests:
                yield next(samples)
        else:
            yield from rank([next(samples) for _ in group.requests])[: order.n]


def told_of(plan: Plan, person: int) -> dict[str, str]:
    """Metadata about the order, besides the request, for a picture's file."""
    style = {} if plan.order.style.lower() == "none" else {"style": plan.order.style}
    speed = {} if plan.speed.preset == EXACT else {"speed": str(plan.speed)}
    return {**style, **speed, "person": names_of(plan.order, person)}


def _listed(name: str, values: object) -> Sequence[Any]:
    instance(name, values, (list, tuple), "give a list")
    assert isinstance(values, list | tuple)
    return values


def rank(samples: Sequence[Sample]) -> list[Sample]:
    """The samples sorted by likeness; those without a face last."""
    return sorted(
        samples, key=lambda sample: -2.0 if sample.likeness is None else sample.likeness, reverse=True
    )


def mix(first: Identity, second: Identity, share: float, how: Mixing = "blend") -> Identity:
    """Mix two people.

    Args:
        first: The person at share 0.
        second: The person at share 1.
        share: 0..1.
        how: `blend` interpolates features, `proportion` takes photos of each in that proportion.

    Raises:
        SettingsError: The share is outside 0..1.
        IdentityError: The identities were made by different models.
    """
    from photomaker.encoders import mix as mix_features

    for one in (first, second):
        instance(
            "the person", one, Identity, "load an identity by Identity.load, or make one by Engine.identity"
        )
    number("the share", share, 0, 1, "a number from 0 (the first person) to 1 (the second)")
    mixed = mix_features([(first, 1 - share), (second, share)], how=how)
    taking_part = [one for one, part in ((first, 1 - share), (second, share)) if part > 0]
    names = {name for one in taking_part for name in one.tensors if name.startswith(FACE_EMBEDDINGS)}
    faces = {
        name: torch.cat([one.tensors[name] for one in taking_part if name in one.tensors])
        for name in sorted(names)
    }
    return replace(mixed, tensors={**mixed.tensors, **faces}) if faces else mixed


def face_key(recogniser: Recogniser) -> str:
    """Name of the tensor with a recogniser's face embeddings in an identity."""
    return FACE_EMBEDDINGS if recogniser.name in ("", BUNDLED) else f"{FACE_EMBEDDINGS}.{recogniser.name}"


def _read(photos: object) -> list[Photo]:
    """Open photos of one person.

    Raises:
        PhotoError: There is none, or one cannot be read.
        SettingsError: It is not a photo.
    """
    several = [photos] if isinstance(photos, str | os.PathLike | Image.Image) else photos
    instance(
        "photos",
        several,
        (list, tuple),
        "give a folder, a file, a picture, or a list of files and pictures",
    )
    assert isinstance(several, list | tuple)
    for one in several:
        instance("a photo", one, (str, os.PathLike, Image.Image), "give a file, a folder or a picture")
    read = [_as_photo(one, place) for place, one in enumerate(several, 1) if isinstance(one, Image.Image)]
    paths = [one for one in several if not isinstance(one, Image.Image)]
    if paths or not read:
        read += read_photos(paths)
    return read


def _as_photo(image: Image.Image, place: int) -> Photo:
    from photomaker.images import picture_photo

    return picture_photo(image, f"picture {place}")
