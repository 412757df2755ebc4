"""Face embeddings for V2, with a stand-in for the library, which is not installed for the tests."""

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from photomaker.errors import WeightsError

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
            SimpleNamespace(bbox=np.array(box, float), embedding=np.full(512, place, np.float64))
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


def test_models_that_are_not_there(module, tmp_path):
    with pytest.raises(WeightsError, match="no folder of face models"):
        module.InsightFaceEmbedder.open(tmp_path / "nothing")
    with pytest.raises(WeightsError, match="hold no recogniser"):
        module.InsightFaceEmbedder.open(tmp_path)
