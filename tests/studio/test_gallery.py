"""The gallery sheet."""

import numpy as np
from PIL import Image

from photomaker.studio.pictures.gallery import COLUMNS, Cell, Section, draw


def test_every_picture_is_on_the_sheet():
    colours = [(200, 40 + 20 * place, 90) for place in range(COLUMNS + 2)]
    cells = [
        Cell(Image.new("RGB", (64, 64), colour), "a caption that is much too long for it", "0.5")
        for colour in colours
    ]
    photos = [Image.new("RGB", (64, 80), (10, 20, 30 + place)) for place in range(3)]
    sheet = draw(
        "title", "subtitle", [Section("Ada", photos, cells), Section("between", [], cells[:5])], "footer"
    )
    seen = {tuple(pixel) for pixel in np.asarray(sheet).reshape(-1, 3)}
    assert set(colours) <= seen
    assert {(10, 20, 30), (10, 20, 31), (10, 20, 32)} <= seen
    assert 1000 < sheet.width < 2000


def test_the_sheet_grows_with_what_is_on_it():
    cell = Cell(Image.new("RGB", (64, 64)), "a")
    one, two = ([Section("s", [], [cell] * COLUMNS)] * count for count in (1, 2))
    assert draw("", "", two, "").height > draw("", "", one, "").height + 200
