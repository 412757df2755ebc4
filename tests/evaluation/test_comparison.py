"""Methods side by side, on fakes whose true figures are known."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluation import comparison_fakes as fakes
from tests.evaluation.fakes import vector_of

from photomaker.errors import OutputError, PhotoError, SettingsError
from photomaker.evaluation.plans.compare import columns as table
from photomaker.evaluation.plans.compare import pages
from photomaker.evaluation.plans.compare.columns import Rows, beside, figures
from photomaker.evaluation.plans.compare.people import People, world_of
from photomaker.evaluation.plans.compare.pictures import changed
from photomaker.evaluation.plans.compare.plan import FOLDER, compare
from photomaker.evaluation.plans.compare.plots import ellipse
from photomaker.evaluation.plans.compare.settings import ComparisonSettings, Entry, JudgeSettings
from photomaker.evaluation.prompts import ATTRIBUTES, prompt_list
from photomaker.evaluation.running.store import Store
from photomaker.types import Face

ROOT = Path(__file__).parents[2]
SMALL = ComparisonSettings(
    methods=(Entry("copier"), Entry("painter"), Entry("tuner")), people=6, tuned_people=3, gallery=9, prompts=4,
    seeds=2, references=4, unseen=5, steps=2, counts=(1, 4), merges=(0.0, 0.5), curve_people=3, curve_prompts=2,
    pairs=1, processes=1, samples=50, device="cpu",
)  # fmt: skip
TIMES = ("seconds", "beside_fit", "peak_memory_mib")


def quiet(stage, done, total):
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return compare(
        replace(SMALL, out=tmp_path_factory.mktemp("out")), "photomaker benchmark", quiet, fakes.TOOLS
    )


def figure(result, method, name):
    return result.document["methods"][method]["figures"][name]


def untimed(result):
    """All figures but those of time and memory."""
    return {
        name: {key: one for key, one in method["figures"].items() if not key.startswith(TIMES)}
        for name, method in result.document["methods"].items()
    }


def test_every_figure_has_an_interval_and_the_people_it_is_of(result):
    for name, method in result.document["methods"].items():
        for key, one in method["figures"].items():
            assert one["low"] <= one["value"] <= one["high"], (name, key)
            fewer = {
                "editability": SMALL.curve_people,
                "mixing_falls": SMALL.pairs,
                "mixing_rises": SMALL.pairs,
            }
            assert one["people"] == fewer.get(key, 3 if name == "tuner" else 6)


def test_the_fakes_figures_are_what_they_were_built_to_be(result):
    assert (
        figure(result, "copier", "sim_references_first")["value"]
        > figure(result, "copier", "sim_unseen_first")["value"]
    )
    assert (
        figure(result, "copier", "copy_paste_first")["value"]
        > figure(result, "painter", "copy_paste_first")["value"]
        > 0
    )
    assert figure(result, "painter", "prompt_accuracy")["value"] == 1
    assert figure(result, "copier", "prompt_accuracy")["value"] < 0.5
    assert figure(result, "real", "prompt_accuracy")["value"] == 1
    assert figure(result, "real", "likeness_first")["value"] == 1
    assert figure(result, "painter", "retrieval_first")["value"] == 1
    assert figure(result, "painter", "sim_unseen_first")["value"] == pytest.approx(
        figure(result, "painter", "sim_unseen_second")["value"], abs=1e-6
    )
    assert figure(result, "tuner", "refused")["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert figure(result, "copier", "face_div")["value"] == SMALL.seeds
    assert figure(result, "copier", "seconds_total")["value"] > 0
    assert figure(result, "painter", "identity_kib")["value"] > 0.09
    assert "dino" not in result.document["methods"]["painter"]["figures"]


def test_likeness_equals_a_straightforward_computation(result):
    """Nothing but pixels, people and sums."""
    world, wanted = fakes.World(), []
    for person in world.people("test", SMALL.people):
        copied = vector_of(world.photos(person, "references", 1)[0])
        # what is drawn is rounded to bytes once more
        unseen = [vector_of(photo) for photo in world.photos(person, "unseen", SMALL.unseen)]
        wanted.append(np.mean([copied @ one for one in unseen]))
    assert figure(result, "copier", "sim_unseen_first")["value"] == pytest.approx(np.mean(wanted), abs=0.01)


def test_a_person_whose_photos_a_method_refuses_counts_as_nothing(result):
    rows = Store(result.files[0].parent / FOLDER).rows("tuner", "main", 0)
    assert len(rows) == 8
    assert all(row["refused"] and row["sim_unseen_first"] == 0 and not row["face"] for row in rows)
    assert not any(value for row in rows for value in row["correct"].values())


def test_a_row_says_all_about_its_picture(result):
    root = result.files[0].parent / FOLDER
    rows = Store(root).rows("painter", "main", 2)
    assert [(row["prompt"], row["seed"]) for row in rows[:3]] == [
        ("studio", 0),
        ("studio", 1),
        ("sunglasses", 0),
    ]
    for name in (
        "method",
        "person",
        "references",
        "merge",
        "sha256",
        "clip_t",
        "seconds_fit",
        "identity_bytes",
    ):
        assert name in rows[0]
    with Image.open(root / rows[0]["picture"]) as picture:
        assert picture.size == (32, 32)


def test_curves_over_photos_and_merge_step(result):
    painter = result.document["methods"]["painter"]
    one, four = painter["photos"]
    assert (one["at"], four["at"], one["people"]) == (1, 4, 3)
    assert one["likeness"][0] < four["likeness"][0]
    first, last = painter["merges"]
    assert first["likeness"][0] > last["likeness"][0]
    assert result.document["methods"]["copier"]["merges"] == []
    assert result.document["methods"]["tuner"]["photos"] == []


def test_the_tables_are_well_formed_and_say_how_they_were_made(result):
    page = result.files[1].read_text()
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block
    for words in (
        "photomaker benchmark",
        "tuner: tuned for each person",
        "first 3 people",
        "no model was given",
        "commit",
    ):
        assert words in page
    assert str(result.files[0].parent) not in page
    lines = list(csv.DictReader(result.files[2].read_text().splitlines()))
    assert {line["method"] for line in lines} == {"real", "base", "copier", "painter", "tuner"}
    assert len(lines) == 5 * len(table.ALL_COLUMNS)
    row = next(line for line in lines if line["method"] == "painter" and line["column"] == "prompt_accuracy")
    assert (float(row["value"]), row["people"]) == (1, "6")
    tex = result.files[3].read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert all("%" not in line.replace(r"\%", "") for line in tex.splitlines()[1:])
    assert json.loads(result.files[0].read_text())["machine"]["cores"]


def test_plots_are_pictures_and_the_page_shows_them(result):
    names = {path.name for path in result.plots}
    assert names == {f"methods_{one}.png" for one in ("front", "seconds", "photos", "merge", "pictures")}
    for path in result.plots:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
        assert f"]({path.name})" in result.files[1].read_text()


def test_a_second_run_makes_nothing_and_says_the_same(result):
    out = result.files[0].parent
    before = {path: path.stat().st_mtime_ns for path in (out / FOLDER).rglob("*.jsonl")}
    again = compare(replace(SMALL, out=out), "photomaker benchmark", quiet, fakes.TOOLS)
    assert {path: path.stat().st_mtime_ns for path in (out / FOLDER).rglob("*.jsonl")} == before
    assert again.document["methods"] == result.document["methods"]


def test_a_method_can_be_added_later(result, tmp_path):
    compare(replace(SMALL, out=tmp_path, methods=(Entry("painter"),)), progress=quiet, tools=fakes.TOOLS)
    both = compare(replace(SMALL, out=tmp_path), progress=quiet, tools=fakes.TOOLS)
    assert untimed(both) == untimed(result)


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.evaluation import comparison_fakes as fakes
from tests.evaluation.test_comparison import SMALL
from photomaker.evaluation.plans.compare.plan import compare
if __name__ == "__main__":
    settings = replace(SMALL, out=Path(sys.argv[1]), processes=2, curve_people=0, methods=SMALL.methods[1:2])
    compare(settings, "x", lambda *_: None, replace(fakes.TOOLS, method=fakes.slow_method))
"""


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_and_ends_with_the_same_table(tmp_path):
    script, out, log = tmp_path / "killed.py", tmp_path / "out", tmp_path / "out" / fakes.LOG
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, script, out], env=environment, start_new_session=True)
    until = time.monotonic() + 450
    while not (log.exists() and len(log.read_text().splitlines()) >= 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list((out / FOLDER / "rows").rglob("0000.jsonl")))
    assert 0 < done < 12
    settings = replace(SMALL, curve_people=0, methods=SMALL.methods[1:2])
    resumed = compare(replace(settings, out=out), "x", quiet, fakes.TOOLS)
    whole = compare(replace(settings, out=tmp_path / "whole"), "x", quiet, fakes.TOOLS)
    assert untimed(resumed) == untimed(whole)
    assert not list((out / FOLDER).rglob("identity.safetensors"))


