"""Nodes that add PhotoMaker to ComfyUI's own models, for its samplers, ControlNets and LoRA."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from photomaker import PhotoMakerAdapter, SettingsError, WeightsError

from . import host
from .conditioning import parted, text_only
from .pictures import all_pictures_of
from .texts import ComfyTexts

if TYPE_CHECKING:
    from photomaker import Identity

ADAPTER, IDENTITY = "PHOTOMAKER_ADAPTER", "PHOTOMAKER_IDENTITY"
CATEGORY = "photomaker/native"
PROMPT = "a photo of a woman img in the snow"


class PhotoMakerModel:
    """A MODEL with the adapter's LoRA."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Opens a PhotoMaker adapter, V1 or V2, and loads its LoRA into an SDXL model."
    RETURN_TYPES = ("MODEL", ADAPTER)
    RETURN_NAMES = ("model", "adapter")
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        strength = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05, "tooltip": "1 is as it was trained"}
        return {
            "required": {
                "model": ("MODEL",),
                "adapter": (
                    host.adapters(),
                    {"tooltip": "a file in models/photomaker, of the official layout"},
                ),
                "strength": ("FLOAT", strength),
            }
        }

    def patch(self, model: Any, adapter: str, strength: float) -> tuple[Any, PhotoMakerAdapter]:  # noqa: ANN401
        """Patch a copy of the model.

        Raises:
            WeightsError: The file is not an adapter, or for another kind of model.
        """
        opened = opened_adapter(*host.adapter_file(adapter))
        check_lora(model, opened)
        return (host.patched(model, dict(opened.lora), strength) if strength else model), opened


@lru_cache(maxsize=1)
def opened_adapter(path: str | None, changed: int) -> PhotoMakerAdapter:
    """An adapter, which is kept as long as no other is opened: a new strength needs no second reading.

    Args:
        path: The file; None is the bundled one.
        changed: When the file was changed.

    Raises:
        WeightsError: It is not an adapter.
    """
    del changed
    return PhotoMakerAdapter.open(path)


def check_lora(model: Any, adapter: PhotoMakerAdapter) -> None:  # noqa: ANN401 - ComfyUI's MODEL
    """Compare the LoRA's layers with the model's.

    Raises:
        WeightsError: A layer is missing in the model, or has other widths there.
    """
    layers, weights = host.lora_layers(model), model.model.state_dict()
    for name, tensor in adapter.lora.items():
        layer, _, side = name.rpartition("_lora.")
        own = weights.get(layers.get(layer, ""))
        wanted = None if own is None else own.shape[1 if side.startswith("down") else 0]
        got = tensor.shape[1 if side.startswith("down") else 0]
        if wanted != got:
            there = "no such layer" if wanted is None else f"a width of {wanted}"
            raise WeightsError(
                f"{layer} of {adapter.source} has a width of {got}, but the model has {there}; connect the SDXL model "
                "that the adapter was made for"
            )


class PhotoMakerPerson:
    """Makes an identity from photos with an adapter."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Makes a person from photos with the adapter alone; the photos are used as they are."
    INPUT_IS_LIST = True
    RETURN_TYPES = (IDENTITY,)
    RETURN_NAMES = ("identity",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        weights = {"default": "", "tooltip": "weight of each photo, such as 1, 0.5; empty is 1 for all"}
        faces = {"tooltip": "face models; only for V2 adapters"}
        return {
            "required": {"adapter": (ADAPTER,), "photos": ("IMAGE",)},
            "optional": {"weights": ("STRING", weights), "face_models": (host.face_packs(), faces)},
        }

    def make(
        self,
        adapter: list[PhotoMakerAdapter],
        photos: list[Any],
        weights: list[str] | None = None,
        face_models: list[str] | None = None,
    ) -> tuple[Identity]:
        """Read the photos.

        Raises:
            PhotoError: A photo cannot be used, or none shows a face that V2 needs.
            SettingsError: The weights do not fit the photos, or what embeds faces is not installed.
        """
        opened, pictures = adapter[0], all_pictures_of(photos)
        given = numbers((weights or [""])[0])
        pack = host.face_pack((face_models or ["buffalo_l"])[0])
        with host.computing(opened):
            return (opened.identity(pictures, given, face_models=pack),)


def numbers(text: str) -> list[float] | None:
    """Numbers separated by commas; None if there are none.

    Raises:
        SettingsError: It is something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return [float(part) for part in parts] or None
    except ValueError as error:
        raise SettingsError(f"the weights are {text!r}; write numbers such as 1, 0.5, 1") from error


class PhotoMakerPrompt:
    """Encodes a prompt with a person, for ComfyUI's samplers."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Adds a person to a prompt: the prompt alone up to the merge point, then with the person."
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "STRING")
    RETURN_NAMES = ("conditioning", "text_only", "prompt")
    OUTPUT_TOOLTIPS: ClassVar = (
        "for the positive input of a sampler",
        "the same prompt without the person",
        "the prompt with its trigger word",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """See ComfyUI."""
        words = {
            "default": PROMPT,
            "multiline": True,
            "dynamicPrompts": True,
            "tooltip": "img marks the word that the person replaces; it is added if it is missing",
        }
        merge: dict[str, Any] = {"default": 0.2, "min": 0.0, "max": 1.0, "step": 0.01}
        merge["tooltip"] = (
            "share of the timesteps without the person: lower for more of the person, higher for more of the prompt"
        )
        return {
            "required": {
                "clip": ("CLIP",),
                "adapter": (ADAPTER,),
                "identity": (IDENTITY,),
                "prompt": ("STRING", words),
                "merge": ("FLOAT", merge),
            }
        }

    def encode(
        self,
        clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
        adapter: PhotoMakerAdapter,
        identity: Identity,
        prompt: str,
        merge: float,
    ) -> tuple[Any, Any, str]:
        """Encode the prompt with and without the person.

        Raises:
            PromptError: It has no class word for the person.
            IdentityError: The identity was made with another adapter, or is of several people.
            WeightsError: The CLIP is not that of an SDXL model.
        """
        texts = ComfyTexts(clip)
        made = adapter.prompt(prompt, identity, texts)
        options = texts.options()
        return parted(made, merge, options), text_only(made, options), made.prompt


NODES = {
    "PhotoMaker model": PhotoMakerModel,
    "PhotoMaker identity (adapter)": PhotoMakerPerson,
    "PhotoMaker encode": PhotoMakerPrompt,
}
"""What people see to the class, whose name is the node's in graphs; core has a `PhotoMakerEncode` of its own."""
