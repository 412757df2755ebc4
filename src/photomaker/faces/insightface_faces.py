"""Faces detected, recognised and embedded for PhotoMaker V2 by InsightFace; needs the extra `insightface`.

The model packs that InsightFace downloads (buffalo_l, antelopev2) are for non-commercial research only. A folder with
other ONNX models of the same kind may be named instead; V2 adapters were trained on buffalo_l's recogniser.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from insightface.app import FaceAnalysis
from PIL.Image import Image

from photomaker.errors import WeightsError
from photomaker.faces.base import Calibration, Detector, Recogniser, Seen, overlaps
from photomaker.hub import onnx_folder
from photomaker.types import Face

PACK = "buffalo_l"
PACK_LICENCE = "non-commercial research only"
AURAFACE = "fal/AuraFace-v1"
AURAFACE_LICENCE = "Apache-2.0"
AURAFACE_FILES = ("scrfd_10g_bnkps.onnx", "glintr100.onnx")
"""Detector and recogniser; the pack's other models are not looked at."""
log = logging.getLogger("photomaker.faces")
_BATCH = 64
BORDER = 0.25
"""Width of the border around a photo in which nothing was found, over its longer side."""
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
        The faces, as InsightFace gives them; empty if no size finds one.
    """
    sizes = [det_size, *((side, side) for side in SIZES if side < min(det_size))]
    for size in sizes:
        faces = face_analysis.get(img_data, det_size=size)
        if faces:
            return faces
    return []


def _open(place: str | os.PathLike[str], recogniser: bool) -> FaceAnalysis2:
    """A prepared analyser of a pack or folder with a detector, and a recogniser where that is asked for."""
    import onnxruntime

    if len(Path(place).parts) > 1 and not Path(place).is_dir():
        raise WeightsError(f"there is no folder of face models {place}; check the path")
    providers = onnxruntime.get_available_providers()
    wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in providers]
    modules = ["detection", "recognition"] if recogniser else ["detection"]
    try:
        try:
            analysis = FaceAnalysis2(name=str(_unpacked(place)), allowed_modules=modules, providers=wanted)
        except AssertionError:  # it was fetched by this very call
            analysis = FaceAnalysis2(name=str(_unpacked(place)), allowed_modules=modules, providers=wanted)
        analysis.prepare(ctx_id=0 if "CUDAExecutionProvider" in wanted else -1)
    except Exception as error:
        reason = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
        pack = place if len(Path(place).parts) == 1 else PACK
        raise WeightsError(
            f"the face models {place} cannot be loaded ({reason}); put their .onnx files into "
            f"~/.insightface/models/{pack}, name another folder, or give id_embeds"
        ) from error
    if recogniser and "recognition" not in analysis.models:
        raise WeightsError(f"the face models {place} have no recogniser; name a folder that has one")
    return analysis


def _unpacked(place: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A pack's inner folder where it was unpacked into one, as antelopev2 is."""
    folder = Path.home() / ".insightface" / "models" / place
    inner = folder / folder.name
    return inner if not any(folder.glob("*.onnx")) and any(inner.glob("*.onnx")) else place


class InsightFaceEmbedder:
    """Embeds the largest face of a photo.

    Args:
        analysis: A prepared analyser with detector and recogniser.
        name: The model pack's name or folder, for notes.
    """

    def __init__(self, analysis: FaceAnalysis2, name: str = PACK) -> None:
        """Wrap an analyser."""
        self.analysis, self.name = analysis, name

    @classmethod
    def open(cls, place: str | os.PathLike[str] = PACK) -> InsightFaceEmbedder:
        """Open a model pack.

        Args:
            place: Name of an InsightFace pack, which is downloaded once, or a folder of ONNX models.

        Raises:
            WeightsError: The pack is missing and cannot be downloaded, or lacks a detector or recogniser.
        """
        return cls(_open(place, recogniser=True), str(place))

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

    def see(self, photos: Sequence[Image], faces: Sequence[Face | None]) -> list[Seen | None]:
        """The person's face in each photo, with its embedding as InsightFace gives it.

        Args:
            photos: Upright pictures.
            faces: The person's face where another detector has chosen it: that which covers it most is taken; else
                the largest.

        Returns:
            None for a photo without a face.
        """
        return [self._seen(photo, face) for photo, face in zip(photos, faces, strict=True)]

    def _seen(self, photo: Image, wanted: Face | None) -> Seen | None:
        found = analyze_faces(self.analysis, _pixels(photo))
        if not found:
            return None
        faces = [Face(_box(one.bbox), float(one.det_score), np.asarray(one.kps, np.float32)) for one in found]
        if wanted is None:
            place = max(range(len(faces)), key=lambda at: faces[at].area)
        else:
            place = int(overlaps(np.array([one.box for one in faces]), np.array([wanted.box])).argmax())
        return Seen(np.asarray(found[place].embedding, np.float32), faces[place])

    def _one(self, photo: Image) -> np.ndarray | None:
        faces = analyze_faces(self.analysis, _pixels(photo))
        if not faces:
            return None
        largest = max(faces, key=lambda face: (face.bbox[2] - face.bbox[0]) * (face.bbox[3] - face.bbox[1]))
        return np.asarray(largest.embedding, np.float32)


