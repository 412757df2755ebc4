"""Stages in any part, resumed, refused; what is dropped and why; what the finished dataset is."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.dataset import fakes
from tests.dataset.test_gather import server  # noqa: F401 - a fixture

from photomaker import config
from photomaker.dataset import report, shards
from photomaker.dataset.download import Fetch
from photomaker.dataset.gather import Gather
from photomaker.dataset.listing import Input
from photomaker.dataset.runner import Build, Shard, Watcher, tallies
from photomaker.dataset.shards import Shards, read_tar
from photomaker.errors import OutputError, SettingsError

ROOT = Path(__file__).parents[2]
STAGES = ("gather", "dedupe", "bright", "alike", "cut", "say", "shard")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return fakes.album(tmp_path_factory.mktemp("album") / "in")


@pytest.fixture(scope="module")
def built(album, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    Build(fakes.FakeSettings(Input(folders=album), out)).run()
    return out


@pytest.fixture
def settings(album, tmp_path):
    return fakes.FakeSettings(Input(folders=album), tmp_path / "out")


class Listener(Watcher):
    def __init__(self):
        self.begun, self.done, self.notes = [], [], []

    def stage(self, name, done, units):
        self.begun.append((name, done, units))

    def unit(self, name, outcome):
        self.done.append((name, outcome.unit))

    def note(self, line):
        self.notes.append(line)


def test_every_drop_has_its_reason(built):
    drops = {one.name: dict(one.drops) for one in tallies(built)}
    assert drops == {
        "gather": {"corrupt": 1, "not an image": 1, "short side": 1},
        "dedupe": {"exact duplicate": 1, "near duplicate": 1},
        "bright": {"no face": 1},
        "alike": {}, "cut": {}, "say": {},
        "shard": {"too few photos": 1},
    }  # fmt: skip
    counts = [(one.rows, one.kept) for one in tallies(built)]
    assert counts == [(23, 20), (20, 18), (18, 17), (17, 17), (17, 17), (17, 17), (17, 16)]
    rows = pq.read_table(built / "shard" / "plan.dropped.parquet").to_pylist()
    assert [(row["person"], row["stage"], row["detail"]) for row in rows] == [
        ("dora", "shard", "1 of at least 2")
    ]


def test_the_finished_dataset_reads_back(built, album):
    data = Shards.open(built / "shards")
    assert len(data) == 16
    assert set(data.table["person"].to_pylist()) == {"ada", "ben", "cleo"}
    assert data.table["shard"].to_pylist() == sorted(data.table["shard"].to_pylist())
    sizes = [data.table["shard"].to_pylist().count(number) for number in range(4)]
    assert sizes == [4, 4, 4, 4]
    for place, row in enumerate(data.table.to_pylist()):
        samples = dict(read_tar(built / "shards" / f"{row['shard']:05d}.tar"))
        assert samples[row["key"]]["png"] == data.image(place)
        assert samples[row["key"]]["mask.png"] == data.mask(place)
        stated = json.loads(samples[row["key"]]["json"])
        assert stated.items() <= row.items()
        assert (album / row["source"]).is_file()
    result = json.loads((built / "dataset.json").read_text())
    assert (result["photos"], result["people"], result["shards"]) == (16, 3, 4)
    assert result["settings"]["bright"] == {"least": 20.0, "fault": ""}
    assert result["versions"]["photomaker"]
    assert all(one["busy_seconds"] > 0 and one["timed_rows"] for one in result["stages"])


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # both libraries leave files open
def test_webdataset_and_datasets_read_the_shards(built):
    import datasets
    import webdataset

    tars = sorted(str(path) for path in (built / "shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("pil"))
    assert len(samples) == 16
    assert samples[0]["png"].size == samples[0]["mask.png"].size == (24, 24)
    assert samples[0]["json"]["caption"].startswith("a man of")
    stream = datasets.load_dataset("webdataset", data_files=tars, split="train", streaming=True)
    assert [one["json"]["key"] for one in stream] == [one["__key__"] for one in samples]
    index = datasets.load_dataset("parquet", data_files=str(built / "shards" / "index.parquet"), split="train",
                                  cache_dir=str(built.parent / "cache"))  # fmt: skip
    assert index.num_rows == 16
    gc.collect()


def test_a_finished_build_does_nothing_again(built, album):
    before, listener = fakes.files_of(built), Listener()
    Build(fakes.FakeSettings(Input(folders=album), built), listener).run()
    assert not listener.done
    assert fakes.files_of(built) == before


@pytest.mark.parametrize(
    "parts",
    [
        [[name] for name in STAGES],
        [["gather", "dedupe"], ["bright:cut"], ["say:"]],
        [[":alike"], ["cut", "say", "shard"]],
    ],
)
def test_any_part_of_the_stages_comes_to_the_same(settings, built, parts):
    for part in parts:
        listener = Listener()
        build = Build(settings, listener)
        build.run(part)
        assert [name for name, _, _ in listener.begun] == list(build.chosen(part))
    assert fakes.files_of(settings.out) == fakes.files_of(built)


def test_a_unit_that_is_lost_is_made_again_and_nothing_else(settings, built):
    Build(settings).run()
    (settings.out / "cut" / "00001.parquet").unlink()
    (settings.out / "cut" / "00001.tar.99.part").write_bytes(b"half")
    listener = Listener()
    Build(settings, listener).run()
    assert listener.done == [("cut", 1)]
    assert fakes.files_of(settings.out) == fakes.files_of(built)


def test_a_stage_needs_those_before_it(settings):
    with pytest.raises(SettingsError, match=r"bright needs gather, of which 1 of 1 parts.*--stages gather"):
        Build(settings).run(["bright"])
    Build(settings).run(["gather"])
    with pytest.raises(SettingsError, match=r"bright needs dedupe, of which 4 of 4 parts"):
        Build(settings).run(["bright"])
    with pytest.raises(SettingsError, match="there is no stage 'brght'; the stages are gather"):
        Build(settings).run(["brght"])


def test_changed_settings_are_told_and_mended_by_a_fresh_start(settings):
    Build(settings).run()
    changed = replace(settings, bright=fakes.Bright(least=118.0))
    told = r"stage bright made with other settings \(bright.least was 20.0 and is 118.0\).*--fresh bright"
    with pytest.raises(SettingsError, match=told):
        Build(changed).run()
    before = fakes.files_of(settings.out)
    listener = Listener()
    Build(changed, listener).run(fresh="bright")
    assert {name for name, _ in listener.done} <= {"bright", "alike", "cut", "say", "shard"}
    assert len(Shards.open(settings.out / "shards")) < 16
    Build(settings).run(fresh="bright")
    assert fakes.files_of(settings.out) == before


def test_settings_of_pace_alone_change_nothing(settings):
    Build(settings).run()
    slower = replace(settings, gather=Gather(short_side=32, fetch=Fetch(concurrency=1, retries=9)))
    Build(slower).run()
    other = replace(settings, gather=Gather(short_side=32, fetch=Fetch(robots=False)))
    with pytest.raises(SettingsError, match=r"gather.fetch.robots was True and is False"):
        Build(other).run()


def test_another_dataset_or_other_files_in_the_folder(settings, built, album):
    with pytest.raises(
        SettingsError, match=r"holds another dataset \(input.folders was .* and is '/elsewhere'\)"
    ):
        Build(replace(settings, input=Input(folders=Path("/elsewhere")), out=built)).run()
    settings.out.mkdir()
    (settings.out / "thesis.txt").touch()
    with pytest.raises(SettingsError, match="is not empty and is not a dataset of photomaker"):
        Build(settings).run()


def test_two_builds_at_once_in_a_folder(settings):
    class Second(Watcher):
        def stage(self, name, done, units):
            with pytest.raises(SettingsError, match="another build is running"):
                Build(settings).run()

    Build(settings, Second()).run(["gather"])


def test_an_unwritable_place(settings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write to"):
        Build(replace(settings, out=tmp_path / "file" / "out")).run()


def test_a_full_disk_is_one_sentence_and_the_build_goes_on_later(settings, built, monkeypatch):
    true, left = os.fsync, [40]

    def fsync(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        true(file)

    monkeypatch.setattr(shards.os, "fsync", fsync)
    with pytest.raises(OutputError, match=r"^cannot write \S+: No space left on device; free some space"):
        Build(settings).run()
    assert not list(settings.out.rglob("*.part"))
    monkeypatch.undo()
    Build(settings).run()
    assert fakes.files_of(settings.out) == fakes.files_of(built)


def test_a_faulty_step_is_no_mistake_of_the_disk(settings):
    with pytest.raises(RuntimeError, match="a faulty step"):
        Build(replace(settings, bright=fakes.Bright(fault="raise"))).run()


def test_nothing_is_left(settings):
    listener = Listener()
    build = Build(replace(settings, bright=fakes.Bright(least=256.0)), listener)
    build.run()
    assert "no photo is left for the dataset; the report says why" in listener.notes
    with pytest.raises(SettingsError, match="is empty; its report says why"):
        Shards.open(settings.out / "shards")
    report.write(settings.out)


def test_what_people_should_know_is_noted(settings):
    listener = Listener()
    Build(settings, listener).run()
    assert listener.notes == [
        "1 people without any photo, such as empty",
        "1 files that are not pictures by their names were left out",
        "1 people have fewer than 2 photos left and are dropped",
    ]


def test_a_photo_that_lacks_something_goes_out(settings):
    build = Build(replace(settings, shard=Shard(least=1)))
    build.run(["gather:say"])
    path = settings.out / "say" / "00000.parquet"
    table = pq.read_table(path)
    rows = [{**row, "caption": None} if place == 0 else row for place, row in enumerate(table.to_pylist())]
    shards.write_table(path, rows, table.schema)
    build.run(["shard"])
    (dropped,) = pq.read_table(settings.out / "shard" / "plan.dropped.parquet").to_pylist()
    assert (dropped["reason"], dropped["detail"]) == ("incomplete", "without caption")


def test_urls_from_a_server_that_fails(tmp_path, server):  # noqa: F811
    names = ["good/1", "gif/1", "slow/1", "fails/1", "noai/1", "missing/1", "flaky/1", "private/1"]
    lines = [
        f"{person},{server.url}/{name}{number}"
        for number, person in enumerate(("ada", "ben"))
        for name in names
    ]
    (tmp_path / "people.csv").write_text("name,url\n" + "\n".join(lines) + "\n")
    gather = Gather(short_side=32, fetch=Fetch(timeout=0.5, retries=2, backoff=0.01))
    settings = fakes.FakeSettings(Input(urls=tmp_path / "people.csv"), tmp_path / "out", gather=gather)
    Build(settings).run(["gather"])
    (tally,) = tallies(settings.out)
    assert tally.kept == 6
    assert tally.drops == {"http 404": 2, "http 500": 2, "no-AI header": 2, "robots": 2, "timeout": 2}


def test_the_report(settings):
    album = fakes.album(settings.out.parent / "in", people=("<b>ada|</b>", "ben"))
    build = Build(replace(settings, input=Input(folders=album)))
    build.run(["gather:bright"])
    report.write(settings.out)
    assert "The build is not finished" in (settings.out / "report.md").read_text()
    build.run()
    text, page = (path.read_text() for path in report.write(settings.out))
    for words in ("11 photos of 2 people", "short side", "near duplicate", "too few photos", "photos/s"):
        assert words in text
        assert words in page
    assert "<b>ada" not in page
    assert "&lt;b&gt;ada|" in page
    assert r"\<b\>ada\|" in text
    sheets = {path.name for path in (settings.out / "report").iterdir()}
    assert {"gather-short-side.jpg", "dedupe-near-duplicate.jpg", "bright-no-face.jpg"} <= sheets
    assert "gather-corrupt.jpg" not in sheets
    assert sum(name.startswith("person-") for name in sheets) == 3
    with pytest.raises(SettingsError, match="has no dataset built by photomaker"):
        report.write(album)


def test_shards_that_are_none(built, tmp_path):
    with pytest.raises(SettingsError, match="has no finished dataset"):
        Shards.open(tmp_path)
    (tmp_path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(SettingsError, match="is damaged"):
        Shards.open(tmp_path)
    table = pq.read_table(built / "shards" / "index.parquet")
    pq.write_table(table.drop_columns(["caption"]), tmp_path / "index.parquet")
    with pytest.raises(SettingsError, match="lacks the columns caption"):
        Shards.open(tmp_path)
    pq.write_table(table, tmp_path / "index.parquet")
    with pytest.raises(SettingsError, match="missing or cut short"):
        Shards.open(tmp_path)


def test_settings_files_are_read_and_refused():
    from photomaker.dataset.settings import BuildSettings

    found = config.make(
        {"input": {"folders": "in"}, "out": "out", "gather": {"fetch": {"per_host": 2}}}, BuildSettings
    )
    assert found.gather.fetch.per_host == 2
    assert [step.name for step in found.steps()] == [
        "gather", "dedupe", "detect", "verify", "segment", "caption", "mark",
    ]  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"no setting gather.fetch.perhost .*did you mean gather.fetch.per_host"
    ):
        config.make({"input": {}, "out": "o", "gather": {"fetch": {"perhost": 2}}}, BuildSettings)
    with pytest.raises(SettingsError, match=r"shard.size is 0"):
        config.make({"input": {"folders": "in"}, "out": "o", "shard": {"size": 0}}, BuildSettings)


def test_the_papers_values():
    from photomaker.dataset.settings import BuildSettings

    settings = BuildSettings(Input(folders=Path("in")), Path("out"), gather=Gather(short_side=32), paper=True)
    gather, _, detect, verify, segment, *_ = settings.steps()
    assert (gather.short_side, detect.smallest, verify.rule, verify.k, segment.face_share) == (
        512,
        256,
        "paper",
        8,
        0.1,
    )


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from tests.dataset import fakes
from photomaker.dataset.executors import Hand
from photomaker.dataset.listing import Input
from photomaker.dataset.runner import Build

out, album = Path(sys.argv[1]), Path(sys.argv[2])
settings = fakes.FakeSettings(Input(folders=album), out, unit=3)
Hand()  # what is imported once need not be imported by every child
rng = random.Random(0)
ends = []
while ends.count(signal.SIGKILL) < 12:
    # As soon as one more file, or two, lies there, and a moment later: the machine's speed plays no part.
    enough = len(list(out.rglob("*"))) + rng.randint(1, 2)
    child = os.fork()
    if not child:
        Build(settings).run()
        os._exit(0)
    while not (ended := os.waitpid(child, os.WNOHANG)[0]) and len(list(out.rglob("*"))) < enough:
        time.sleep(0.001)
    if ended:
        break
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    ends.append(os.waitpid(child, 0)[1])
print(ends.count(signal.SIGKILL), len(list(out.rglob("*.parquet"))), (out / "dataset.json").is_file())
Build(settings).run()
"""


def test_killed_ten_times_and_more_it_ends_as_an_unbroken_run(album, tmp_path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(killed), str(album)],
        env=environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.split()[0])
    assert kills >= 10
    Build(fakes.FakeSettings(Input(folders=album), unbroken, unit=3)).run()
    assert fakes.files_of(killed) == fakes.files_of(unbroken)