def test_an_identity_that_was_fitted_is_not_fitted_again(tmp_path, monkeypatch):
    settings = replace(
        SMALL, out=tmp_path, methods=(Entry("painter"),), curve_people=0, pairs=0, seeds=12, prompts=3
    )
    drawn = fakes.Painter.generate

    def fails_later(self, identity, requests):
        if (
            requests[0].prompt.endswith("snow") and requests[0].sampling.merge != 1
        ):  # not for the row of the base
            raise KeyboardInterrupt
        return drawn(self, identity, requests)

    monkeypatch.setattr(fakes.Painter, "generate", fails_later)
    with pytest.raises(KeyboardInterrupt):
        compare(settings, progress=quiet, tools=fakes.TOOLS)
    folder = Store(tmp_path / FOLDER).folder("painter", "main", 0)
    assert sorted(path.name for path in folder.iterdir()) == [
        "0000.jsonl",
        "0000.npz",
        "fit.npz",
        "identity.safetensors",
    ]
    monkeypatch.setattr(fakes.Painter, "generate", drawn)
    fitted = []
    fit = fakes.Painter.fit

    def told(self, photos, *, notes):
        fitted.append((photos[0].name, notes["class_word"]))
        return fit(self, photos, notes=notes)

    monkeypatch.setattr(fakes.Painter, "fit", told)
    compare(settings, progress=quiet, tools=fakes.TOOLS)
    classes = fakes.people(settings).class_of
    assert fitted == [(f"person {row}", classes(row)) for row in range(1, 6)]
    assert len({word for _, word in fitted}) > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 3}, "with seeds 2, but now it is 3"),
        ({"people": 5, "gallery": 8}, "is from a run with gallery 9"),
    ],
)
def test_a_folder_of_other_settings_is_refused(result, change, words):
    with pytest.raises(OutputError, match=words):
        compare(replace(SMALL, out=result.files[0].parent, **change), progress=quiet, tools=fakes.TOOLS)