class InsightFaceDetector(Detector):
    """Finds faces with the detector of a pack (SCRFD or RetinaFace, arXiv 2105.04714 and 1905.00641)."""

    name, licence = "insightface", PACK_LICENCE

    def __init__(self, analysis: FaceAnalysis2) -> None:
        """Take a prepared analyser as it is."""
        self._analysis = analysis

    @classmethod
    def open(cls, place: str | os.PathLike[str] = PACK) -> InsightFaceDetector:
        """Open a model pack by its name, or a folder of ONNX models.

        Raises:
            WeightsError: It is missing and cannot be downloaded.
        """
        return cls(_open(place, recogniser=False))

    def detect(self, image: Image) -> list[Face]:
        """See `Detector.detect`; looks at smaller and smaller sizes until there is a face."""
        pixels = _pixels(image)
        boxes, points = self._found(pixels)
        if not len(boxes):
            # a crop that the face fills has nothing around it by which a face is known
            border = round(BORDER * max(pixels.shape[:2]))
            boxes, points = self._found(np.pad(pixels, ((border, border), (border, border), (0, 0)), "edge"))
            boxes[:, :4] -= border
            points = points - border
        limits = np.array([image.width, image.height] * 2)
        faces = [
            Face(tuple(np.clip(box[:4], 0, limits).tolist()), float(box[4]), np.asarray(five, np.float32))
            for box, five in zip(boxes, points, strict=True)
        ]
        return sorted((face for face in faces if face.area > 0), key=lambda face: -face.score)

    def _found(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes with scores [faces, 5] and landmarks [faces, 5, 2] at the first size that shows any."""
        for side in SIZES:
            boxes, points = self._analysis.det_model.detect(pixels, input_size=(side, side))
            if len(boxes):
                return np.array(boxes), np.array(points)
        return np.zeros((0, 5)), np.zeros((0, 5, 2))


class InsightFaceRecogniser(Recogniser):
    """Recognises people with the recogniser of a pack (ArcFace, arXiv 1801.07698)."""

    name, licence = "insightface", PACK_LICENCE

    def __init__(self, analysis: FaceAnalysis2) -> None:
        """Take a prepared analyser that has a recogniser."""
        self._recogniser = analysis.models["recognition"]

    @classmethod
    def open(cls, place: str | os.PathLike[str] = PACK) -> InsightFaceRecogniser:
        """Open a model pack by its name, or a folder of ONNX models.

        Raises:
            WeightsError: It is missing and cannot be downloaded, or holds no recogniser.
        """
        return cls(_open(place, recogniser=True))

    def embed_batch(self, images: Sequence[Image], faces: Sequence[Face]) -> np.ndarray:
        """See `Recogniser.embed_batch`; faces are turned upright by their landmarks first."""
        from insightface.utils.face_align import norm_crop

        side = self._recogniser.input_size[0]
        crops = [
            norm_crop(_pixels(image), face.landmarks, side) for image, face in zip(images, faces, strict=True)
        ]
        parts = [
            self._recogniser.get_feat(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)
        ]
        found = np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 1), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def _box(edges: np.ndarray) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, edges)
    return x0, y0, x1, y1


def _pixels(image: Image) -> np.ndarray:
    """uint8 [height, width, 3], blue first."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])


class AuraFaceDetector(InsightFaceDetector):
    """Finds faces with the detector of AuraFace."""

    name, licence = "auraface", AURAFACE_LICENCE

    @classmethod
    def open(cls, place: str | os.PathLike[str] = AURAFACE) -> InsightFaceDetector:
        """Open the models of a folder or hub id, downloaded at first use.

        Raises:
            WeightsError: They are missing and cannot be downloaded.
        """
        return cls(_open(_auraface(place), recogniser=False))


class AuraFaceRecogniser(InsightFaceRecogniser):
    """Tells people apart by AuraFace-v1, which was trained on data that may be used commercially.

    No threshold of it is published, and its weights could not be had to measure one. 0.40 is cautious: of another
    ArcFace network a cosine of 0.28 lets 0.1 % of the pairs of strangers on LFW pass (AdvFaces,
    github.com/ronny3050/AdvFaces, issue 7).
    """

    name, licence = "auraface", AURAFACE_LICENCE
    calibration = Calibration(
        0.4, 0.0, "not measured; of another ArcFace network 0.28 lets 0.1 % of strangers on LFW pass", False
    )

    @classmethod
    def open(cls, place: str | os.PathLike[str] = AURAFACE) -> InsightFaceRecogniser:
        """Open the models of a folder or hub id, downloaded at first use.

        Raises:
            WeightsError: They are missing and cannot be downloaded, or hold no recogniser.
        """
        return cls(_open(_auraface(place), recogniser=True))


def _auraface(place: str | os.PathLike[str]) -> Path:
    """The folder with the ONNX models.

    Raises:
        WeightsError: It is missing and cannot be downloaded.
    """
    if Path(place).is_dir():
        return Path(place)
    log.warning("taking %s (downloaded at first use, about 280 MB; %s)", place, AURAFACE_LICENCE)
    return onnx_folder(str(place), AURAFACE_FILES)
