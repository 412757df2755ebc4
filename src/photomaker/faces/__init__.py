"""Finding faces, telling people apart and cutting a person out, behind three small abstract classes."""

from photomaker.faces.base import Detector, Recogniser, Segmenter, largest
from photomaker.faces.bundled import BundledFaces, BundledRecogniser

__all__ = ["BundledFaces", "BundledRecogniser", "Detector", "Recogniser", "Segmenter", "largest"]