def test_a_method_with_other_weights_is_refused(result):
    other = replace(SMALL, out=result.files[0].parent, methods=(Entry("painter", adapter="other"),))
    with pytest.raises(
        OutputError, match='weights "own", but now it is "other"; choose another --out or name, or delete'
    ):
        compare(other, progress=quiet, tools=fakes.TOOLS)


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"version": 0}', "is from version 0 of the benchmark, but this is 1"), ("no", "is damaged")],
)
def test_a_folder_of_another_version_is_refused(tmp_path, text, words):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "run.json").write_text(text)
    with pytest.raises(OutputError, match=words):
        compare(replace(SMALL, out=tmp_path), progress=quiet, tools=fakes.TOOLS)


def test_a_method_that_needs_more_than_a_prompt_is_refused_before_anything(tmp_path):
    settings = replace(SMALL, out=tmp_path / "out", methods=(Entry("painter"), Entry("sculptor")))
    with pytest.raises(SettingsError, match="sculptor needs a structure picture with every prompt"):
        compare(settings, progress=quiet, tools=fakes.TOOLS)
    assert not (tmp_path / "out").exists()


# ---- the table on rows made by hand


def row(**more):
    return {"photo": True, "face": True, "correct": {}, **more}


def hand_made(unseen, references, **more):
    return [[row(sim_unseen_first=u, sim_references_first=r, copy_paste_first=r - u, hit_first=u > 0.5, **more)]
            for u, r in zip(unseen, references, strict=True)]  # fmt: skip


