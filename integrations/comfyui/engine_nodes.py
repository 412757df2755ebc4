"""Nodes for photomaker's own engine: identities from photos, saving, mixing, drawing, likeness."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from photomaker import (
    Cancel,
    Cancelled,
    Engine,
    Identity,
    Order,
    Sampling,
    SettingsError,
    Someone,
    read_photos,
)

from . import host
from .native_nodes import IDENTITY, PROMPT
from .pictures import all_pictures_of, image_of, pictures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

ENGINE = "PHOTOMAKER_ENGINE"
CATEGORY = "photomaker"
UNKNOWN = -1.0
"""Likeness if there is no face, or nothing to compare it with."""
MOST_SEED = 2**53 - 1
"""Largest integer that a browser represents exactly."""
_NAME = re.compile(r"\w[\w .()-]{0,79}")


class PhotoMakerEngine:
    """photomaker's own engine."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Opens photomaker's engine with the bundled small model, which knows drawn people, or an SDXL model."
    )
    RETURN_TYPES = (ENGINE,)
    RETURN_NAMES = ("engine",)
    FUNCTION = "open"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        faces = ["auto", "dlib", "insightface", "auraface", "bundled", "none"]
        return {
            "required": {
                "base": (host.bases(), {"tooltip": "a folder in models/diffusers"}),
                "adapter": (host.adapters(), {"tooltip": "a file in models/photomaker"}),
                "faces": (faces, {"tooltip": "face backend"}),
                "dtype": (["auto", "fp32", "bf16", "fp16"],),
                "memory": (["auto", "max-speed", "balanced", "lowest"],),
            }
        }

    def open(self, base: str, adapter: str, faces: str, dtype: str, memory: str) -> tuple[Engine]:
        """Check the files; the model is loaded when it is needed.

        Raises:
            WeightsError: A file is missing or damaged.
            SettingsError: Only one of base and adapter is the bundled one, or a face backend is not installed.
        """
        places = host.base_path(base), host.adapter_path(adapter)
        return (Engine.open(*places, faces=faces, dtype=dtype, memory=memory),)


class PhotoMakerPhotos:
    """The photos of a folder, of any sizes."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Reads the photos of a folder in ComfyUI's input folder, upright and in their original sizes."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("photos",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "read"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        return {"required": {"folder": (host.photo_folders(), {"tooltip": "a folder of photos in input/"})}}

    @classmethod
    def IS_CHANGED(cls, folder: str) -> str:
        """Tell ComfyUI when to read again."""
        return str([(path.name, path.stat().st_mtime_ns) for path in host.photos_in(folder)])

    def read(self, folder: str) -> tuple[list[torch.Tensor]]:
        """Read them.

        Raises:
            SettingsError: There is no such folder in the input folder.
            PhotoError: A photo cannot be read.
        """
        if folder not in host.photo_folders():
            raise SettingsError(
                f"there is no folder {folder!r} with photos in ComfyUI's input folder; choose another"
            )
        return ([image_of([photo.image]) for photo in read_photos(host.photos_in(folder))],)


class PhotoMakerIdentity:
    """Makes an identity from photos that the coach checks."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Makes a person from photos, and reports which photos to keep or drop, and why."
    INPUT_IS_LIST = True
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "coach")
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        leave = {"default": False, "tooltip": "leave out photos that the coach would drop"}
        return {
            "required": {"engine": (ENGINE,), "photos": ("IMAGE",)},
            "optional": {"drop": ("BOOLEAN", leave)},
        }

    def make(
        self, engine: list[Engine], photos: list[Any], drop: list[bool] | None = None
    ) -> tuple[Identity, str]:
        """Check and read the photos.

        Raises:
            PhotoError: A photo cannot be used, or none shows a face.
        """
        opened, pictures = engine[0], all_pictures_of(photos)
        if opened.detector is None:
            return opened.identity(pictures), "there is no face backend, so the photos were not checked"
        report = opened.coach(pictures)
        kept = [one.photo.image for one in report.kept]
        use = kept if kept and (drop or [False])[0] else pictures
        return opened.identity(use), report.text


