"""Face detection, recognition and segmentation, behind three small abstract classes."""

from photomaker.faces.base import Detector, Recogniser, Seen, Segmenter, largest
from photomaker.faces.bundled import BundledEmbedder, BundledFaces, BundledRecogniser

__all__ = [
    "BundledEmbedder",
    "BundledFaces",
    "BundledRecogniser",
    "Detector",
    "Recogniser",
    "Seen",
    "Segmenter",
    "largest",
]
