"""Files of orders: read, drawn, and gone on with."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image
from tests.studio.fakes import FakeDetector, FakeMethod, FakeRecogniser, save

from photomaker import weights
from photomaker.errors import Cancelled, IdentityError, OutputError, PhotoError, PromptError, SettingsError
from photomaker.studio.desk.workers import DrawerLost
from photomaker.studio.engine import Backends, Engine
from photomaker.studio.events import Cancel, Drawn
from photomaker.studio.orders.batch import draw_rows, planned_rows, read_orders

TEXT = """
people:
  ada: ada
  ben: [ben/b.png]
words: {ada: woman, ben: man}
orders:
  - prompts: ["a photo of a {word} img in the snow", "a sketch of a {word} img"]
    n: 2
    seed: 7
  - prompts: a man img
    people: ben
    guidance: [1.5, 3]
    scheduler: [euler, ddim]
    seeds: [4]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name, who in (("ada", 0), ("ben", 255)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / f"{name[0]}.png", who=who)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def engine():
    method = FakeMethod()
    return Engine(lambda: method, Backends(FakeDetector(), FakeRecogniser()), {"model_hash": "abc"})


def rows_of(folder, text=TEXT):
    (folder / "orders.yaml").write_text(text)
    return read_orders(folder / "orders.yaml")


def drawn(engine, rows, folder, **more):
    return draw_rows(engine, rows, planned_rows(engine, rows), folder, **more)


def test_prompts_times_people_times_settings(here):
    rows = rows_of(here)
    assert [(row.person, row.order.prompts[0], row.order.n) for row in rows[:4]] == [
        ("ada", "a photo of a woman img in the snow", 2),
        ("ada", "a sketch of a woman img", 2),
        ("ben", "a photo of a man img in the snow", 2),
        ("ben", "a sketch of a man img", 2),
    ]
    assert [(row.order.sampling.scheduler, row.order.sampling.guidance) for row in rows[4:]] == [
        ("euler", 1.5),
        ("euler", 3),
        ("ddim", 1.5),
        ("ddim", 3),
    ]
    assert rows[4].label == "ben: a man img, scheduler euler, guidance 1.5"
    assert rows[4].order.seeds == (4,)


@pytest.mark.slow
def test_a_second_run_draws_nothing_and_a_changed_order_draws_what_changed(here, engine):
    rows = rows_of(here)
    first = drawn(engine, rows, here / "out")
    files = [path for one in first for path in one.paths]
    assert len(files) == 12
    assert len(set(files)) == 12
    assert all(path.is_file() for path in files)
    with Image.open(files[1]) as image:
        image.load()
        assert (image.text["person"], image.text["seed"], image.text["model_hash"]) == ("ada", "8", "abc")
    times = {path: path.stat().st_mtime_ns for path in files}
    count = len(engine.method.batches)
    assert drawn(engine, rows, here / "out") == first
    assert len(engine.method.batches) == count
    files[3].unlink()
    drawn(engine, rows, here / "out")
    assert sum(engine.method.batches[count:]) == 1
    assert {path for path in files if path.stat().st_mtime_ns != times[path]} == {files[3]}
    changed = drawn(engine, rows_of(here, TEXT.replace("seed: 7", "seed: 8")), here / "out")
    new = {path for one in changed for path in one.paths} - set(files)
    assert len(new) == 8


def test_other_photos_of_the_person_are_other_pictures(here, engine):
    rows = rows_of(here)
    first = drawn(engine, rows, here / "out")
    save(here / "ada" / "c.png", who=3)
    second = drawn(engine, rows, here / "out")
    assert not set(first[0].paths) & set(second[0].paths)
    assert first[4].paths == second[4].paths


def test_the_best_of_several_are_kept(here, engine):
    text = TEXT.replace("n: 2", "n: 2\n    best_of: 3").replace("seed: 7", "seed: 0")
    rows = rows_of(here, text)
    finished = drawn(engine, rows, here / "out")
    seeds = []
    for path in finished[2].paths:  # ben is most like the largest seed
        with Image.open(path) as image:
            image.load()
            seeds.append(image.text["seed"])
    assert seeds == ["5", "4"]


class Spy:
    """Draws as the engine does, and remembers in which thread."""

    def __init__(self, engine):
        self.engine, self.threads = engine, []

    def draw(self, identity, requests, **more):
        self.threads.append(threading.current_thread())
        return self.engine.draw(identity, requests, **more)


def test_several_draw_at_once_and_come_to_the_same(here, engine):
    rows, told = rows_of(here), []
    first = drawn(engine, rows, here / "a", seal=False)  # manifests differ from time to time
    alone = [path.read_bytes() for one in first for path in one.paths]
    spies = [Spy(engine), Spy(engine)]
    several = drawn(
        engine, rows, here / "b", drawers=spies, seal=False, progress=lambda *one: told.append(one)
    )
    assert [path.read_bytes() for one in several for path in one.paths] == alone
    assert told[0] == (0, 12) and told[-1] == (12, 12)
    threads = [thread for spy in spies for thread in spy.threads]
    assert threads and threading.main_thread() not in threads
    drawn(engine, rows, here / "b", drawers=spies)
    assert len(threads) == sum(len(spy.threads) for spy in spies)  # nothing was left to draw


