"""Precision and recall of each stage, on a truth and results written by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.dataset.model_fakes import png

from photomaker.dataset.ground_truth import Count, StageRows, compare, name_of, read_truth
from photomaker.errors import SettingsError

BOX, OTHER = [0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]


def told(planted="none", faces=(("a", BOX),), original=None, words=("man", "person")):
    faces = [{"person": who, "box": box} for who, box in faces]
    return {
        "planted": planted, "person": faces[0]["person"] if faces else None, "faces": faces, "mask": None,
        "class_words": list(words), "original": original, "due": "corrupt" if planted == "corrupt" else "",
    }  # fmt: skip


TRUTH = {
    "a/0.jpg": told(),
    "a/1.jpg": told("stranger", [("x", BOX)]),
    "a/2.jpg": told("two people", [("a", BOX), ("x", OTHER)]),
    "a/3.jpg": told("exact duplicate", original="a/0.jpg"),
    "a/4.jpg": told("no face", []),
    "a/5.jpg": told("corrupt", []),
    "a/6.jpg": told("near duplicate", original="a/0.jpg"),
    "a/7.jpg": told("small face", [("a", [0.0, 0.0, 4.0, 4.0])]),
}


def rows(*names, **columns):
    return [{"source": f"/some/where/photos/a/{name}.jpg", **columns} for name in names]


def by_name(accuracy):
    return {one.what: one for one in (*accuracy.counts, *accuracy.means)}


def test_rows_are_named_by_the_end_of_their_source():
    assert name_of({"source": "http://127.0.0.1:99/b/photos/a/0.jpg"}) == "a/0.jpg"
    assert name_of({"source": "a/0.jpg"}) == "a/0.jpg" == name_of({"source": "C:\\x\\a\\0.jpg"})


def test_duplicates():
    stages = {
        # of 0, 3 and 6 the original went and one copy stayed by mistake; 1 is nobody's duplicate
        "dedupe": StageRows(
            rows(2, 3, 6), [*rows(0, reason="exact duplicate"), *rows(1, reason="near duplicate")]
        ),
    }
    found = by_name(compare(TRUTH, stages))
    assert found["duplicate"] == Count("duplicate", 1, 2, 2)
    assert (found["duplicate"].precision, found["duplicate"].recall) == (0.5, 0.5)


def test_what_arrives_and_for_what_reason_others_do_not():
    truth = {
        **TRUTH,
        "a/1.jpg": {**TRUTH["a/1.jpg"], "due": "timeout"},
        "a/2.jpg": {**TRUTH["a/2.jpg"], "due": "http 404"},
    }
    # 1 came though nobody should have got it, 2 and 4 went for wrong reasons, 6 and 7 have not been looked at
    dropped = [*rows(5, 4, reason="corrupt"), *rows(2, reason="timeout")]
    assert compare(truth, {"gather": StageRows(rows(0, 1, 3), dropped)}).counts == (
        Count("photo that arrives", 2, 3, 5),
        Count("gather: corrupt", 1, 2, 1),
        Count("gather: http 404", 0, 0, 1),
        Count("gather: timeout", 0, 1, 1),
    )


def test_of_a_family_one_must_stay():
    dropped = rows(0, 3, 6, reason="near duplicate")
    found = by_name(compare(TRUTH, {"dedupe": StageRows([], dropped)}))
    assert found["duplicate"] == Count("duplicate", 2, 3, 2)


def test_faces():
    seen = [
        *rows(0, faces=[{"box": [1, 0, 10, 10]}]),
        *rows(2, faces=[{"box": BOX}, {"box": [0, 0, 9, 10]}]),
    ]
    stages = {
        "detect": StageRows(
            seen, [*rows(1, reason="no face"), *rows(7, reason="small face"), *rows(4, reason="no face")]
        )
    }
    found = by_name(compare(TRUTH, stages, smallest=5))
    assert found["face"] == Count("face", 2, 3, 4)
    small = [*seen, *rows(7, faces=[{"box": [0, 0, 4, 4]}])]
    with_small = by_name(compare(TRUTH, {"detect": StageRows(small, [])}, smallest=5))
    assert with_small["face"] == Count("face", 3, 4, 4)
    assert found["photo without a face that is large enough"] == Count(
        "photo without a face that is large enough", 2, 3, 2
    )


def test_other_people_and_the_right_face():
    kept = [*rows(0, box=BOX), *rows(2, box=OTHER)]
    stages = {"verify": StageRows(kept, rows(1, 3, reason="another person"))}
    found = by_name(compare(TRUTH, stages))
    assert found["photo of another person"] == Count("photo of another person", 1, 2, 1)
    assert (found["right face of two"].value, found["right face of two"].photos) == (0.0, 1)
    kept[1]["box"] = [1, 1, 11, 11]
    assert by_name(compare(TRUTH, stages))["right face of two"].value == 1.0


def test_masks_are_compared_inside_the_crop(tmp_path):
    whole = np.zeros((40, 60), np.uint8)
    whole[10:30, 20:40] = 255
    Image.fromarray(whole).save(tmp_path / "mask.png")
    truth = {"a/0.jpg": {**TRUTH["a/0.jpg"], "mask": "mask.png"}, "a/1.jpg": TRUTH["a/1.jpg"]}
    row = rows(0, crop=[20.0, 0.0, 60.0, 40.0])[0]
    stages = {"segment": StageRows([row, *rows(1, crop=[0, 0, 9, 9])], [])}

    def found(mask):
        given = png(Image.fromarray(mask))
        return by_name(compare(truth, stages, lambda _: given, tmp_path))[
            "overlap of the mask with the true one"
        ]

    same = found(np.ascontiguousarray(whole[0:40, 20:60]))
    assert (same.value, same.photos) == (1.0, 1)
    half = whole[0:40, 20:60].copy()
    half[20:] = 0
    assert found(half).value == 0.5
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(whole[:, 20:])).resize((20, 20), Image.Resampling.NEAREST)
    )
    assert found(small.copy()).value > 0.95


def test_class_words_and_the_tables():
    kept = [*rows(0, class_word="man"), *rows(2, class_word="girl")]
    accuracy = compare(TRUTH, {"mark": StageRows(kept, [])})
    assert by_name(accuracy)["class word that is true of the person"].value == 0.5
    assert "| class word that is true of the person | 0.500 | 2 |" in accuracy.markdown()
    assert accuracy.plain() == [{"what": "class word that is true of the person", "mean": 0.5, "photos": 2}]
    nothing = Count("x", 0, 0, 0)
    assert nothing.precision is None and nothing.recall is None


def test_a_folder_without_a_truth(tmp_path):
    with pytest.raises(SettingsError, match="has no planted world"):
        read_truth(tmp_path)
    (tmp_path / "truth.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(SettingsError, match="has no planted world"):
        read_truth(tmp_path)
