"""The three kinds of input become the same list."""

from __future__ import annotations

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.dataset import fakes

from photomaker.dataset import listing
from photomaker.dataset.base import Photo
from photomaker.dataset.gather import Gather
from photomaker.dataset.listing import Input, Listing
from photomaker.errors import SettingsError

ROWS = [
    ("ben", "http://b/2"),
    ("ada", "http://a/1"),
    ("ben", "http://b/1"),
    (" ben", "http://b/1 "),
    ("007", "http://c"),
]


def listed(folder, source, unit=2):
    found = listing.write(folder, source, unit)
    assert listing.read(folder) == found
    tables = [pq.read_table(folder / f"{number:05d}.parquet") for number in range(found.units)]
    assert all(table.schema.equals(listing.LISTED) for table in tables)
    return found, pa.concat_tables(tables).to_pylist()


def write_list(path, rows=ROWS):
    columns = {"name": [name for name, _ in rows], "url": [url for _, url in rows]}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"name": name, "url": url}) + "\n" for name, url in rows))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(f"{name}{mark}{url}\n" for name, url in [("name", "url"), *rows]))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_list_of_urls_is_sorted_and_named_by_place(tmp_path, suffix):
    found, rows = listed(tmp_path / "list", Input(urls=write_list(tmp_path / f"people{suffix}")))
    assert found == Listing(rows=5, units=3, people=3)
    assert [(row["person"], row["source"], row["twice"]) for row in rows] == [
        ("007", "http://c", False), ("ada", "http://a/1", False), ("ben", "http://b/1", False),
        ("ben", "http://b/1", True), ("ben", "http://b/2", False),
    ]  # fmt: skip
    assert [row["key"] for row in rows] == [f"{n:08d}" for n in range(5)]
    assert [row["shard"] for row in rows] == [0, 0, 1, 1, 2]
    assert all(row["remote"] for row in rows)


def test_a_folder_a_person(tmp_path):
    album = fakes.album(tmp_path / "in", people=("Zoë", "ben"), each=2)
    (album / "loose.jpg").write_bytes(b"")
    (album / "ben" / "deeper").mkdir()
    (album / "ben" / "deeper" / "x.PNG").write_bytes(b"")
    found, rows = listed(tmp_path / "list", Input(folders=album))
    assert found.empty == ("empty",)
    assert found.ignored == 2
    assert found.people == 3
    assert [row["source"] for row in rows if row["person"] == "ben"] == [
        "ben/0.jpg", "ben/1.png", "ben/deeper/x.PNG", "ben/old.bmp",
    ]  # fmt: skip
    assert not any(row["remote"] for row in rows)


def img2dataset(folder, beside=True, field="name"):
    """Two tars as img2dataset writes them."""
    folder.mkdir()
    for shard in range(2):
        rows = []
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(3):
                key, person = f"{shard:05d}{number:04d}", ("ada", "ben")[number % 2]
                fields = {"key": key, "url": f"http://{person}/{key}", field: person, "status": "success"}
                files = {"jpg": fakes.encoded(fakes.photo(10 * shard + number), "JPEG"), "txt": b"a caption",
                         "json": json.dumps(fields).encode()}  # fmt: skip
                rows.append(fields)
                for extension, content in files.items():
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        if beside:
            rows.append({"key": "lost", "url": "http://x", field: "ada", "status": "failed_to_download"})
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
    return folder


@pytest.mark.parametrize("beside", [True, False])
def test_tars_of_img2dataset(tmp_path, beside):
    found, rows = listed(tmp_path / "list", Input(img2dataset=img2dataset(tmp_path / "in", beside)), unit=10)
    assert found == Listing(rows=6, units=1, people=2)
    assert [row["person"] for row in rows] == ["ada"] * 4 + ["ben"] * 2
    assert rows[0]["source"] == "http://ada/000000000"
    photos = list(Gather(short_side=32).open()(Photo(row) for row in rows))
    assert photos[0].files["image"] == fakes.encoded(fakes.photo(0), "JPEG")
    assert photos[-1].files["image"] == fakes.encoded(fakes.photo(11), "JPEG")


def test_rows_without_a_name_and_rows_given_twice_are_dropped_unfetched(tmp_path):
    path = write_list(tmp_path / "people.csv", [("", "http://127.0.0.1:9/1"), ("ben", "no"), ("ben", "no")])
    _, rows = listed(tmp_path / "list", Input(urls=path), unit=10)
    found = list(Gather().open()(Photo(row) for row in rows))
    assert [one.reason for one in found] == ["no name", "bad address", "listed twice"]


def refused(tmp_path, **source):
    with pytest.raises(SettingsError) as caught:
        listing.write(tmp_path / "list", Input(**source), 10)
    assert not (tmp_path / "list").exists()
    return str(caught.value)


def test_what_cannot_be_a_list(tmp_path):
    path = write_list(tmp_path / "people.csv")
    assert "no column 'person' but name, url" in refused(tmp_path, urls=path, name_column="person")
    assert "there is no list" in refused(tmp_path, urls=tmp_path / "none.csv")
    (tmp_path / "list.xlsx").touch()
    assert "unknown ending" in refused(tmp_path, urls=tmp_path / "list.xlsx")
    (tmp_path / "empty.csv").touch()
    assert "cannot be read" in refused(tmp_path, urls=tmp_path / "empty.csv")
    assert "has no photos" in refused(tmp_path, urls=write_list(tmp_path / "head.csv", []))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    assert "cannot be read" in refused(tmp_path, urls=tmp_path / "bad.parquet")
    (tmp_path / "bad.jsonl").write_text('{"name": ')
    assert "cannot be read" in refused(tmp_path, urls=tmp_path / "bad.jsonl")


def test_what_cannot_be_folders_or_tars(tmp_path):
    assert "there is no folder" in refused(tmp_path, folders=tmp_path / "none")
    (tmp_path / "in").mkdir()
    assert "has no photos" in refused(tmp_path, folders=tmp_path / "in")
    assert "has no .tar" in refused(tmp_path, img2dataset=tmp_path / "in")
    (tmp_path / "in" / "0.tar").write_bytes(b"x" * 600)
    assert "is damaged" in refused(tmp_path, img2dataset=tmp_path / "in")
    other = img2dataset(tmp_path / "other", field="who")
    assert "have a field 'name'" in refused(tmp_path, img2dataset=other)


@pytest.mark.parametrize("source", [{}, {"urls": "a.csv", "folders": "b"}])
def test_one_input_is_given(source):
    with pytest.raises(SettingsError, match="give one of urls, folders, img2dataset"):
        Input(**source)