class Dying:
    """Is lost at its second call, or at every one."""

    def __init__(self, engine, always=False):
        self.engine, self.always, self.calls = engine, always, 0

    def draw(self, identity, requests, **more):
        self.calls += 1
        if self.always or self.calls == 2:
            raise DrawerLost
        return self.engine.draw(identity, requests, **more)


def test_what_a_lost_drawer_left_is_drawn_by_another(here, engine):
    rows, dying = rows_of(here), Dying(engine)
    several = drawn(engine, rows, here / "b", drawers=[dying, Spy(engine)])
    assert dying.calls >= 2 and all(path.is_file() for one in several for path in one.paths)
    with pytest.raises(OutputError, match="died 3 times"):
        drawn(engine, rows, here / "c", drawers=[Dying(engine, always=True)])


def test_a_mistake_of_one_of_several_ends_the_run(here, engine):
    class Broken:
        def draw(self, *_, **__):
            raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        drawn(engine, rows_of(here), here / "out", drawers=[Broken(), Broken()])


def test_a_cancelled_run_leaves_whole_files_and_goes_on(here, engine):
    rows, cancel = rows_of(here), Cancel()

    def stop(event):
        if isinstance(event, Drawn):
            cancel.cancel()

    with pytest.raises(Cancelled):
        drawn(engine, rows, here / "out", cancel=cancel, on_event=stop)
    files = sorted((here / "out").iterdir())
    assert len(files) == 2
    for path in files:
        with Image.open(path) as image:
            image.load()
    assert len([path for one in drawn(engine, rows, here / "out") for path in one.paths]) == 12


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("people: ben", "people: bob", SettingsError, "there is no person 'bob'"),
        ("ada: woman, ", "", PromptError, "needs ada's class word"),
        ("words: {ada", "words: {bob: man, ada", SettingsError, "there is no person 'bob'"),
        ("n: 2", "n: 0", SettingsError, "n is 0"),
        ("n: 2", "number: 2", SettingsError, "there is no setting orders.number"),
        ("seed: 7", "seed: x", SettingsError, "orders.0.seed"),
        ("[euler, ddim]", "magic", SettingsError, "there is no scheduler 'magic'"),
        ("seeds: [4]", "pairs: true\n    people: [ada, ben]", SettingsError, "2 people and 1 prompts"),
        ("seeds: [4]", "mask: m.png", SettingsError, "there is a mask (m.png) but no start picture"),
        ("seeds: [4]", "start: none.png", PhotoError, "there is no photo none.png"),
        ("seeds: [4]", "controls: [x]", SettingsError, "is not MODEL=PICTURE"),
        ("  ada: ada", "  ada: ada.safetensors", IdentityError, "there is no identity file ada.safetensors"),
        ("  ada: ada", "  ada: nobody", PhotoError, "there is no photo or folder nobody"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(here, old, new, error, message):
    engine = Engine(lambda: pytest.fail("a model was loaded"), Backends(FakeDetector(), FakeRecogniser()))
    assert old in TEXT
    with pytest.raises(error) as caught:
        planned_rows(engine, rows_of(here, TEXT.replace(old, new)))
    assert message in str(caught.value)


def test_a_file_without_orders_or_people(here):
    with pytest.raises(SettingsError, match="has no orders"):
        rows_of(here, "people: {ada: ada}\norders: []")
    with pytest.raises(PhotoError, match="has no people"):
        rows_of(here, "people: {}\norders: [{prompts: a man img}]")
    with pytest.raises(SettingsError, match="lacks people"):
        rows_of(here, "orders: [{prompts: a man img}]")


needs_weights = pytest.mark.skipif(not (weights.SMALL / "base").is_dir(), reason="no bundled weights")


@needs_weights
@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    people = weights.ASSETS / "people"
    (tmp_path / "orders.yaml").write_text(
        f"people: {{ada: {people / 'ada'}}}\n"
        "orders: [{prompts: [a photo of a woman img in the snow, a sketch of a woman img], n: 8, steps: 4}]\n"
    )
    words = [
        sys.executable,
        "-m",
        "photomaker.apps.cli",
        "generate",
        "--orders",
        "orders.yaml",
        "--out",
        "out",
    ]

    def done():
        return sorted((tmp_path / "out").glob("01-*.png"))

    run = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    first = {path: path.read_bytes() for path in done()}
    assert 0 < len(first) < 16
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    assert "16 pictures are in out" in result.stdout
    assert len(done()) == 16
    assert {path: path.read_bytes() for path in first} == first
    assert len(list((tmp_path / "out").glob("sheet-*.png"))) == 1
