"""`photomaker photos check`: the coach's report on a person's photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from photomaker.apps import terminal
from photomaker.errors import OutputError, SettingsError
from photomaker.images import Photo, save_png
from photomaker.studio.photos.coach import Judged, Report, coached
from photomaker.studio.photos.face_backends import AUTO, BUNDLED, NONE, Backends, chosen, open_backends
from photomaker.studio.photos.reality import are_photographs
from photomaker.studio.photos.sitting import read_photos
from photomaker.studio.pictures.gallery import Cell
from photomaker.studio.pictures.saving import check_file
from photomaker.studio.pictures.sheet import SheetRow
from photomaker.studio.pictures.sheet import sheet as laid_out
from photomaker.types import Reference


def check(places: Sequence[Path], faces: str, report_file: Path | None, sheet_file: Path | None) -> None:
    """Check photos and report.

    Args:
        places: Files and folders.
        faces: The face backend; auto takes the bundled networks for drawn people.
        report_file: JSON file for the report; None writes none.
        sheet_file: File for the sheet; None makes none.

    Raises:
        PhotoMakerError: A photo cannot be read, a file cannot be written, or there is no face backend.
    """
    for file in (report_file, sheet_file):
        if file is not None:
            check_file(file)
    photos = read_photos(places)
    with terminal.waiting("looking"):
        backends = _backends(photos, faces)
        assert backends.detector is not None
        report = coached(photos, backends.detector, backends.recogniser)
    if backends.line:
        terminal.note(f"faces are found and compared by {backends.line}")
    _tell(report)
    if report_file is not None:
        _write(report_file, json.dumps(report.as_json(), indent=2) + "\n")
    if sheet_file is not None:
        sheet_file.parent.mkdir(parents=True, exist_ok=True)
        terminal.say(f"the sheet is {save_png(_sheet(report), sheet_file, source=None)}")


def _backends(photos: Sequence[Photo], faces: str) -> Backends:
    if faces == NONE:
        raise SettingsError(
            "--faces none finds no faces, so photos cannot be checked; give auto, dlib or bundled"
        )
    if faces != AUTO:
        return open_backends(faces)
    own = open_backends(BUNDLED)
    name = chosen(AUTO, bundled=False)
    if name == NONE or own.detector is None:
        return own
    seen = [own.detector.detect(photo.image) for photo in photos]
    largest = [max(found, key=lambda face: face.area, default=None) for found in seen]
    references = [Reference(photo.image, face=face) for photo, face in zip(photos, largest, strict=True)]
    drawn = any(face is not None for face in largest) and not are_photographs(references)
    return own if drawn else open_backends(name)


def _tell(report: Report) -> None:
    rows = []
    for one in report.photos:
        said = "; ".join(f"{finding.text}: {finding.remedy}" for finding in one.findings) or "good"
        worth = "" if one.worth is None else f"{one.worth:+.3f}"
        rows.append(
            (one.photo.name, "keep" if one.keep else "drop", terminal.likeness(one.likeness), worth, said)
        )
    columns = ("photo", "", "likeness", "worth", "findings")
    terminal.table(f"{len(report.kept)} of {len(rows)} photos to keep", columns, rows, ("likeness", "worth"))
    for finding in report.findings:
        terminal.note(f"{finding.text}: {finding.remedy}")
    terminal.say("likeness: to the other photos; worth: the likeness lost without this photo")


def _sheet(report: Report) -> Image.Image:
    def cell(one: Judged) -> Cell:
        kinds = ", ".join(finding.kind for finding in one.findings) or "good"
        return Cell(one.photo.image, f"{one.photo.name}: {kinds}")

    rows = [
        SheetRow("keep" if kept else "drop", [cell(one) for one in report.photos if one.keep is kept])
        for kept in (True, False)
    ]
    return laid_out("photomaker photos check", [row for row in rows if row.cells], 5)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write the report to {path}: {error.strerror}; choose another place"
        ) from error
