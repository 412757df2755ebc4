"""Photos prepared for a method as a sitting prepares them: the largest face and the person's outline in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from photomaker.errors import PhotoError
from photomaker.types import Reference

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.faces import Detector


class FaceReferences:
    """Turns photos into references with a face finder; those that can also cut people out add masks."""

    def __init__(self, faces: Detector) -> None:
        """Wrap a face finder; `open` takes the bundled one."""
        self._faces = faces

    @classmethod
    def open(cls) -> FaceReferences:
        """Open the bundled face finder.

        Raises:
            WeightsError: Its file is missing or altered.
        """
        from photomaker.faces import BundledFaces

        return cls(BundledFaces.open())

    def __call__(self, photos: Sequence[Image], name: str) -> list[Reference]:
        """Make a reference of each photo that shows a face.

        Args:
            photos: Photos of one person.
            name: What to call the person.

        Returns:
            One reference a photo with a face, in their order.

        Raises:
            PhotoError: No photo shows a face.
        """
        made = [
            self._reference(photo, f"{name}, photo {number}") for number, photo in enumerate(photos, start=1)
        ]
        found = [reference for reference in made if reference is not None]
        if not found:
            raise PhotoError(f"no face was found in any photo of {name}; give photos with a large face")
        return found

    def _reference(self, photo: Image, name: str) -> Reference | None:
        from photomaker.faces import Segmenter, largest

        face = largest(self._faces.detect(photo))
        if face is None:
            return None
        mask = self._faces.person_mask(photo, face) if isinstance(self._faces, Segmenter) else None
        return Reference(photo, name, face=face, mask=mask)
