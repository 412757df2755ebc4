"""The shared value types, as frozen dataclasses."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker.checks import instance, number, text, whole
from photomaker.errors import IdentityError, PromptError, SettingsError
from photomaker.files import atomic
from photomaker.outside import ENCRYPTED, read_object

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

FORMAT = "photomaker-identity-1"
MEMORY_PLANS = ("auto", "max-speed", "balanced", "lowest")
"""Memory plans; see `photomaker.pipelines.drawing.memory`."""
MOST_SEED = 2**63 - 1
MOST_SIDE = 16384
"""Most pixels of a side; far above what any base can draw, so that a typo does not fill the memory."""


@dataclass(frozen=True)
class Face:
    """A face found in a photo.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the photo, origin top left.
        score: Detector confidence in 0..1.
        landmarks: [5, 2] pixels: left eye, right eye, nose tip, left and right mouth corner, as seen in the picture.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


@dataclass(frozen=True)
class Reference:
    """One reference photo of a person.

    Attributes:
        image: Upright RGB picture.
        name: Its name in messages.
        sha256: Hash of the file it came from.
        face: The face chosen in it.
        mask: uint8 [height, width], 255 on the person, for methods that replace the background.
    """

    image: Image
    name: str = ""
    sha256: str = ""
    face: Face | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Shortcuts:
    """Computation to skip, which changes a picture slightly; see `photomaker.pipelines.attention.shortcuts`.

    Attributes:
        deep_every: The deep layers of the UNet are computed in every n-th step, n in 1..20; 1 is in each.
        deep_after: Share of the steps, 0..1, before that begins.
        outer: Number of additional outer skip connections that the other steps compute; more is more exact.
        words_after: Share of the steps, 0..1, after which cross-attention is reused; 1 is never.

    Raises:
        SettingsError: A value is of another type or is outside its range.
    """

    deep_every: int = 1
    deep_after: float = 0.0
    outer: int = 0
    words_after: float = 1.0

    def __post_init__(self) -> None:
        """Check types and ranges."""
        whole("deep_every", self.deep_every, 1, 20)
        whole("outer", self.outer, 0, 100)
        for name, share in (("deep_after", self.deep_after), ("words_after", self.words_after)):
            number(name, share, 0, 1, "a share of the steps from 0 to 1")


NO_SHORTCUTS = Shortcuts()
"""No work is skipped."""


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn.

    Attributes:
        steps: Denoising steps, 1..1000.
        guidance: Classifier-free guidance scale; 1 switches guidance off.
        merge: Delayed merging: the share of the steps, 0..1, that use the text-only prompt (paper section 3.2; `style
            strength` of the official demo is 100 times this). None takes the model's own default.
        seed: Seed of the initial noise, 0 or more.
        width: Width in pixels, a multiple of 8; None takes the model's own size.
        height: Height in pixels, a multiple of 8; None takes the model's own size.
        scheduler: Name of the scheduler, see `photomaker.pipelines.steps.schedulers`; None takes the model's own.
        guidance_start: Share of the steps, 0..1, after which guidance begins.
        guidance_stop: Share of the steps, 0..1, after which guidance ends; a step without it takes half the time.
        shortcuts: Computation to skip.

    Raises:
        SettingsError: A value is of another type or is outside its range.
    """

    steps: int = 20
    guidance: float | None = None
    merge: float | None = None
    seed: int = 0
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    guidance_start: float = 0.0
    guidance_stop: float = 1.0
    shortcuts: Shortcuts = NO_SHORTCUTS

    def __post_init__(self) -> None:
        """Check types and ranges."""
        instance("shortcuts", self.shortcuts, Shortcuts, "give a Shortcuts")
        whole("steps", self.steps, 1, 1000)
        if self.guidance is not None:
            number("guidance", self.guidance, 0, wanted="a number from 0 up, 1 switches guidance off")
        if self.merge is not None:
            number("merge", self.merge, 0, 1, "a share of the steps from 0 to 1")
        whole("seed", self.seed, 0, MOST_SEED)
        for name, value in (("width", self.width), ("height", self.height)):
            if value is not None and whole(name, value, 8, MOST_SIDE) % 8:
                raise SettingsError(f"{name} is {value}; give a multiple of 8")
        if self.scheduler is not None:
            text("scheduler", self.scheduler, "give the name of a scheduler, such as euler")
        for name, share in (("guidance_start", self.guidance_start), ("guidance_stop", self.guidance_stop)):
            number(name, share, 0, 1, "a share of the steps from 0 to 1")
        if self.guidance_start > self.guidance_stop:
            raise SettingsError(
                f"guidance_start is {self.guidance_start}, but guidance_stop {self.guidance_stop}; let it start first"
            )


@dataclass(frozen=True)
class Lora:
    """An additional LoRA.

    Attributes:
        source: A safetensors file, or a hub id with the file's name as `owner/name/file.safetensors`.
        weight: Its weight; 1 is full strength, below 0 inverts it.
    """

    source: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check types and ranges."""
        if not text("the LoRA", self.source, "give a file or hub id").strip():
            raise SettingsError("the LoRA's name is empty; give a file or hub id")
        number("the LoRA's weight", self.weight, -10, 10)


