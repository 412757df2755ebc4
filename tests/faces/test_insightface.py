"""Face embeddings for V2, with a stand-in for the library, which is not installed for the tests."""

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from photomaker.errors import WeightsError
from photomaker.types import Face

NAME = "photomaker.faces.insightface_faces"


class FakeAnalysis:
    """Finds its faces only where the detector looks at a small enough size."""

    def __init__(self, limit=640, boxes=(), **_):
        self.limit, self.boxes, self.size, self.det_thresh = limit, boxes, None, 0.5
        self.models = {"detection": self}
        self.det_model = SimpleNamespace(prepare=self.look)

    def prepare(self, ctx_id, det_thresh, det_size):
        self.size = det_size

    def look(self, _device, input_size, det_thresh):
        self.size = input_size

    def get(self, img, max_num=0, det_metric="default"):
        self.seen = img
        if self.size[0] > self.limit:
            return []
        return [
            SimpleNamespace(
                bbox=np.array(box, float),
                embedding=np.full(512, place, np.float64),
                kps=np.full((5, 2), place, np.float64),
                det_score=0.9,
            )
            for place, box in enumerate(self.boxes)
        ]


@pytest.fixture
def module(monkeypatch):
    library, app = ModuleType("insightface"), ModuleType("insightface.app")
    app.FaceAnalysis = FakeAnalysis
    onnx = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    for name, stub in {"insightface": library, "insightface.app": app, "onnxruntime": onnx}.items():
        monkeypatch.setitem(sys.modules, name, stub)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield import_module(NAME)
    sys.modules.pop(NAME, None)


def test_the_detector_looks_at_smaller_and_smaller_sizes(module):
    analysis = module.FaceAnalysis2(limit=400, boxes=[(0, 0, 9, 9)])
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert len(module.analyze_faces(analysis, pixels)) == 1
    assert analysis.size == (384, 384)
    assert module.analyze_faces(module.FaceAnalysis2(limit=200, boxes=[(0, 0, 9, 9)]), pixels) == []


def test_the_largest_face_counts_and_pictures_go_in_blue_first(module):
    analysis = module.FaceAnalysis2(boxes=[(0, 0, 5, 5), (0, 0, 30, 20), (0, 0, 6, 40)])
    embedder = module.InsightFaceEmbedder(analysis)
    (found,) = embedder.embed([Image.new("RGB", (40, 40), (200, 100, 0))])
    assert found.dtype == np.float32 and found[0] == 1
    assert analysis.seen[0, 0].tolist() == [0, 100, 200]
    assert embedder.notes["face_models_licence"] == "non-commercial research only"
    analysis.boxes = []
    assert embedder.embed([Image.new("RGB", (40, 40))]) == [None]


def test_the_face_that_was_chosen_is_seen_and_else_the_largest(module):
    analysis = module.FaceAnalysis2(boxes=[(0, 0, 5, 5), (0, 0, 30, 20), (20, 20, 40, 40)])
    embedder, photo = module.InsightFaceEmbedder(analysis), Image.new("RGB", (40, 40))
    chosen = Face((21.0, 19.0, 39.0, 40.0), 1.0, np.zeros((5, 2), np.float32))
    plain, wanted = embedder.see([photo, photo], [None, chosen])
    assert (plain.embedding[0], wanted.embedding[0]) == (1, 2)
    assert wanted.embedding.dtype == np.float32 and wanted.face.box == (20.0, 20.0, 40.0, 40.0)
    assert wanted.face.landmarks[0].tolist() == [2, 2]
    analysis.boxes = []
    assert embedder.see([photo], [chosen]) == [None]


def test_a_pack_that_was_unpacked_into_a_folder_of_its_own_is_found(module, tmp_path, monkeypatch):
    monkeypatch.setattr(module.Path, "home", lambda: tmp_path)
    models = tmp_path / ".insightface" / "models" / "antelopev2"
    (models / "antelopev2").mkdir(parents=True)
    assert module._unpacked("antelopev2") == "antelopev2"
    (models / "antelopev2" / "a.onnx").touch()
    assert module._unpacked("antelopev2") == models / "antelopev2"
    (models / "b.onnx").touch()
    assert module._unpacked("antelopev2") == "antelopev2"

    class Fetches(FakeAnalysis):
        asked: ClassVar = []

        def __init__(self, name="", **more):
            self.asked.append(name)
            if len(self.asked) == 1:
                (models / "b.onnx").unlink()
                raise AssertionError("detection is not among the models")
            super().__init__()
            self.models["recognition"] = self

        def prepare(self, ctx_id):
            assert ctx_id == -1

    monkeypatch.setattr(module, "FaceAnalysis2", Fetches)
    assert module.InsightFaceEmbedder.open("antelopev2").name == "antelopev2"
    assert Fetches.asked == ["antelopev2", str(models / "antelopev2")]


def test_models_that_are_not_there(module, tmp_path):
    with pytest.raises(WeightsError, match="no folder of face models"):
        module.InsightFaceEmbedder.open(tmp_path / "nothing")
    with pytest.raises(WeightsError, match="have no recogniser"):
        module.InsightFaceEmbedder.open(tmp_path)


