"""The contact sheet."""

import numpy as np
from PIL import Image

from photomaker.studio.gallery import Cell
from photomaker.studio.sheet import CELL, GAP, LABEL, LARGEST, MARGIN, SheetRow, sheet

RED, BLUE = Image.new("RGB", (64, 64), (255, 0, 0)), Image.new("RGB", (32, 128), (0, 0, 255))


def at(paper, row, column, rows_height):
    x = MARGIN + LABEL + column * (CELL + GAP) + CELL // 2
    y = 2 * MARGIN + row * rows_height + GAP + CELL // 2
    return paper.getpixel((x, y))


def test_pictures_stand_in_rows_and_empty_places_stay_empty():
    paper = sheet(
        "title", [SheetRow("ada", [Cell(RED, "seed 1"), None]), SheetRow("ben", [None, Cell(BLUE, "")])]
    )
    height = (paper.height - 3 * MARGIN) // 2
    assert at(paper, 0, 0, height) == (255, 0, 0)
    assert at(paper, 1, 1, height) == (0, 0, 255)
    assert at(paper, 0, 1, height) == at(paper, 1, 0, height) == (251, 251, 250)


def test_a_picture_is_not_distorted():
    paper = np.asarray(sheet("", [SheetRow("", [Cell(BLUE, "")])]), int)
    blue = (paper == [0, 0, 255]).all(axis=2)
    rows, columns = np.flatnonzero(blue.any(axis=1)), np.flatnonzero(blue.any(axis=0))
    assert abs((rows[-1] - rows[0] + 1) / (columns[-1] - columns[0] + 1) - 4) < 0.2


def test_long_rows_go_on_beneath_and_long_labels_are_wrapped():
    wide = sheet("t", [SheetRow("a very long label " * 20, [Cell(RED, "x" * 100)] * 11)], most=4)
    assert wide.width == 2 * MARGIN + LABEL + 4 * (CELL + GAP)
    assert wide.height > 3 * CELL


def test_two_hundred_rows_stay_a_handleable_picture():
    paper = sheet("t", [SheetRow(str(row), [Cell(RED, "")] * 3) for row in range(200)])
    assert max(paper.size) <= LARGEST