class PhotoMakerSave:
    """Saves a person as a small file."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Saves a person in models/photomaker_identities; existing files are never overwritten."
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("file",)
    OUTPUT_NODE = True
    FUNCTION = "save"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        return {"required": {"identity": (IDENTITY,), "name": ("STRING", {"default": "person"})}}

    def save(self, identity: Identity, name: str) -> dict[str, Any]:
        """Write the file.

        Raises:
            SettingsError: The name is none of a file.
            IdentityError: It cannot be written.
        """
        file = identity.save(free_place(host.people_folder(), name)).name
        return {"ui": {"text": [f"saved as {file}"]}, "result": (file,)}


def free_place(folder: Path, name: str) -> Path:
    """A place in a folder where nothing is yet: NAME.safetensors, else NAME-2.safetensors, and so on.

    Raises:
        SettingsError: The name is none of a file.
    """
    stem = name.strip().removesuffix(".safetensors")
    if not _NAME.fullmatch(stem):
        raise SettingsError(
            f"the name is {name!r}; give one of letters, digits, spaces, dots, dashes and brackets"
        )
    for number in range(1, 100_000):
        place = folder / f"{stem}{'' if number == 1 else f'-{number}'}.safetensors"
        if not place.exists():
            return place
    raise SettingsError(f"there are 100,000 people with the name {name!r} in {folder}; give another")


class PhotoMakerLoad:
    """A person from a file."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Loads a person from models/photomaker_identities."
    RETURN_TYPES = (IDENTITY,)
    RETURN_NAMES = ("identity",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        return {"required": {"file": (host.people(),)}}

    @classmethod
    def IS_CHANGED(cls, file: str) -> str:
        """Tell ComfyUI when to read again."""
        place = host.people_folder() / Path(file).name
        return str(place.stat().st_mtime_ns) if place.is_file() else ""

    def load(self, file: str) -> tuple[Identity]:
        """Read the file.

        Raises:
            SettingsError: There is no such person.
            IdentityError: It is not an identity file.
        """
        if file not in host.people():
            raise SettingsError(
                f"there is no person {file!r} in {host.people_folder()}; save one, or choose another"
            )
        return (Identity.load(host.people_folder() / file),)


class PhotoMakerMix:
    """Mixes two people."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Mixes two people: share 0 is the first, 1 the second."
    RETURN_TYPES = (IDENTITY,)
    RETURN_NAMES = ("identity",)
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        share = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01, "display": "slider"}
        how = {"tooltip": "blend interpolates the features, proportion takes photos of both in proportion"}
        return {
            "required": {
                "first": (IDENTITY,),
                "second": (IDENTITY,),
                "share": ("FLOAT", share),
                "how": (["blend", "proportion"], how),
            }
        }

    def mix(self, first: Identity, second: Identity, share: float, how: str) -> tuple[Identity]:
        """Mix them.

        Raises:
            SettingsError: The share is outside 0..1.
            IdentityError: They were made by different models.
        """
        if how not in ("blend", "proportion"):
            raise SettingsError(f"how is {how!r}; choose blend or proportion")
        return (Engine.mix(first, second, share, "blend" if how == "blend" else "proportion"),)


class PhotoMakerGenerate:
    """Draws a person with photomaker's own engine."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Draws pictures of a person and measures their likeness."
    RETURN_TYPES = ("IMAGE", "FLOAT", "STRING")
    RETURN_NAMES = ("images", "likeness", "report")
    OUTPUT_TOOLTIPS: ClassVar = (
        "",
        "mean over the pictures with a face; -1 if there is none",
        "a line a picture",
    )
    FUNCTION = "generate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        required = {
            "engine": (ENGINE,),
            "identity": (IDENTITY,),
            "prompt": ("STRING", {"default": PROMPT, "multiline": True, "dynamicPrompts": True}),
            "number": ("INT", {"default": 4, "min": 1, "max": 64}),
            "seed": ("INT", {"default": 0, "min": 0, "max": MOST_SEED, "control_after_generate": True}),
            "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
        }
        less = (
            "share of the steps without the person: lower for more of the person; -1 is the model's default"
        )
        optional = {
            "negative": ("STRING", {"default": "", "multiline": True}),
            "merge": ("FLOAT", {"default": -1.0, "min": -1.0, "max": 1.0, "step": 0.01, "tooltip": less}),
            "guidance": (
                "FLOAT",
                {
                    "default": -1.0,
                    "min": -1.0,
                    "max": 30.0,
                    "step": 0.1,
                    "tooltip": "-1 is the model's default",
                },
            ),
            "size": (
                "STRING",
                {
                    "default": "",
                    "tooltip": "portrait, landscape, square or 640x480; empty is the model's default",
                },
            ),
            "style": ("STRING", {"default": "none", "tooltip": "`photomaker styles` lists them"}),
            "best_of": (
                "INT",
                {
                    "default": 1,
                    "min": 1,
                    "max": 16,
                    "tooltip": "draw this many times as many, and keep those with the highest likeness",
                },
            ),
            "speed": (
                ["exact", "fast", "turbo", "auto"],
                {"tooltip": "fast skips work and loses little; turbo takes only a few steps"},
            ),
        }
        return {"required": required, "optional": optional}

    def generate(  # noqa: PLR0913, PLR0917 - every widget is an argument
        self,
        engine: Engine,
        identity: Identity,
        prompt: str,
        number: int,
        seed: int,
        steps: int,
        negative: str = "",
        merge: float = -1.0,
        guidance: float = -1.0,
        size: str = "",
        style: str = "none",
        best_of: int = 1,
        speed: str = "exact",
    ) -> tuple[torch.Tensor, float, str]:
        """Draw.

        Raises:
            PhotoMakerError: Something in the order cannot be done.
        """
        sampling = Sampling(steps, None if guidance < 0 else guidance, None if merge < 0 else merge, seed)
        order = Order(
            (Someone(identity, "person"),), (prompt,), n=number, best_of=best_of, sampling=sampling,
            size=size.strip() or None, style=style.strip() or "none", negative=negative.strip() or None, speed=speed,
        )  # fmt: skip
        cancel, notes = Cancel(), list[str]()
        try:
            samples = engine.generate(order, cancel=cancel, on_event=listener(cancel, notes))
        except Cancelled:
            host.stop()
            raise
        scores = [sample.likeness for sample in samples]
        lines = [line(sample.likeness, sample.notes.get("verdict")) for sample in samples]
        return image_of([sample.image for sample in samples]), mean(scores), "\n".join([*lines, *notes])


