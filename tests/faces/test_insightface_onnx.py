"""InsightFace itself on ONNX files made here, where the extra `faces` is installed: the whole loading path."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("insightface")
onnx = pytest.importorskip("onnx")

from photomaker.errors import WeightsError  # noqa: E402
from photomaker.faces.plugins import PlugIn  # noqa: E402

# insightface 2.1 calls what scikit-image 0.26 means to remove
pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")


def save(path, nodes, inputs, outputs, constants):
    from onnx import TensorProto, helper, numpy_helper

    def values(named):
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in named.items()
        ]

    weights = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def detector(path):
    """In the output layout of SCRFD, with two anchors: a face is wherever it is bright red."""
    from onnx.helper import make_node as node

    nodes, outputs = [], {}
    constants = {
        "red": np.int64([0]), "one": np.int64([1]), "axis": np.int64([1]), "column": np.int64([-1, 1]),
        "none": np.float32(-9.0), "zero": np.float32(0.0), "reach": np.float32([[3, 3, 3, 3]]),
        "points": np.float32([[-1, -1, 1, -1, 0, 0, -1, 1, 1, 1]]),
    }  # fmt: skip
    for stride in (8, 16, 32):
        n = f"{stride}"
        nodes += [
            node("AveragePool", ["image"], ["mean" + n], kernel_shape=[stride] * 2, strides=[stride] * 2),
            node("Slice", ["mean" + n, "red", "one", "axis"], ["first" + n]),
            node("Add", ["first" + n, "none"], ["second" + n]),
            node("Concat", ["first" + n, "second" + n], ["both" + n], axis=1),
            node("Transpose", ["both" + n], ["turned" + n], perm=[0, 2, 3, 1]),
            node("Reshape", ["turned" + n, "column"], ["score" + n]),
            node("Mul", ["score" + n, "zero"], ["nothing" + n]),
            node("Add", ["nothing" + n, "reach"], ["box" + n]),
            node("Add", ["nothing" + n, "points"], ["five" + n]),
        ]
    for name, width in (("score", 1), ("box", 4), ("five", 10)):
        outputs |= {f"{name}{stride}": ["k", width] for stride in (8, 16, 32)}
    save(path, nodes, {"image": [1, 3, "height", "width"]}, outputs, constants)


def recogniser(path):
    """The mean colour, and a constant so that it never is nothing."""
    from onnx.helper import make_node as node

    nodes = [
        node("GlobalAveragePool", ["image"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Add", ["flat", "some"], ["embedding"]),
    ]
    save(
        path, nodes, {"image": ["n", 3, 112, 112]}, {"embedding": ["n", 3]}, {"some": np.float32([0.0, 0.0, 0.1])}
    )  # fmt: skip


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    detector(folder / "det.onnx")
    recogniser(folder / "rec.onnx")
    return folder


def picture(colour=(255, 0, 0)):
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[40:72, 96:128] = colour
    return Image.fromarray(pixels)


def test_a_folder_of_onnx_files_finds_and_embeds_faces(pack):
    faces = PlugIn("insightface", str(pack)).open("detector").detect(picture())
    assert faces and all(face.landmarks.shape == (5, 2) and face.score >= 0.5 for face in faces)
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    for face in faces:
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        assert 90 < x < 132 and 36 < y < 76, face.box
        assert 0 <= face.box[0] < face.box[2] <= 160 and 0 <= face.box[1] < face.box[3] <= 120
    vectors = PlugIn("insightface", str(pack)).open("recogniser").embed_batch([picture()] * 2, [faces[0]] * 2)
    assert vectors.shape == (2, 3) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors[0], vectors[1])
    assert vectors[0, 0] > vectors[0, 1]


def test_a_picture_without_a_face(pack):
    assert PlugIn("insightface", str(pack)).open("detector").detect(picture((0, 255, 0))) == []


def test_a_folder_without_a_recogniser(tmp_path):
    detector(tmp_path / "det.onnx")
    PlugIn("insightface", str(tmp_path)).open("detector")
    with pytest.raises(WeightsError, match="have no recogniser"):
        PlugIn("insightface", str(tmp_path)).open("recogniser")
