"""Names of plug-ins, resolved when they are used."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from photomaker.errors import SettingsError

# kind -> name -> (place as "module:object", extra of the package that it needs)
_PLACES: dict[str, dict[str, tuple[str, str | None]]] = {
    "method": {
        "photomaker": ("photomaker.methods.photomaker:PhotoMaker", None),
        "dreambooth": ("photomaker.methods.dreambooth:DreamBooth", None),
        "lora": ("photomaker.methods.lora:Lora", None),
        "textual_inversion": ("photomaker.methods.textual_inversion:TextualInversion", None),
        "dreamartist": ("photomaker.methods.dreamartist:DreamArtist", None),
        "custom_diffusion": ("photomaker.methods.custom_diffusion:CustomDiffusion", None),
        "hypernetwork": ("photomaker.methods.hypernetwork:Hypernetwork", None),
        "fastcomposer": ("photomaker.methods.fastcomposer:FastComposer", None),
        "ip_adapter": ("photomaker.methods.ip_adapter:IPAdapter", None),
        "photoverse": ("photomaker.methods.photoverse:PhotoVerse", None),
        "instantid": ("photomaker.methods.instantid:InstantID", None),
        "pulid": ("photomaker.methods.pulid:PuLID", None),
        "flashface": ("photomaker.methods.flashface:FlashFace", None),
        "anydoor": ("photomaker.methods.anydoor:AnyDoor", None),
    },
    "detector": {
        "bundled": ("photomaker.faces:BundledFaces", None),
        "dlib": ("photomaker.faces.dlib_faces:DlibDetector", "faces"),
        "insightface": ("photomaker.faces.insightface_faces:InsightFaceDetector", "insightface"),
        "auraface": ("photomaker.faces.insightface_faces:AuraFaceDetector", "insightface"),
    },
    "recogniser": {
        "bundled": ("photomaker.faces:BundledRecogniser", None),
        "dlib": ("photomaker.faces.dlib_faces:DlibRecogniser", "faces"),
        "insightface": ("photomaker.faces.insightface_faces:InsightFaceRecogniser", "insightface"),
        "auraface": ("photomaker.faces.insightface_faces:AuraFaceRecogniser", "insightface"),
    },
    "segmenter": {
        "bundled": ("photomaker.faces:BundledFaces", None),
        "mask2former": ("photomaker.faces.panoptic:Mask2FormerSegmenter", None),
        "eomt": ("photomaker.faces.panoptic:EomtSegmenter", None),
    },
    "captioner": {
        "bundled": ("photomaker.faces.bundled_words:BundledCaptioner", None),
        "blip2": ("photomaker.faces.captioners:Blip2Captioner", None),
        "florence2": ("photomaker.faces.captioners:Florence2Captioner", None),
    },
    "phrase parser": {
        "rules": ("photomaker.faces.words:RuleParser", None),
        "spacy": ("photomaker.faces.spacy_parser:SpacyParser", "words"),
    },
    "text-image scorer": {
        "bundled": ("photomaker.faces.bundled_words:BundledScorer", None),
        "clip": ("photomaker.faces.clip:ClipScorer", None),
    },
    "text similarity": {
        "rules": ("photomaker.faces.words:RuleSimilarity", None),
        "sentence-transformers": ("photomaker.faces.sentences:SentenceSimilarity", "words"),
    },
    "structure": {"noted": ("photomaker.pipelines.structures.structures:followed", None)},
    "face embedder": {
        "bundled": ("photomaker.faces:BundledEmbedder", None),
        "insightface": ("photomaker.faces.insightface_faces:InsightFaceEmbedder", "insightface"),
    },
}


def register(kind: str, name: str, place: str, extra: str | None = None) -> None:
    """Make a plug-in known under a name.

    Args:
        kind: "method", "detector", "recogniser", "segmenter", "captioner", "phrase parser", "text-image scorer",
            "text similarity", "face embedder", or a new kind.
        name: What users call it.
        place: "module:object".
        extra: The optional extra of the package that it needs, for the message where an import fails.
    """
    _PLACES.setdefault(kind, {})[name] = (place, extra)


def names(kind: str) -> list[str]:
    """Known names of a kind, sorted."""
    return sorted(_PLACES.get(kind, {}))


def find(kind: str, name: str) -> Any:  # noqa: ANN401 - whatever was registered
    """Import what a name stands for.

    Args:
        kind: See `register`.
        name: A known name, or the place of a plug-in of your own as "module:object".

    Raises:
        SettingsError: The name is unknown, or what it needs is not installed.
    """
    if ":" in name:
        return _own(kind, name)
    known = _PLACES.get(kind, {})
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names(kind)) or 'none'}"
        raise SettingsError(f"there is no {kind} {name!r}; {hint}")
    place, extra = known[name]
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ImportError as error:
        if extra is None:
            raise
        raise SettingsError(
            f"{kind} {name!r} needs {error.name or error}; install it with: pip install 'photomaker[{extra}]'"
        ) from error


def _own(kind: str, place: str) -> Any:  # noqa: ANN401 - whatever stands there
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"the {kind} {place!r} cannot be imported ({error}); check the name and that its package is installed"
        ) from error