STRUCTURE_KINDS = ("landmarks", "edges", "mask")
"""Structures that can be extracted from an ordinary picture: five landmarks of a face, edges, the person's mask."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A picture that a ControlNet or T2I-Adapter follows: edges, a pose, depth.

    Attributes:
        model: The ControlNet or T2I-Adapter as a diffusers folder or hub id; `bundled` is the bundled ControlNet.
        image: What it follows: in the form that the model expects (edges for an edge model), unless `kind` names
            the structure to extract; with the aspect ratio of the output, to whose size it is scaled.
        scale: Strength; 0 is off.
        start: Share of the steps, 0..1, after which it begins; ControlNets only.
        stop: Share of the steps, 0..1, after which it ends.
        kind: One of `STRUCTURE_KINDS`: the Engine extracts it from the picture and draws it in the ControlNet's form;
            None uses the picture as it is.
    """

    model: str
    image: Image
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    kind: str | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        text("the structure model", self.model, "give a folder or hub id")
        _picture("the structure picture", self.image)
        number("the structure's scale", self.scale, 0, 10)
        number("the structure's start", self.start, 0, 1)
        number("the structure's stop", self.stop, 0, 1)
        if self.kind not in (None, *STRUCTURE_KINDS):
            raise SettingsError(
                f"{self.kind!r} cannot be extracted from a picture; give {', '.join(STRUCTURE_KINDS)}, or a picture "
                "that is used as it is"
            )
        if self.start >= self.stop:
            raise SettingsError(
                f"the structure starts at {self.start} and stops at {self.stop}; let it start first"
            )


@dataclass(frozen=True, eq=False)
class Start:
    """A start picture, and the part of it to redraw.

    Attributes:
        image: The picture, scaled to the size of the output.
        strength: How much to redraw, above 0 to 1: 1 keeps nothing of it.
        mask: White is redrawn (inpainting), black stays; None redraws all of it.
    """

    image: Image
    strength: float = 0.6
    mask: Image | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        _picture("the start picture", self.image)
        if number("strength", self.strength, 0, 1, "a number above 0, up to 1") == 0:
            raise SettingsError("strength is 0, which redraws nothing; give a number above 0, up to 1")
        if self.mask is not None:
            _picture("the mask", self.mask)
            _, high = self.mask.convert("L").getextrema()
            if high == 0:
                raise SettingsError("the mask is black all over; paint white what should be redrawn")


@dataclass(frozen=True, eq=False)
class StylePicture:
    """A picture whose style an IP-Adapter copies.

    Attributes:
        image: The picture.
        adapter: The IP-Adapter's file, or hub id with the file's name; None is the bundled one.
        scale: Strength, from 0.
        image_encoder: The IP-Adapter's CLIP image encoder, as a folder or hub id; None is the bundled one.
    """

    image: Image
    adapter: str | None = None
    scale: float = 0.6
    image_encoder: str | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        _picture("the style picture", self.image)
        number("the style picture's scale", self.scale, 0, 10)


POSES = ("photo", "draft", "none")
"""Sources of a pose other than a picture: the person's photo, a draft from the text alone, or none."""


@dataclass(frozen=True, eq=False)
class Pose:
    """Position and pose of the face, for methods that follow five landmarks of a face.

    Attributes:
        source: A picture with a face and the aspect ratio of the output; or `photo`, the person's own photo; `draft`, a
            draft from the text alone with the same seed; `none`, no pose.
        scale: Strength, 0 to 2; None is the method's default.
        landmarks: [5, 2] pixels of the face in the picture, see `Face`; None lets the method find them.
    """

    source: Image | str
    scale: float | None = None
    landmarks: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        if isinstance(self.source, str):
            if self.source not in POSES:
                raise SettingsError(
                    f"the pose is {self.source!r}; give a picture with a face, or one of {', '.join(POSES)}"
                )
        else:
            _picture("the pose", self.source)
        if self.scale is not None:
            number("the pose's scale", self.scale, 0, 2)


