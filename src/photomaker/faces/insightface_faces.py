"""Face embeddings by InsightFace, for PhotoMaker V2; needs the extra `faces`.

The model packs that InsightFace downloads (buffalo_l, antelopev2) are for non-commercial research only. A folder with
other ONNX models of the same kind may be named instead; V2 adapters were trained on buffalo_l's recogniser.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from insightface.app import FaceAnalysis
from PIL.Image import Image

from photomaker.errors import WeightsError

PACK = "buffalo_l"
PACK_LICENCE = "non-commercial research only"
SIZES = (*range(640, 256, -64), 256)
"""Sides at which the detector looks, tried in this order: a face that fills the photo needs a small one."""


class FaceAnalysis2(FaceAnalysis):  # type: ignore[misc]
    """InsightFace's `FaceAnalysis`, whose detector may be given another size with each call (an official name)."""

    _device = 0

    def prepare(
        self, ctx_id: int = 0, det_thresh: float = 0.5, det_size: tuple[int, int] | None = (640, 640)
    ) -> None:
        """Choose device (-1 is the CPU), threshold and size; see `FaceAnalysis.prepare`."""
        self._device = ctx_id
        super().prepare(ctx_id, det_thresh, det_size)

    def get(
        self,
        img: np.ndarray,
        max_num: int = 0,
        det_size: tuple[int, int] | None = (640, 640),
        det_metric: str = "default",
    ) -> list[Any]:
        """Find and embed faces.

        Args:
            img: uint8 [height, width, 3], blue first.
            max_num: Most faces; 0 is all.
            det_size: Width and height at which the detector looks; None keeps the last one.
            det_metric: Which faces to keep where there are more than `max_num`.

        Returns:
            InsightFace's faces: `bbox`, `kps`, `det_score`, `embedding` [512], not normalised.
        """
        if det_size is not None:
            self.det_model.prepare(self._device, input_size=det_size, det_thresh=self.det_thresh)
        return list(super().get(img, max_num=max_num, det_metric=det_metric))


def analyze_faces(
    face_analysis: FaceAnalysis2, img_data: np.ndarray, det_size: tuple[int, int] = (640, 640)
) -> list[Any]:
    """Find faces, looking at smaller and smaller sizes until there is one (an official name).

    Args:
        face_analysis: A prepared analyser.
        img_data: uint8 [height, width, 3], blue first.
        det_size: The first size.

    Returns:
        The faces, as InsightFace gives them; empty where no size finds one.
    """
    sizes = [det_size, *((side, side) for side in SIZES if side < min(det_size))]
    for size in sizes:
        faces = face_analysis.get(img_data, det_size=size)
        if faces:
            return faces
    return []


class InsightFaceEmbedder:
    """Embeds the largest face of a photo.

    Args:
        analysis: A prepared analyser with detector and recogniser.
        name: The model pack's name or folder, for notes.
    """

    def __init__(self, analysis: FaceAnalysis2, name: str = PACK) -> None:
        """Take the analyser as it is."""
        self.analysis, self.name = analysis, name

    @classmethod
    def open(cls, place: str | os.PathLike[str] = PACK) -> InsightFaceEmbedder:
        """Open a model pack.

        Args:
            place: Name of an InsightFace pack, which is downloaded once, or a folder of ONNX models.

        Raises:
            WeightsError: The pack is neither here nor to be had, or lacks a detector or recogniser.
        """
        import onnxruntime

        if len(Path(place).parts) > 1 and not Path(place).is_dir():
            raise WeightsError(f"there is no folder of face models {place}; check the path")
        providers = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in providers]
        try:
            analysis = FaceAnalysis2(
                name=str(place), allowed_modules=["detection", "recognition"], providers=wanted
            )
            analysis.prepare(ctx_id=0 if "CUDAExecutionProvider" in wanted else -1)
        except Exception as error:
            reason = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
            raise WeightsError(
                f"the face models {place} cannot be loaded ({reason}); put their .onnx files into "
                f"~/.insightface/models/{PACK}, name another folder, or give id_embeds"
            ) from error
        if "recognition" not in analysis.models:
            raise WeightsError(f"the face models {place} hold no recogniser; name a folder that has one")
        return cls(analysis, str(place))

    @property
    def notes(self) -> dict[str, str]:
        """Name and licence, for the notes of an identity."""
        own = Path(self.name).is_dir()
        return {"face_models": self.name, "face_models_licence": "see its folder" if own else PACK_LICENCE}

    def embed(self, photos: Sequence[Image]) -> list[np.ndarray | None]:
        """Face embeddings of RGB photos.

        Args:
            photos: Upright pictures.

        Returns:
            For each photo the embedding of its largest face, float32 [512], not normalised; None without a face.
        """
        return [self._one(photo) for photo in photos]

    def _one(self, photo: Image) -> np.ndarray | None:
        faces = analyze_faces(
            self.analysis, np.ascontiguousarray(np.asarray(photo.convert("RGB"))[..., ::-1])
        )
        if not faces:
            return None
        largest = max(faces, key=lambda face: (face.bbox[2] - face.bbox[0]) * (face.bbox[3] - face.bbox[1]))
        return np.asarray(largest.embedding, np.float32)
