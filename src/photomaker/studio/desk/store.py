"""A desk's storage: a database, and a file for each identity and picture.

A file is written and synced to disk before its row, so a row guarantees a complete file, even after a power cut. Files
without a row are left over from a kill, and are removed at the next start.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any, TypeVar

from photomaker.errors import NotThere, OutputError, SettingsError
from photomaker.studio.desk.pieces import Spot
from photomaker.studio.desk.records import Ended, Job, Lasting, Person, Picture, read_event, written
from photomaker.studio.orders.plain import PlainOrder
from photomaker.studio.pictures.saving import check_folder

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS identities (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, made REAL NOT NULL, used REAL NOT NULL,
    method TEXT NOT NULL, photos INTEGER NOT NULL, report TEXT NOT NULL, notes TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS identities_of ON identities (owner, made);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, asked TEXT NOT NULL, state TEXT NOT NULL, made REAL NOT NULL,
    started REAL, ended REAL, total INTEGER NOT NULL, tries INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS jobs_of ON jobs (owner, made);
CREATE TABLE IF NOT EXISTS pictures (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, made REAL NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    job TEXT, person TEXT NOT NULL, prompt TEXT NOT NULL, seed INTEGER, likeness REAL, verdict TEXT, same INTEGER,
    share REAL, who INTEGER, what INTEGER, at INTEGER, UNIQUE (job, who, what, at));
CREATE TABLE IF NOT EXISTS events (
    job TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, told TEXT NOT NULL, PRIMARY KEY (job, number));
"""
_PICTURE = "id, made, width, height, job, person, prompt, seed, likeness, verdict, same, share"
IDENTITY, PORTRAIT, PICTURE = "identities/{}.safetensors", "identities/{}.png", "pictures/{}.png"
_BUSY = 10.0
"""Seconds to wait for another process to finish writing."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Left:
    """An unfinished job from an earlier run.

    Attributes:
        job: The job.
        owner: Its owner.
        tries: How often it was started.
    """

    job: Job
    owner: str
    tries: int


class Store:
    """People, pictures, jobs and their events in one folder; thread-safe.

    Everything belongs to an owner; what belongs to another owner is treated as missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the folder, or create it, readable only by its owner.

        Raises:
            OutputError: The folder cannot be written to.
            SettingsError: Another process has it open, or it holds a damaged database.
        """
        self.folder = check_folder(Path(folder))
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in (IDENTITY, PICTURE):
                (self.folder / name).parent.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
        self._lock = threading.RLock()
        self._held = _hold(self.folder / "lock", self.folder)
        try:
            self._base = _connected(self.folder / "desk.sqlite")
        except sqlite3.DatabaseError as error:
            os.close(self._held)
            raise SettingsError(
                f"{self.folder}/desk.sqlite cannot be read: {error}; restore it or name another folder"
            ) from error
        self._sweep()

    def close(self) -> None:
        """Release the folder."""
        with self._lock:
            self._base.close()
            if self._held >= 0:
                os.close(self._held)
                self._held = -1

    def path(self, kind: str, id_: str) -> Path:
        """The file of a row; `kind` is `IDENTITY`, `PORTRAIT` or `PICTURE`."""
        return self.folder / kind.format(id_)

    def secret(self) -> bytes:
        """This folder's secret of 32 bytes, which never changes."""
        with self._writing() as base:
            base.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_hex(32),))
            return bytes.fromhex(base.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0])

    # ---- people

    def add_person(self, owner: str, person: Person, digest: str) -> None:
        """Add a person whose files exist."""
        row = (
            person.id, owner, person.name, person.made, person.made, person.method, person.photos,
            json.dumps(person.report), json.dumps(person.notes), digest,
        )  # fmt: skip
        with self._writing() as base:
            base.execute("INSERT INTO identities VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def person(self, owner: str, name: str) -> Person:
        """A person by id, or the last one saved with this name.

        Raises:
            NotThere: The owner has none such.
        """
        rows = self._rows(
            "SELECT * FROM identities WHERE owner = ? AND (id = ? OR (name = ? AND name != '')) "
            "ORDER BY id = ? DESC, made DESC LIMIT 1",
            owner, name, name, name,
        )  # fmt: skip
        return _only([_person(row) for row in rows], "person", name)

    def same_photos(self, owner: str, digest: str) -> Person | None:
        """A person made from the same photos by the same model."""
        rows = self._rows("SELECT * FROM identities WHERE owner = ? AND digest = ? LIMIT 1", owner, digest)
        return next(map(_person, rows), None)

    def people(self, owner: str) -> list[Person]:
        """All of an owner's, the newest first."""
        return [
            _person(row)
            for row in self._rows("SELECT * FROM identities WHERE owner = ? ORDER BY made DESC", owner)
        ]

    def use(self, id_: str) -> None:
        """Record that a person was just used."""
        with self._writing() as base:
            base.execute("UPDATE identities SET used = ? WHERE id = ?", (time(), id_))

    def rename_person(self, owner: str, id_: str, name: str) -> None:
        """Rename a person."""
        with self._writing() as base:
            base.execute("UPDATE identities SET name = ? WHERE owner = ? AND id = ?", (name, owner, id_))

    def delete_person(self, owner: str, id_: str) -> None:
        """Delete a person's files and row.

        Raises:
            NotThere: The owner has none such.
        """
        person = self.person(owner, id_)
        with self._writing() as base:
            base.execute("DELETE FROM identities WHERE id = ?", (person.id,))
        self._unlink([self.path(kind, person.id) for kind in (IDENTITY, PORTRAIT)])

    # ---- pictures

    def add_picture(self, owner: str, picture: Picture, spot: Spot | None = None) -> None:
        """Add a picture whose file exists."""
        with self._writing() as base:
            _insert_picture(base, owner, picture, spot)

    def add_drawn(
        self, owner: str, several: Sequence[tuple[Picture, Spot]], events: Sequence[Lasting]
    ) -> None:
        """Add pictures of a job and their events, all or none."""
        with self._writing() as base:
            for picture, spot in several:
                _insert_picture(base, owner, picture, spot)
            for (picture, _), event in zip(several, events, strict=True):
                assert picture.job is not None
                _insert_event(base, picture.job, event)

    def picture(self, owner: str, id_: str) -> Picture:
        """A picture.

        Raises:
            NotThere: The owner has none such.
        """
        rows = self._rows(f"SELECT {_PICTURE} FROM pictures WHERE owner = ? AND id = ?", owner, id_)
        return _only([_picture(row) for row in rows], "picture", id_)

    def any_picture(self, id_: str) -> Picture:
        """A picture of any owner.

        Raises:
            NotThere: There is none such.
        """
        rows = self._rows(f"SELECT {_PICTURE} FROM pictures WHERE id = ?", id_)
        return _only([_picture(row) for row in rows], "picture", id_)

    def pictures(self, owner: str, most: int, before: float | None = None) -> list[Picture]:
        """An owner's drawn pictures, the newest first."""
        rows = self._rows(
            f"SELECT {_PICTURE} FROM pictures WHERE owner = ? AND job IS NOT NULL AND made < ? "
            "ORDER BY made DESC, rowid DESC LIMIT ?",
            owner, float("inf") if before is None else before, most,
        )  # fmt: skip
        return [_picture(row) for row in rows]

    def spots(self, job: str) -> set[Spot]:
        """The finished pictures of a job."""
        rows = self._rows("SELECT who, what, at FROM pictures WHERE job = ?", job)
        return {Spot(*row) for row in rows}

    def delete_picture(self, owner: str, id_: str) -> None:
        """Delete a picture's file and row.

        Raises:
            NotThere: The owner has none such.
        """
        picture = self.picture(owner, id_)
        with self._writing() as base:
            base.execute("DELETE FROM pictures WHERE id = ?", (picture.id,))
            base.execute(
                "DELETE FROM events WHERE job = ? AND json_extract(told, '$.picture.id') = ?",
                (picture.job, id_),
            )
        self._unlink([self.path(PICTURE, picture.id)])

    # ---- jobs

    def add_job(self, owner: str, job: Job) -> None:
        """Add a waiting job."""
        row = (job.id, owner, json.dumps(job.order.as_json()), job.state, job.made, job.total)
        with self._writing() as base:
            base.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL, NULL, ?, 0, '')", row)

    def job(self, owner: str, id_: str) -> Job:
        """A job with its pictures.

        Raises:
            NotThere: The owner has none such.
        """
        rows = self._rows("SELECT * FROM jobs WHERE owner = ? AND id = ?", owner, id_)
        return _only([self._job(row) for row in rows], "job", id_)

    def check_job(self, owner: str, id_: str) -> None:
        """Check that a job exists.

        Raises:
            NotThere: The owner has none such.
        """
        _only(self._rows("SELECT 1 FROM jobs WHERE owner = ? AND id = ?", owner, id_), "job", id_)

    def jobs(self, owner: str, most: int) -> list[Job]:
        """An owner's jobs with their pictures, the newest first."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE owner = ? ORDER BY made DESC, rowid DESC LIMIT ?", owner, most
        )
        return [self._job(row) for row in rows]

    def left(self) -> list[Left]:
        """Jobs that have not ended, of all owners, the oldest first."""
        rows = self._rows("SELECT * FROM jobs WHERE ended IS NULL ORDER BY made, rowid")
        return [Left(self._job(row), row["owner"], row["tries"]) for row in rows]

    def begin(self, id_: str) -> None:
        """Record that a job has started, and count the start."""
        with self._writing() as base:
            base.execute(
                "UPDATE jobs SET state = 'running', started = COALESCE(started, ?), tries = tries + 1 WHERE id = ?",
                (time(), id_),
            )

    def put_back(self, id_: str) -> None:
        """Record that a job waits again, without counting the start."""
        with self._writing() as base:
            base.execute(
                "UPDATE jobs SET state = 'queued', tries = MAX(0, tries - 1) WHERE id = ? AND ended IS NULL",
                (id_,),
            )

    def end(self, id_: str, event: Ended) -> None:
        """Record that a job has ended."""
        with self._writing() as base:
            base.execute(
                "UPDATE jobs SET state = ?, ended = ?, reason = ? WHERE id = ?",
                (event.state, time(), event.reason, id_),
            )
            _insert_event(base, id_, event)

    def tell(self, id_: str, event: Lasting) -> None:
        """Store an event of a job."""
        with self._writing() as base:
            _insert_event(base, id_, event)

    def events(self, job: str, after: int = 0) -> list[Lasting]:
        """The stored events of a job after a number."""
        rows = self._rows("SELECT * FROM events WHERE job = ? AND number > ? ORDER BY number", job, after)
        return [read_event(row["kind"], row["number"], json.loads(row["told"])) for row in rows]

    def delete_job(self, owner: str, id_: str) -> None:
        """Delete a job, its events and its pictures.

        Raises:
            NotThere: The owner has none such.
        """
        job = self.job(owner, id_)
        with self._writing() as base:
            ids = [row[0] for row in base.execute("SELECT id FROM pictures WHERE job = ?", (job.id,))]
            for table, column in (("pictures", "job"), ("events", "job"), ("jobs", "id")):
                base.execute(f"DELETE FROM {table} WHERE {column} = ?", (job.id,))
        self._unlink([self.path(PICTURE, one) for one in ids])

    def _job(self, row: sqlite3.Row) -> Job:
        order = "likeness DESC, at" if json.loads(row["asked"]).get("best_of", 1) > 1 else "at"
        found = self._rows(
            f"SELECT {_PICTURE} FROM pictures WHERE job = ? ORDER BY who, what, {order}", row["id"]
        )
        return Job(
            row["id"], row["state"], PlainOrder.of(json.loads(row["asked"])), row["made"], row["started"], row["ended"],
            row["total"], None, row["reason"], tuple(map(_picture, found)),
        )  # fmt: skip

    # ---- time to live

    def expired(self, before: float) -> dict[str, list[tuple[str, str]]]:
        """Owner and id of the jobs, people and uploaded pictures last used before a time."""
        return {
            "jobs": [tuple(row) for row in self._rows("SELECT owner, id FROM jobs WHERE ended < ?", before)],
            "people": [
                tuple(row) for row in self._rows("SELECT owner, id FROM identities WHERE used < ?", before)
            ],
            "pictures": [
                tuple(row)
                for row in self._rows("SELECT owner, id FROM pictures WHERE job IS NULL AND made < ?", before)
            ],
        }

    # ---- below

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of its writes happen, or none."""
        with self._lock:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                yield self._base
                self._base.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise OutputError(f"cannot write to {self.folder}: {error}; free some space there") from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        if self._base.in_transaction:
            self._base.execute("ROLLBACK")

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._base.execute(query, values).fetchall()

    def _unlink(self, paths: Sequence[Path]) -> None:
        """Remove files, and their rows from the journal."""
        for path in paths:
            path.unlink(missing_ok=True)
        with self._lock:
            self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _sweep(self) -> None:
        """Remove files without a row."""
        known = {row[0] for row in self._rows("SELECT id FROM identities UNION SELECT id FROM pictures")}
        for name in (IDENTITY, PICTURE):
            for path in (self.folder / name).parent.iterdir():
                if path.stem not in known or path.suffix == ".part":
                    path.unlink(missing_ok=True)