@dataclass(frozen=True, eq=False)
class Extras:
    """Optional parts of a request besides prompt and sampling; `Method.takes` names those that a method supports.

    Attributes:
        start: A start picture, optionally with a mask.
        loras: LoRA of styles or objects.
        controls: ControlNets with their pictures.
        t2i: A T2I-Adapter with its picture.
        style_picture: A picture whose style is copied.
        layout: Region of each of several people: `left`, `middle`, `right`, a box (left, top, right, bottom in 0..1) or
            a mask picture, in the order of their triggers; see `photomaker.pipelines.attention.regions`.
        pose: Pose of the face, for methods that follow landmarks.
    """

    start: Start | None = None
    loras: tuple[Lora, ...] = ()
    controls: tuple[Structure, ...] = ()
    t2i: Structure | None = None
    style_picture: StylePicture | None = None
    layout: tuple[Any, ...] = ()
    pose: Pose | None = None

    def __post_init__(self) -> None:
        """Refuse extras that cannot be combined."""
        places = [tuple(one) if isinstance(one, list) else one for one in self.layout]
        object.__setattr__(self, "layout", tuple(places))
        if self.t2i is not None and self.t2i.kind is not None:
            raise SettingsError(
                f"a T2I-Adapter uses its picture as it is and cannot extract {self.t2i.kind}; leave "
                f"{self.t2i.kind}@ out"
            )
        if self.t2i is not None and (self.controls or self.start is not None):
            raise SettingsError(
                "a T2I-Adapter cannot be combined with a ControlNet or a start picture; leave one out"
            )

    @property
    def asked(self) -> frozenset[str]:
        """Names of the extras in use, from `EXTRAS`."""
        given = {
            "start picture": self.start is not None,
            "mask": self.start is not None and self.start.mask is not None,
            "LoRA": bool(self.loras),
            "ControlNet": bool(self.controls),
            "T2I-Adapter": self.t2i is not None,
            "style picture": self.style_picture is not None,
            "layout": bool(self.layout),
            "pose": self.pose is not None,
        }
        return frozenset(name for name, there in given.items() if there)

    @property
    def alike(self) -> object:
        """Equal, and of equal hash, for extras whose pictures can be drawn together: equal values, or the very same."""
        named = all(isinstance(one, str | tuple) for one in self.layout)
        pictured = self.asked - {"LoRA", "layout"}
        return (self.loras, self.layout) if named and not pictured else self


EXTRAS = frozenset(
    {"start picture", "mask", "LoRA", "ControlNet", "T2I-Adapter", "style picture", "layout", "pose"}
)
"""All extras, by their names in messages."""
PLAIN = Extras()
"""No extras."""


def _picture(name: str, value: object) -> None:
    from PIL.Image import Image as Picture

    instance(name, value, Picture, "give a PIL picture; photomaker.images.open_photo reads a file")


@dataclass(frozen=True)
class Request:
    """One picture to draw: a prompt and how to draw it.

    Attributes:
        prompt: What it shows.
        sampling: How it is drawn.
        negative_prompt: What it should not show.
        extras: LoRA, start picture and so on; requests with the same object, or with equal extras without pictures,
            are drawn together.

    Raises:
        PromptError: A prompt is not text.
        SettingsError: Another value is of another type.
    """

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    negative_prompt: str | None = None
    extras: Extras = PLAIN

    def __post_init__(self) -> None:
        """Check types."""
        text("the prompt", self.prompt, "write a text", PromptError)
        if self.negative_prompt is not None:
            text("the negative prompt", self.negative_prompt, "write a text", PromptError)
        instance("sampling", self.sampling, Sampling, "give a Sampling")
        instance("extras", self.extras, Extras, "give an Extras")