class FakeDetector:
    """Finds its boxes only where it looks at a small enough size."""

    def __init__(self, limit, boxes):
        self.limit, self.boxes, self.sizes = limit, np.array(boxes, float).reshape(-1, 5), []

    def detect(self, img, input_size=None):
        self.sizes.append(input_size)
        boxes = self.boxes if input_size[0] <= self.limit else self.boxes[:0]
        return boxes, np.arange(len(boxes) * 10, dtype=np.float64).reshape(-1, 5, 2)


def test_a_pack_as_a_detector(module):
    analysis = module.FaceAnalysis2()
    analysis.det_model = FakeDetector(
        500, [(-5, 2, 20, 30, 0.6), (50, 5, 90, 60, 0.9), (70, 70, 80, 90, 0.5)]
    )
    faces = module.InsightFaceDetector(analysis).detect(Image.new("RGB", (60, 40)))
    assert analysis.det_model.sizes == [(640, 640), (576, 576), (512, 512), (448, 448)]
    # inside the picture, best first, and the one outside it is left out
    assert [face.box for face in faces] == [(50, 5, 60, 40), (0, 2, 20, 30)]
    assert faces[0].landmarks.tolist() == np.arange(10, 20).reshape(5, 2).tolist()
    analysis.det_model = FakeDetector(0, [])
    assert module.InsightFaceDetector(analysis).detect(Image.new("RGB", (60, 40))) == []


def test_a_pack_as_a_recogniser(module, monkeypatch):
    class FakeRecogniser:
        input_size = (112, 112)

        def get_feat(self, crops):
            return np.array([[crop.mean(), 2.0, 0.0] for crop in crops])

    def norm_crop(img, landmark, side):
        assert landmark.shape == (5, 2)
        return np.resize(img[..., 0], (side, side)).astype(float)

    align = SimpleNamespace(norm_crop=norm_crop)
    monkeypatch.setitem(sys.modules, "insightface.utils", ModuleType("insightface.utils"))
    monkeypatch.setitem(sys.modules, "insightface.utils.face_align", align)
    analysis = module.FaceAnalysis2()
    analysis.models["recognition"] = FakeRecogniser()
    recogniser = module.InsightFaceRecogniser(analysis)
    face = Face((0, 0, 9, 9), 1.0, np.zeros((5, 2), np.float32))
    images = [Image.new("RGB", (20, 20), (9, 9, blue)) for blue in range(70)]
    found = recogniser.embed_batch(images, [face] * 70)
    assert found.shape == (70, 3) and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.allclose(found[:, 0] / found[:, 1], np.arange(70) / 2, atol=1e-4)
    assert len(recogniser.embed_batch([], [])) == 0


def test_a_detector_needs_no_recogniser(module, tmp_path):
    assert isinstance(module.InsightFaceDetector.open(tmp_path), module.InsightFaceDetector)
    with pytest.raises(WeightsError, match="have no recogniser"):
        module.InsightFaceRecogniser.open(tmp_path)


class TightCrop:
    """Finds a face only where there is something around it."""

    def detect(self, img, input_size=None):
        if img.shape[1] <= 40:
            return np.zeros((0, 5)), np.zeros((0, 5, 2))
        return np.array([[12.0, 11.0, 48.0, 49.0, 0.8]]), np.full((1, 5, 2), 20.0)


def test_a_tight_crop_is_looked_at_with_a_border(module):
    analysis = module.FaceAnalysis2()
    analysis.det_model = TightCrop()
    (face,) = module.InsightFaceDetector(analysis).detect(Image.new("RGB", (40, 40)))
    assert face.box == (2, 1, 38, 39) and (face.landmarks == 10).all()


def test_auraface_is_a_folder_or_fetched_with_its_licence_told(module, tmp_path, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(module, "onnx_folder", lambda place, files: asked.append((place, files)) or tmp_path)
    detector = module.AuraFaceDetector.open()
    assert (detector.name, detector.licence) == ("auraface", "Apache-2.0")
    assert asked == [("fal/AuraFace-v1", ("scrfd_10g_bnkps.onnx", "glintr100.onnx"))]
    assert "fal/AuraFace-v1" in caplog.text and "MB; Apache-2.0" in caplog.text
    caplog.clear()
    assert isinstance(module.AuraFaceDetector.open(tmp_path), module.AuraFaceDetector)
    assert len(asked) == 1 and not caplog.text
    with pytest.raises(WeightsError, match="have no recogniser"):
        module.AuraFaceRecogniser.open(tmp_path)
    calibration = module.AuraFaceRecogniser.calibration
    assert calibration.threshold == 0.4 and not calibration.measured


def test_what_is_no_folder_and_no_hub_id_is_told():
    from photomaker.hub import onnx_folder

    with pytest.raises(WeightsError, match="no folder of face models my models; check the path"):
        onnx_folder("my models", ("a.onnx",))
    with pytest.raises(WeightsError, match="nobody/nothing cannot be downloaded from the hub"):
        onnx_folder("nobody/nothing", ("a.onnx",))
