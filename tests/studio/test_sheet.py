"""The contact sheet."""

import numpy as np
from PIL import Image

from photomaker.studio.pictures.gallery import Cell
from photomaker.studio.pictures.sheet import CELL, GAP, LABEL, LARGEST, MARGIN, SheetRow, sheet

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


def places(paper, colour):
    """Left, top, right and bottom, exclusive, of a colour."""
    there = (np.asarray(paper) == colour).all(axis=2)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_every_cell_stands_where_it_belongs():
    """By hand: margins of 24, labels of 200, cells of 192 with 10 between them and 22 beneath for their line."""
    colours = [(250, 0, 0), (0, 200, 0), (0, 0, 250), (200, 0, 200), (0, 180, 200)]
    cells = [Cell(Image.new("RGB", (50, 50), colour), "") for colour in colours]
    paper = sheet("t", [SheetRow("one", cells[:4]), SheetRow("two", [None, cells[4]])], most=3)
    assert paper.size == (48 + 200 + 3 * 202, 72 + 3 * 224)
    tops = [48 + 10 + line * 224 for line in range(3)]
    lefts = [224 + column * 202 for column in range(3)]
    expected = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 2)]
    for colour, (column, line) in zip(colours, expected, strict=True):
        left, top = lefts[column], tops[line]
        assert places(paper, colour) == (left, top, left + 192, top + 192)


def test_a_flat_picture_is_in_the_middle_of_its_cell():
    paper = sheet("t", [SheetRow("", [Cell(Image.new("RGB", (100, 50), (250, 0, 0)), "")])])
    assert places(paper, (250, 0, 0)) == (224, 58 + 48, 224 + 192, 58 + 48 + 96)
    tall = sheet("t", [SheetRow("", [Cell(Image.new("RGB", (50, 100), (250, 0, 0)), "")])])
    assert places(tall, (250, 0, 0)) == (224 + 48, 58, 224 + 48 + 96, 58 + 192)


def test_title_label_line_and_text_are_in_their_places_and_colours():
    empty = np.asarray(sheet("", [SheetRow("", [Cell(RED, "")])]), int)
    full = np.asarray(sheet("Title", [SheetRow("label", [Cell(RED, "seed 1")])]), int)
    changed = np.argwhere((empty != full).any(axis=2))

    def within(top, left, bottom, right):
        inside = (changed >= [top, left]).all(1) & (changed < [bottom, right]).all(1)
        return int(inside.sum())

    title, label = within(20, 20, 48, 120), within(54, 20, 80, 100)
    text = within(58 + 192, 224, 58 + 192 + 22, 224 + 192)
    assert min(title, label, text) > 20
    assert title + label + text == len(changed)
    # the text beneath is centred and paler than the title
    columns = changed[(changed[:, 0] >= 250)][:, 1]
    assert abs((columns.min() + columns.max()) / 2 - (224 + 96)) < 4
    assert full[20:48, 20:120].min() < full[250:272, 224:416].min()
    line = full[48, 24 : full.shape[1] - 24]
    assert (line == line[0]).all() and not (line[0] == full[49, 30]).all()
    assert (full[48, : 24 - 1] == full[0, 0]).all() and (full[48, -23:] == full[0, 0]).all()


def test_eight_stand_side_by_side_where_nothing_is_said():
    assert sheet("", [SheetRow("", [Cell(RED, "")] * 9)]).width == 48 + 200 + 8 * 202


def test_cells_shrink_to_keep_the_longest_side():
    paper = sheet("t", [SheetRow(str(row), [Cell(RED, "")]) for row in range(100)])
    side = (LARGEST - 72) // 100 - 22 - 10
    assert paper.height == 72 + 100 * (side + 32)
    assert places(paper, (255, 0, 0))[2] - places(paper, (255, 0, 0))[0] == side
    many = sheet("t", [SheetRow("", [Cell(RED, "")]) for row in range(400)])
    assert many.height == 72 + 400 * (24 + 32)