@dataclass(frozen=True)
class Identity:
    """A person as a value: what a method keeps of the reference photos.

    Attributes:
        method: Name of the method that made it, for example `photomaker-v1`.
        tensors: Named tensors; for PhotoMaker `id_features` [photos, width] (before fusion) and `weights` [photos].
        notes: Plain JSON data: encoder name and hash, photo hashes, licence, class word, and whatever the user adds.
    """

    method: str
    tensors: Mapping[str, torch.Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """In one line, without the tensors."""
        size = sum(one.numel() * one.element_size() for one in self.tensors.values())
        photos = self.notes.get("photos")
        seen = f"{len(photos)} photos, " if isinstance(photos, list | tuple) and photos else ""
        return f"Identity({self.method}, {seen}{size / 1024:.1f} KiB)"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, atomically.

        Raises:
            IdentityError: The file cannot be written there.
        """
        from safetensors.torch import save

        path = Path(path)
        data = save(
            {name: tensor.contiguous() for name, tensor in self.tensors.items()},
            metadata={
                "format": FORMAT,
                "method": self.method,
                "notes": json.dumps(dict(self.notes), sort_keys=True),
            },
        )
        try:
            with atomic(path, private=True) as file:
                file.write(data)
        except OSError as error:
            raise IdentityError(
                f"cannot write the identity to {path}: {error.strerror}; choose another place"
            ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read a file that `save` wrote.

        Raises:
            IdentityError: The file is missing or is not an identity file.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise IdentityError(f"there is no identity file {path}; make one with `photomaker identity make`")
        _refuse_encrypted(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
            raise IdentityError(
                f"{path} is not an identity file or is damaged; make it again from the photos"
            ) from error
        known = metadata.get("format", "")
        if known != FORMAT and known.startswith(FORMAT.rpartition("-")[0]):
            raise IdentityError(
                f"{path} is an identity of format {known}, but this version reads {FORMAT}; update photomaker, "
                "or make it again from the photos"
            )
        if known != FORMAT:
            raise IdentityError(
                f"{path} is a safetensors file but no identity; make one with `photomaker identity make`"
            )
        try:
            method, notes = metadata["method"], read_object(metadata["notes"])
        except (KeyError, ValueError) as error:
            raise IdentityError(f"the notes in {path} are damaged; make it again from the photos") from error
        _check_tensors(tensors, path)
        return cls(method, tensors, notes)


def _refuse_encrypted(path: Path) -> None:
    """Refuse an encrypted identity.

    Raises:
        IdentityError: It is one, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            encrypted = file.read(len(ENCRYPTED)) == ENCRYPTED
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if encrypted:
        raise IdentityError(
            f"{path} is an encrypted identity; run `photomaker identity decrypt {path}` first, and give "
            "the file that it writes"
        )


def _check_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check the tensors that every method with photo features relies on.

    Raises:
        IdentityError: Features and weights are not numbers, or do not fit together.
    """
    remedy = "make it again from the photos"
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise IdentityError(f"{name} in {path} has numbers that are not finite; {remedy}")
    features, weights = tensors.get("id_features"), tensors.get("weights")
    if features is not None and not (features.is_floating_point() and features.dim() > 1 and len(features)):
        raise IdentityError(
            f"id_features in {path} are {features.dtype} {tuple(features.shape)}, no features of photos; {remedy}"
        )
    if features is None or weights is None:
        return
    if weights.shape != features.shape[:1] or not weights.is_floating_point() or bool((weights < 0).any()):
        raise IdentityError(f"the weights in {path} do not fit its {len(features)} photos; {remedy}")


@dataclass(frozen=True)
class Sample:
    """One generated picture with its metadata; a notebook shows the picture with a line of text below.

    Attributes:
        image: The picture.
        request: Its request.
        likeness: Mean cosine between its face and the references' faces in -1..1; None if no face was found or no
            recogniser was used.
        notes: Additional metadata for its file: person, style.
    """

    image: Image
    request: Request
    likeness: float | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """Prompt, seed and likeness in one line."""
        score = "" if self.likeness is None else f", likeness {self.likeness:.2f}"
        return f"{self.request.prompt} (seed {self.request.sampling.seed}{score})"

    def __repr__(self) -> str:
        """In one line."""
        return f"Sample({self.image.width} x {self.image.height}, {self.line})"

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        data = io.BytesIO()
        self.image.save(data, "PNG")
        return data.getvalue()

    def _repr_html_(self) -> str:
        """For notebooks: the picture with its line beneath."""
        picture = base64.b64encode(self._repr_png_()).decode()
        line = html.escape(self.line)
        return (
            f'<figure><img src="data:image/png;base64,{picture}" alt="{line}" style="min-width: 256px">'
            f"<figcaption>{line}</figcaption></figure>"
        )
