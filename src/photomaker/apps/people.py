"""`photomaker people`: draws synthetic people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from photomaker.apps import terminal
from photomaker.errors import OutputError
from photomaker.images import grid, labelled, save_png
from photomaker.metadata import BY_CODE
from photomaker.studio.pictures.saving import check_folder


@dataclass(frozen=True)
class Cast:
    """Whom to draw: `count` people of a split from number `start` on, `views` pictures each, `size` pixels wide."""

    split: str
    start: int
    count: int
    views: int
    style: str | None
    size: int


def run(out: Path, cast: Cast, sheet_only: bool = False) -> None:
    """Draw people into a folder: a contact sheet, and the pictures of each person in a subfolder.

    Raises:
        PhotoMakerError: The folder cannot be written to, or there is no such style.
    """
    from photomaker import synthetic

    check_folder(out)
    first = {"train": synthetic.TRAIN, "validation": synthetic.VALIDATION, "test": synthetic.TEST}[cast.split]
    fixed: dict[str, Any] = {} if cast.style is None else {"style": cast.style}
    synthetic.view(synthetic.person(first), 0, **fixed)  # refuse an unknown style before drawing
    cells: list[Image.Image] = []
    with terminal.progress("drawing") as progress:
        for index in range(first + cast.start, first + cast.start + cast.count):
            pictures = draw(index, cast.views, cast.size, **fixed)
            if not sheet_only:
                _save_each(out / str(index), pictures)
            name = f"{index}: {synthetic.person(index).person_class}"
            cells += [labelled(picture, name, cast.size) for picture in pictures]
            progress(len(cells), cast.count * cast.views)
    _folder(out)
    sheet = save_png(
        grid(cells, columns=cast.views * max(1, 12 // cast.views)), out / "sheet.png", source=BY_CODE
    )
    terminal.say(f"{sheet}: {cast.count} people, {len(cells)} pictures")


def draw(index: int, views: int, size: int, **fixed: Any) -> list[Image.Image]:
    """Pictures of one synthetic person, the same ones each time.

    Args:
        index: Number of the person.
        views: How many.
        size: Width and height in pixels.
        **fixed: Factors of the view to fix, see `synthetic.view`.

    Raises:
        SettingsError: A factor or its value is unknown.
    """
    from photomaker import synthetic

    person = synthetic.person(index)
    seen = [synthetic.view(person, seed, **fixed) for seed in range(views)]
    return [Image.fromarray(synthetic.render(person, view, size=size).image) for view in seen]


def _save_each(folder: Path, pictures: list[Image.Image]) -> None:
    _folder(folder)
    for place, picture in enumerate(pictures):
        save_png(picture, folder / f"{place:02d}.png", source=BY_CODE)


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