def new_id(kind: str) -> str:
    """An unguessable id; `kind` is its prefix."""
    return f"{kind}_{secrets.token_hex(16)}"


def _connected(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=_BUSY, check_same_thread=False, isolation_level=None)
    base.row_factory = sqlite3.Row
    # rows survive a power cut; deleted ones are overwritten, in the database and in its journal
    for line in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        base.execute(f"PRAGMA {line}").fetchall()
    base.executescript(_TABLES)
    return base


def _hold(path: Path, folder: Path) -> int:
    """Lock the folder against other processes while the returned file is open."""
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        pass
    except OSError as error:
        os.close(held)
        raise SettingsError(
            f"{folder} is in use by another server; stop it, or name another folder"
        ) from error
    return held


def _only(found: list[Found], what: str, name: str) -> Found:
    if not found:
        raise NotThere(f"there is no {what} {name[:60]!r}; check its id")
    return found[0]


def _person(row: sqlite3.Row) -> Person:
    return Person(
        row["id"], row["name"], row["made"], row["method"], row["photos"], json.loads(row["report"]),
        tuple(json.loads(row["notes"])),
    )  # fmt: skip


def _picture(row: sqlite3.Row) -> Picture:
    values = dict(row)
    return Picture(**{**values, "same": None if values["same"] is None else bool(values["same"])})


def _insert_picture(base: sqlite3.Connection, owner: str, picture: Picture, spot: Spot | None) -> None:
    row: dict[str, Any] = {"owner": owner, "who": None, "what": None, "at": None, **asdict(picture)}
    if spot is not None:
        row |= asdict(spot)
    names = ", ".join(row)
    base.execute(f"INSERT INTO pictures ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _insert_event(base: sqlite3.Connection, job: str, event: Lasting) -> None:
    base.execute(
        "INSERT INTO events SELECT ?, COALESCE(MAX(number), 0) + 1, ?, ? FROM events WHERE job = ?",
        (job, event.kind, json.dumps(written(event)), job),
    )