def listener(cancel: Cancel, notes: list[str]) -> Callable[[Any], None]:
    """Reports denoising steps to ComfyUI's bar, with a preview, and stops if the user asked to.

    Args:
        cancel: Stops the drawing.
        notes: Receives notes for the user.
    """
    told: list[Any] = []

    def listen(event: Any) -> None:  # noqa: ANN401 - one of photomaker's events
        if host.stopped():
            cancel.cancel()
        if hasattr(event, "text"):
            notes.append(f"note: {event.text}")
        if hasattr(event, "preview"):
            if not told:
                told.append(host.progress(event.total * event.steps))
            now = event.preview()
            told[0](event.done * event.steps + event.step, now[0] if now else None)

    return listen


class PhotoMakerLikeness:
    """Measures the likeness of pictures to a person."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Measures the likeness of the largest face in each picture to a person: a cosine, 1 is the same face."
    )
    RETURN_TYPES = ("FLOAT", "STRING")
    RETURN_NAMES = ("likeness", "report")
    OUTPUT_TOOLTIPS: ClassVar = (
        "mean over the pictures with a face; -1 if there is none",
        "a line a picture",
    )
    FUNCTION = "measure"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        return {"required": {"engine": (ENGINE,), "identity": (IDENTITY,), "images": ("IMAGE",)}}

    def measure(self, engine: Engine, identity: Identity, images: Any) -> tuple[float, str]:  # noqa: ANN401
        """Measure.

        Raises:
            PhotoError: They are not pictures.
            IdentityError: The identity's faces are from another recogniser.
        """
        scores = engine.likeness(pictures_of(images), identity)
        verdicts = [None if one is None else engine.verdict(one, identity) for one in scores]
        lines = [
            line(score, None if verdict is None else verdict.text)
            for score, verdict in zip(scores, verdicts, strict=True)
        ]
        return mean(scores), "\n".join(lines)


def line(likeness: float | None, verdict: str | None) -> str:
    """The text for one picture."""
    if likeness is None:
        return "no face to compare"
    return f"likeness {likeness:.2f}" + (f": {verdict}" if verdict else "")


def mean(scores: Sequence[float | None]) -> float:
    """Mean of the scores that there are; -1 if there is none."""
    known = [one for one in scores if one is not None]
    return sum(known) / len(known) if known else UNKNOWN


NODES = {
    "PhotoMaker engine": PhotoMakerEngine,
    "PhotoMaker photos": PhotoMakerPhotos,
    "PhotoMaker identity": PhotoMakerIdentity,
    "PhotoMaker save identity": PhotoMakerSave,
    "PhotoMaker load identity": PhotoMakerLoad,
    "PhotoMaker mix": PhotoMakerMix,
    "PhotoMaker generate": PhotoMakerGenerate,
    "PhotoMaker likeness": PhotoMakerLikeness,
}