def test_each_column_is_the_figure_of_rows_made_by_hand():
    ours = Rows(hand_made([0.2, 0.6], [0.4, 0.8], clip_t=0.3, face_div=0.5, seconds_fit=2.0, seconds=0.5,
                          peak_memory_mib=100.0, identity_bytes=2048, refused=False),
                [np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]])])  # fmt: skip
    real = Rows(hand_made([0.8, 0.8], [0.8, 0.8]), [np.array([[3.0], [5.0]]), np.array([[3.0], [5.0]])])
    found = figures(ours, real, 20)
    wanted = {
        "sim_unseen_first": 0.4, "sim_references_first": 0.6, "likeness_first": 0.5, "copy_paste_first": 0.2,
        "retrieval_first": 0.5, "clip_t": 0.3, "face_div": 0.5, "faces": 1, "seconds_fit": 2, "seconds": 0.5,
        "seconds_total": 2.5, "peak_memory_mib": 100, "identity_kib": 2, "refused": 0, "fid": 9,
    }  # fmt: skip
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value), name
    # k(x, y) = (x y + 1)^3 over the multisets {0, 0, 2, 2} and {3, 3, 5, 5}
    a, b = [0.0, 2.0, 0.0, 2.0], [3.0, 5.0, 3.0, 5.0]
    within = [
        np.mean([(x * y + 1) ** 3 for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    assert found["kid"].value == pytest.approx(
        sum(within) - 2 * np.mean([(x * y + 1) ** 3 for x in a for y in b])
    )
    assert "prompt_accuracy" not in found
    assert "dino" not in found


def test_a_method_is_put_beside_the_first_on_the_people_that_both_have():
    ours = Rows(hand_made([0.2, 0.6], [0.4, 0.8], seconds_fit=6.0))
    first = Rows(hand_made([0.1, 0.6, 0.9], [0.4, 0.8, 0.9], seconds_fit=2.0))
    found = beside(ours, first, 200)
    assert found["beside_likeness"].value == pytest.approx(0.05)
    # the only differences that two people can have: twice the first, twice the second, or one of each
    assert (found["beside_likeness"].low, found["beside_likeness"].high) == pytest.approx((0, 0.1))
    assert found["beside_retrieval"].value == 0
    assert found["beside_fit"].value == pytest.approx(3)
    assert found["beside_likeness"].people == 2
    assert "beside_prompt_accuracy" not in found
    stated = [[row(sim_unseen_first=0.5, correct={"hat": seen, "scene": True})] for seen in (True, False)]
    right = [[row(sim_unseen_first=0.5, correct={"hat": True, "scene": True})] for _ in range(2)]
    assert beside(Rows(stated), Rows(right), 20)["beside_prompt_accuracy"].value == pytest.approx(-0.25)


def test_a_picture_without_a_face_counts_in_likeness_and_not_in_copy_paste():
    people = [[row(sim_unseen_first=0.5, sim_references_first=0.7, copy_paste_first=0.2),
               row(sim_unseen_first=0.0, sim_references_first=0.0, copy_paste_first=0.0, face=False)]]  # fmt: skip
    found = figures(Rows(people), Rows(people), 20)
    assert found["sim_unseen_first"].value == 0.25
    assert found["copy_paste_first"].value == pytest.approx(0.2)
    assert found["faces"].value == 0.5


def test_other_styles_count_for_the_prompt_and_not_for_likeness():
    right, wrong = {"scene": True, "style": True}, {"scene": False, "style": True}
    people = [
        [row(sim_unseen_first=0.5, correct=right), row(sim_unseen_first=0.1, photo=False, correct=wrong)]
    ]
    found = figures(Rows(people), Rows(people), 20)
    assert found["sim_unseen_first"].value == 0.5
    assert found["accuracy_scene"].value == 0.5
    assert found["prompt_accuracy"].value == 0.75
    assert "accuracy_hat" not in found
    assert set(ATTRIBUTES) == {
        one.key.removeprefix("accuracy_") for one in table.COLUMNS if one.table == "attributes"
    }


def test_an_ellipse_holds_95_percent():
    rng = np.random.default_rng(0)
    points = np.linalg.cholesky(np.array([[2.0, 0.9], [0.9, 1.0]])) @ rng.normal(size=(2, 20_000)) + 3
    middle, outline = ellipse(points)
    inverse = np.linalg.inv(np.cov(points))
    radius = np.einsum("ik,ij,jk->k", outline - middle[:, None], inverse, outline - middle[:, None])
    assert radius == pytest.approx(np.full(radius.shape, 5.991))
    inside = np.einsum("ik,ij,jk->k", points - middle[:, None], inverse, points - middle[:, None]) < radius[0]
    assert inside.mean() == pytest.approx(0.95, abs=0.01)


# ---- README


def test_a_page_gets_its_table_and_keeps_the_rest(result, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# A\n\n{pages.START}\nold\n{pages.END}\n\nafter\n")
    for _ in range(2):
        pages.write_figures(readme, result.document)
    text = readme.read_text()
    assert text.startswith(f"# A\n\n{pages.START}\n| method | people |")
    assert text.endswith(f"{pages.END}\n\nafter\n")
    assert "old" not in text
    assert "| painter | 6 |" in text
    assert "3 or 6 people, 4 prompts, 2 seeds" in text
    heads, _, *lines = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
    beside = next(at for at, head in enumerate(heads) if head.startswith("cosine beside copier"))
    said = {line[0].removeprefix("| "): line[beside] for line in lines}
    assert said["copier"] == "" and all(
        " to " in value for name, value in said.items() if name not in ("copier", "real", "base")
    )


def test_the_readme_gets_three_sentences_and_the_plot_stays(result, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# A\n\n{pages.SUMMARY_START}\nold\n{pages.SUMMARY_END}\n\n![plot](plot.png)\n")
    for _ in range(2):
        pages.write_figures(readme, result.document)
    before, said, after = readme.read_text().partition(pages.summary(result.document))
    assert before == f"# A\n\n{pages.SUMMARY_START}\n" and after.endswith("![plot](plot.png)\n")
    methods, first = result.document["methods"], result.document["settings"]["methods"][0]["name"]
    assert said.count(". ") == 2 and said.startswith(f"On {methods[first]['people']} people")
    for tuned in (False, True):
        alike = {
            name: one["figures"]["likeness_first"]["value"]
            for name, one in methods.items()
            if bool(one.get("tuned")) is tuned and name not in (first, "real")
        }
        assert f"`{max(alike, key=alike.get)}` is most like the person" in said


def test_a_methods_page_gets_its_figures_and_how_they_differ_from_the_first_methods(result, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{pages.PAGE_START}\nold\n{pages.PAGE_END}\nafter\n")
    first, *_, last = [name for name in result.document["methods"] if name not in ("real", "base")]
    own, tuned = (pages.method_page(page, result.document, name) for name in (first, last))
    assert "beside" not in own and "old" not in own and own.endswith(f"{pages.PAGE_END}\nafter\n")
    assert f"on {result.document['methods'][last]['people']} people | {last} | beside {first}" in tuned
    shown = result.document["methods"][last]["figures"]["beside_prompt_accuracy"]["value"]
    assert f"{100 * shown:.1f} %" in next(
        line for line in tuned.splitlines() if line.startswith("| prompt accuracy")
    )
    page.write_text("# no markers")
    with pytest.raises(OutputError, match="once each"):
        pages.method_page(page, result.document, last)


@pytest.mark.parametrize(
    "text",
    [
        "",
        pages.START,
        f"{pages.END} {pages.START}",
        f"{pages.START} {pages.END} {pages.END}",
        pages.SUMMARY_START,
    ],
)
def test_a_readme_without_markers_is_refused_before_anything(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(OutputError, match="once each, in this order"):
        compare(replace(SMALL, out=tmp_path / "out"), progress=quiet, tools=fakes.TOOLS, shown_in=[readme])
    assert not (tmp_path / "out").exists()


# ---- settings, prompts and people


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"people": 1}, "people is 1"),
        ({"gallery": 5}, "gallery is 5 for 6 people"),
        ({"tuned_people": 7}, "tuned_people is 7"),
        ({"methods": ()}, "no method is named"),
        ({"methods": (Entry("a"), Entry("a"))}, "'a' is named twice"),
        ({"split": "train"}, "split is 'train'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"merges": (2.0,)}, "merges has 2.0"),
        ({"counts": (0,)}, "counts is 0"),
        ({"unseen": 0}, "unseen is 0"),
        ({"prompt_list": "nowhere.txt"}, "cannot read the prompts nowhere.txt"),
    ],
)
def test_settings_out_of_range_are_refused(change, words):
    with pytest.raises(SettingsError, match=words):
        replace(SMALL, **change)


def test_entries_and_judges_are_checked():
    for wrong in (
        {"name": "a/b"},
        {"name": "real"},
        {"name": "a", "merge": 2.0},
        {"name": "a", "guidance": -1.0},
    ):
        with pytest.raises(SettingsError):
            Entry(**wrong)
    with pytest.raises(SettingsError, match="LPIPS needs two files"):
        JudgeSettings(lpips_trunk="alexnet.pth")


def test_the_prompts_of_the_paper_are_forty():
    prompts = prompt_list("paper")
    texts = [prompt.text("woman", "img") for prompt in prompts]
    assert len(set(texts)) == 40
    assert texts[0] == "a photo of a woman img"
    assert "a woman img riding a horse, in the view of the top" in texts
    assert all(prompt.is_photo for prompt in prompts)


def test_prompts_of_ones_own_need_their_place_for_the_person(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("# mine\n{c} at sea\n\na photo of {c}\n")
    assert [prompt.text("man", "img") for prompt in prompt_list(str(own))] == [
        "a man img at sea",
        "a photo of a man img",
    ]
    for text, words in (
        ("a man", "once and no other braces"),
        ("{c} {x}", "no other braces"),
        ("", "holds no prompt"),
    ):
        own.write_text(text)
        with pytest.raises(SettingsError, match=words):
            prompt_list(str(own))


def photo_folder(tmp_path, counts):
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (tmp_path / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (80, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_people_in_a_folder(tmp_path):
    folder = photo_folder(tmp_path / "faces", {"ada": 6, "ben": 5})
    settings = replace(
        SMALL, photos=folder, classes={"ada": "woman", "ben": "man"}, people=2, tuned_people=2, curve_people=2,
        references=2, unseen=3,
    )  # fmt: skip
    found = People(settings, world_of(settings))
    assert found.names() == ["ada", "ben"]
    assert found.class_of(0) == "woman"
    assert (len(found.references(0, 2)), len(found.references(0, 8)), len(found.unseen(0))) == (2, 3, 3)
    mark = found.world.fingerprint()
    assert world_of(settings).fingerprint() == mark
    Image.new("RGB", (80, 80), "red").save(folder / "ben" / "4.png")
    assert world_of(settings).fingerprint() != mark


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (
            {"people": 3, "tuned_people": 2, "curve_people": 2},
            PhotoError,
            "has 2 folders of photos for 3 people",
        ),
        ({"references": 5}, PhotoError, "ada has 6 photos, but 8 are needed"),
        ({"classes": {"ada": "woman"}}, SettingsError, "classes lacks ben"),
        ({"classes": {"ada": "woman", "ben": "table"}}, SettingsError, "the class of ben is 'table'"),
        ({"photos": Path("nowhere")}, PhotoError, "there is no folder nowhere"),
    ],
)
def test_photos_that_will_not_do_are_named_first(tmp_path, change, kind, words):
    folder = photo_folder(tmp_path / "faces", {"ada": 6, "ben": 6})
    good = replace(
        SMALL, photos=folder, classes={"ada": "woman", "ben": "man"}, people=2, tuned_people=2, curve_people=2,
        references=2, unseen=3,
    )  # fmt: skip
    with pytest.raises(kind, match=words):
        world_of(replace(good, **change))


# ---- editing and mixing


def strengths(*points):
    """Two people at each merge share: the likeness of a photo, and whether the prompt's scene was seen."""
    return {
        at: Rows([[row(sim_unseen_first=alike, correct={"scene": seen})] for _ in range(2)])
        for at, alike, seen in points
    }


def test_methods_are_compared_where_they_draw_the_person_alike():
    curves = [
        table.curve(strengths((0.0, 0.9, False), (0.5, 0.5, True)), 10),
        table.curve(strengths((0.0, 0.6, True), (0.5, 0.2, True)), 10),
        [],
    ]
    assert table.common_likeness(curves) == pytest.approx(0.6)
    assert table.common_likeness([[]]) is None
    found = table.editability(strengths((0.0, 0.9, False), (0.5, 0.5, True)), 0.6, 10)
    assert found["editability"].value == pytest.approx(
        0.75
    )  # a quarter of the way from all right to all wrong
    assert found["editability"].people == 2
    unsaid = {0.0: Rows([[row(sim_unseen_first=0.5)]] * 2)}
    assert table.editability(unsaid, 0.5, 10) == {}


def test_a_pair_counts_where_every_step_leaves_the_first_for_the_second():
    good, bad = [(0.9, 0.1), (0.5, 0.4), (0.2, 0.8)], [(0.9, 0.1), (0.95, 0.4), (0.2, 0.4)]
    parts = {
        share: Rows([[row(sim_unseen_first=one[at][0], to_second=one[at][1])] for one in (good, bad)])
        for at, share in enumerate((0.0, 0.5, 1.0))
    }
    found = table.mixing(parts, 10)
    assert (found["mixing_falls"].value, found["mixing_rises"].value) == (0.5, 0.5)


def test_what_a_method_changes_is_counted_outside_the_head(tmp_path):
    base = np.full((32, 32, 3), 100, np.uint8)
    Image.fromarray(base).save(tmp_path / "base.png")
    drawn = base.copy()
    drawn[8:24, 8:24] = 255  # the face's box, and half of its sides around it
    drawn[0, :] = 151
    face = Face((12.0, 12.0, 20.0, 20.0), 1.0, np.zeros((5, 2)))
    files = [tmp_path / "base.png", tmp_path / "base.png", tmp_path / "none.png"]
    one, without_face, without_base = changed([Image.fromarray(drawn)] * 3, [face, None, face], files)
    assert one == pytest.approx(51 / 255 * 32 / (32 * 32 - 16 * 16))
    assert np.isnan(without_face) and np.isnan(without_base)


def test_the_base_alone_is_a_row_and_what_methods_are_held_against(result):
    base, painter = (result.document["methods"][name]["figures"] for name in ("base", "painter"))
    assert base["sim_unseen_first"]["value"] < 0.5 < painter["sim_unseen_first"]["value"]
    assert base["prompt_accuracy"]["value"] == 1
    assert "seconds_fit" not in base and "changed" not in base
    assert painter["changed"]["value"] >= 0
    assert painter["editability"]["value"] == 1
    assert painter["mixing_falls"]["value"] == painter["mixing_rises"]["value"] == 1
    assert "mixing_falls" not in result.document["methods"]["copier"]["figures"]
    page = result.files[1].read_text()
    assert "## Editing and mixing" in page and "- `base`: what the base draws" in page


def test_without_a_method_that_can_leave_the_person_out_there_is_no_base(tmp_path):
    settings = replace(SMALL, out=tmp_path, methods=(Entry("copier"),), curve_people=0)
    assert "base" not in compare(settings, progress=quiet, tools=fakes.TOOLS).document["methods"]
