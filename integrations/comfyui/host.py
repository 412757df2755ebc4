"""The nodes' access to ComfyUI, in one place; imported when a node is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUNDLED = "bundled"
"""The small model that comes with photomaker, among the names of files."""
PEOPLE = "photomaker_identities"
"""Folder below `models/` in which people are kept."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".bmp", ".tif", ".tiff")


def adapters() -> list[str]:
    """Adapter files below `models/photomaker`."""
    import folder_paths  # type: ignore[import-not-found]

    return [BUNDLED, *folder_paths.get_filename_list("photomaker")]


def adapter_path(name: str) -> str | None:
    """The file of an adapter; None is the bundled one."""
    import folder_paths  # type: ignore[import-not-found]

    return None if name == BUNDLED else folder_paths.get_full_path_or_raise("photomaker", name)


def adapter_file(name: str) -> tuple[str | None, int]:
    """The file of an adapter, None for the bundled one, and when it was changed."""
    path = adapter_path(name)
    return path, 0 if path is None else Path(path).stat().st_mtime_ns


def bases() -> list[str]:
    """SDXL models in diffusers' layout below `models/diffusers`."""
    return [BUNDLED, *sorted(_diffusers())]


def base_path(name: str) -> str | None:
    """The folder of a base; None is the bundled one."""
    return None if name == BUNDLED else str(_diffusers()[name])


def _diffusers() -> dict[str, Path]:
    import folder_paths  # type: ignore[import-not-found]

    roots = [Path(root) for root in folder_paths.get_folder_paths("diffusers")]
    return {file.parent.name: file.parent for root in roots for file in root.glob("*/model_index.json")}


def people() -> list[str]:
    """Files of saved people."""
    return sorted(path.name for path in people_folder().glob("*.safetensors"))


def people_folder() -> Path:
    """Where people are kept; made where it is missing."""
    import folder_paths  # type: ignore[import-not-found]

    folder = Path(folder_paths.models_dir) / PEOPLE
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def photo_folders() -> list[str]:
    """Folders of pictures directly below ComfyUI's input folder."""
    root = _input()
    folders = root.iterdir() if root.is_dir() else ()
    return sorted(one.name for one in folders if one.is_dir() and photos_in(one.name))


def photos_in(folder: str) -> list[Path]:
    """The pictures of such a folder, in the order of their names."""
    place = _input() / folder
    return sorted(path for path in place.iterdir() if path.suffix.lower() in PICTURES)


def _input() -> Path:
    import folder_paths  # type: ignore[import-not-found]

    return Path(folder_paths.get_input_directory())


def face_packs() -> list[str]:
    """The face models for V2: InsightFace's own pack, and folders below `models/insightface/models`."""
    import folder_paths  # type: ignore[import-not-found]

    root = Path(folder_paths.models_dir) / "insightface" / "models"
    folders = root.iterdir() if root.is_dir() else ()
    return list(dict.fromkeys(["buffalo_l", *sorted(one.name for one in folders if one.is_dir())]))


def face_pack(name: str) -> str:
    """The folder of a pack where it lies there, else its name."""
    import folder_paths  # type: ignore[import-not-found]

    place = Path(folder_paths.models_dir) / "insightface" / "models" / name
    return str(place) if place.is_dir() else name


@contextmanager
def computing(adapter: Any) -> Iterator[None]:  # noqa: ANN401 - a PhotoMakerAdapter
    """An adapter's encoder on ComfyUI's device as long as photos are read."""
    import comfy.model_management as management  # type: ignore[import-not-found]

    adapter.to(management.get_torch_device())
    try:
        yield
    finally:
        adapter.to(management.text_encoder_offload_device())


def patched(model: Any, lora: dict[str, Any], strength: float) -> Any:  # noqa: ANN401 - ComfyUI's MODEL
    """A copy of a MODEL with a LoRA in it."""
    import comfy.sd  # type: ignore[import-not-found]

    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]


def lora_layers(model: Any) -> dict[str, str]:  # noqa: ANN401 - ComfyUI's MODEL
    """Names of layers in LoRA files to those of a MODEL's weights."""
    import comfy.lora  # type: ignore[import-not-found]

    found: dict[str, str] = comfy.lora.model_lora_keys_unet(model.model, {})
    return found


def progress(steps: int) -> Callable[[int, Any], None]:
    """ComfyUI's bar, which shows a preview beside it.

    Args:
        steps: In all.
    """
    import comfy.utils  # type: ignore[import-not-found]

    bar = comfy.utils.ProgressBar(steps)

    def told(step: int, preview: Any) -> None:  # noqa: ANN401 - a PIL picture or None
        bar.update_absolute(step, steps, None if preview is None else ("JPEG", preview, 512))

    return told


def stopped() -> bool:
    """Whether the user asked to stop."""
    import comfy.model_management as management  # type: ignore[import-not-found]

    return bool(management.processing_interrupted())


def stop() -> None:
    """End the node as ComfyUI ends one that the user stopped.

    Raises:
        InterruptProcessingException: Always.
    """
    import comfy.model_management as management  # type: ignore[import-not-found]

    raise management.InterruptProcessingException
