"""What the columns of a table of boxes are, by their names and by what stands in them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.data.formats import box_cells, box_order
from worker.data.formats.box_cells import NUMBER, PLAIN
from worker.data.formats.box_order import Reading
from worker.data.formats.column_names import (
    BOTTOM,
    CENTER_X,
    CENTER_Y,
    CLASS,
    CROWD,
    HEIGHT,
    HELD_OUT,
    IGNORE,
    LEFT,
    OTHER,
    PICTURE,
    RIGHT,
    SPLIT,
    TOP,
    WEAK,
    WIDTH,
    Names,
    box_by_name,
)
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import numbers
from worker.data.formats.tables import Table
from worker.data.splits import split_named

FLAGS = {
    "1": True,
    "1.0": True,
    "true": True,
    "yes": True,
    "0": False,
    "0.0": False,
    "false": False,
    "no": False,
}
Locate = Callable[[str], str | None]


_MANY = 30  # distinct values of a column that are looked up among the pictures


@dataclass(frozen=True)
class Roles:
    """Places of columns.

    `box` has four, or eight (x and y of four corners), or one whose cells hold whole boxes, with their classes where `inside`;
    `readings` are what the four may mean. `angle` turns the boxes. `split` has flags where they say what is `held_out`. `unread` are further columns of classes, which say something else than `category`.
    """

    picture: int
    box: tuple[int, ...]
    readings: tuple[Reading, ...]
    category: int | None = None
    split: int | None = None
    size: tuple[int, int] | None = None
    crowd: int | None = None
    ignore: int | None = None
    inside: bool = False
    unread: tuple[int, ...] = ()
    angle: int | None = None
    held_out: str | None = None


@dataclass(frozen=True)
class Unclear:
    """A table that looks like boxes, and what has to be said before it can be read."""

    question: str


def _found_share(table: Table, place: int, locate: Locate) -> float:
    values = list(dict.fromkeys(table.column(place)))[:_MANY]
    return sum(locate(value) is not None for value in values) / len(values) if values else 0.0


def _picture(table: Table, names: Names, locate: Locate) -> int | None:
    """The column of pictures: one whose values are found, by its name first; else one that is called so."""
    called = [place for name in PICTURE for place, key in enumerate(names.keys) if key == name]
    written = [
        place for place in range(len(table.columns)) if any(map(is_picture, table.column(place)[:_MANY]))
    ]
    for place in dict.fromkeys(
        [*(p for p in called if p in written), *written, *called, *range(len(table.columns))]
    ):
        if _found_share(table, place, locate) >= 0.5:
            return place
    if written:
        return written[0]
    # A header may say it before any picture is found; `id` and `name` alone say nothing.
    return next((place for place in called if names.keys[place] not in ("id", "name")), None)


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether every cell is a number, and there is one."""
    return bool(cells) and numbers(cell.replace(",", ".") for cell in cells) is not None


def _whole_numbers(cells: Sequence[str]) -> bool:
    found = numbers(cells)
    return bool(found) and all(value == int(value) for value in found or ())


def numeric_columns(table: Table) -> list[int]:
    """Columns of numbers of which some are no 0/1 flags."""
    columns = [(place, table.column(place)) for place in range(len(table.columns))]
    return [place for place, cells in columns if is_numeric(cells) and set(cells) - {"0", "1"}]


def _unknown_columns(table: Table, names: Names, taken: set[int]) -> list[int]:
    return [
        place
        for place, key in enumerate(names.keys)
        if place not in taken and key not in OTHER and not key.startswith("unnamed") and table.column(place)
    ]


def _is_class(cells: Sequence[str]) -> bool:
    """Whether cells look like classes: words that come again."""
    return not is_numeric(cells) and (len(cells) <= 20 or len(set(cells)) <= len(cells) / 2)


def _category(table: Table, names: Names, taken: set[int]) -> int | Unclear | None:
    """The column of classes; None where no column can be it."""
    called = [
        place for name in CLASS for place, key in enumerate(names.keys) if key == name and place not in taken
    ]
    called = [place for place in called if table.column(place)]
    if len(called) == 1 and names.keys[called[0]] in WEAK and len(set(table.column(called[0]))) == 1:
        # `type` is 'animal' in every row, and `breed` may be what is meant.
        others = [
            place
            for place in _unknown_columns(table, names, {*taken, *called})
            if _is_class(table.column(place)) and len(set(table.column(place))) > 1
        ]
        if others:
            return _which_class(table, [*called, *others])
    if called:
        return next((place for place in called if not is_numeric(table.column(place))), called[0])
    left = _unknown_columns(table, names, taken)
    words = [place for place in left if _is_class(table.column(place))]
    if len(words) == 1:
        return words[0]
    counted = [place for place in left if _whole_numbers(table.column(place))]
    if not table.headed and not words and len(counted) == 1:
        return counted[0]
    if not (words or counted):
        return None
    return _which_class(table, words or counted)


def _other_classes(table: Table, names: Names, category: int | None, taken: set[int]) -> tuple[int, ...]:
    """Columns of words that are called classes too and divide the boxes otherwise: groups above the classes, or another task."""
    if category is None or not table.headed:
        return ()
    found = []
    for place, key in enumerate(names.keys):
        if place in taken or place == category or key not in CLASS or is_numeric(table.column(place)):
            continue
        pairs = {(row[category], row[place]) for _, row in table.rows if row[place]}
        if len(pairs) > len({one for one, _ in pairs}) or len(pairs) > len({other for _, other in pairs}):
            found.append(place)
    return tuple(found)


def _which_class(table: Table, places: Sequence[int]) -> Unclear:
    return Unclear(
        f"{table.file} has boxes, and the class might stand in {_listed(table, places)}: rename the column of the class to "
        "'label'"
    )


def _split(table: Table, names: Names, taken: set[int]) -> int | None:
    flag = names.find([*HELD_OUT])
    if flag is not None and {cell.lower() for cell in table.column(flag)} <= FLAGS.keys():
        return flag
    called = names.find(SPLIT)
    places = [called] if called is not None else [] if table.headed else range(len(table.columns))
    for place in places:
        cells = set(table.column(place))
        if place not in taken and cells and all(split_named(cell) for cell in cells):
            return place
    return None


def _size(names: Names, taken: set[int]) -> tuple[int, int] | None:
    for pair in (
        ("imagewidth", "imageheight"),
        ("imgwidth", "imgheight"),
        ("width", "height"),
        ("imw", "imh"),
    ):
        width, height = names.find([pair[0]]), names.find([pair[1]])
        if width is not None and height is not None and not {width, height} & taken:
            return width, height
    return None


def _listed(table: Table, places: Sequence[int]) -> str:
    return ", ".join(repr(table.columns[place]) for place in places)


def _all_four_numbers(cells: Sequence[str]) -> bool:
    return bool(cells) and all(PLAIN.fullmatch(cell) and len(NUMBER.findall(cell)) == 4 for cell in cells)


def _beyond(table: Table) -> Unclear | None:
    """A question where rows go on behind the header with more boxes."""
    for line, cells in table.rows:
        if line in table.long and sum(numbers([cell]) is not None for cell in cells[table.width :]) >= 4:
            return Unclear(
                f"{table.file} has rows with more cells than its header names, such as line {line}, and numbers in them: write "
                "one box a row, or a name for each column"
            )
    return None


def _part_of_a_box(table: Table, names: Names) -> Unclear | None:
    """A question where some columns are called sides of a box and others are missing."""
    strict = {*LEFT, *TOP, *RIGHT, *BOTTOM, *CENTER_X, *CENTER_Y, "x0", "y0"}
    loose = {"x", "y", *WIDTH, *HEIGHT}
    found = [place for place, key in enumerate(names.inner) if key in strict | loose and table.column(place)]
    keys = {names.inner[place] for place in found}
    # Two sides, or one and a size, or a point; `width` and `height` alone are a picture's.
    if len(found) < 2 or not (keys & strict or {"x", "y"} <= keys):
        return None
    return Unclear(
        f"{table.file} has {_listed(table, found)}, which are not all of a box: xmin, ymin, xmax, ymax, or x, y, width, height, "
        "or x_center, y_center, width, height are wanted"
    )


def _box_by_content(table: Table, picture: int, taken: set[int]) -> tuple[int, ...] | Unclear | None:
    """A column whose cells are four numbers each, else four columns of numbers in a row; None where there is neither."""
    for place in range(len(table.columns)):
        if place not in taken and _all_four_numbers(table.column(place)):
            return (place,)
    every = [place for place in numeric_columns(table) if place not in taken]
    if len(every) < 4:
        return None
    if not table.headed and (apart := _box_and_size(table, every)):
        return apart
    if len(every) == 4 and every[-1] - every[0] == 3:
        return tuple(every)
    if not table.headed and len(every) == 5 and every[-1] - every[0] == 4:
        first, last = table.column(every[0]), table.column(every[-1])
        classes = {
            tuple(every[1:]): _whole_numbers(first) and len(set(first)) <= max(len(first) / 2, 2),
            tuple(every[:-1]): _whole_numbers(last) and len(set(last)) <= max(len(last) / 2, 2),
        }
        fitting = [
            box
            for box, is_class in classes.items()
            if is_class and box_order.possible([box_order.corners], boxes_of(table, box), fractions=False)
        ]
        if len(fitting) == 1:
            return fitting[0]
    listed = _listed(table, every)
    return Unclear(
        f"{table.file} names pictures in {table.columns[picture]!r} and has the numbers {listed}: give it a header that says "
        "which are xmin, ymin, xmax, ymax (or x, y, width, height) and which is the label"
    )


def _box_and_size(table: Table, every: Sequence[int]) -> tuple[int, ...] | None:
    """The four columns of boxes and behind them the two of the picture's size: runs of four and of two that stand apart.

    makesense.ai writes `label,x,y,width,height,picture,picture's width,picture's height`.
    """
    runs: list[list[int]] = []
    for place in every:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    if sorted(map(len, runs)) != [2, 4]:
        return None
    size, box = sorted(runs, key=len)
    found = [numbers(row[place] for place in (*box, *size)) for _, row in table.rows]
    whole = [values for values in found if values]
    fits = all(max(v[0], v[2]) <= v[4] and max(v[1], v[3]) <= v[5] for v in whole)
    return (*box, *size) if whole and fits else None


def _has_boxes(table: Table, box: tuple[int, ...]) -> bool:
    """Whether a row has a number in each of the four columns, or four numbers in the one."""
    if len(box) > 1:
        return any(numbers(row[place].replace(",", ".") for place in box) for _, row in table.rows)
    return any(len(re.findall(r"\d+(?:\.\d+)?", cell)) >= 4 for cell in table.column(box[0]))


def boxes_of(table: Table, box: tuple[int, ...]) -> list[box_order.Sized]:
    """The four numbers of every row that has them, without the pictures' sizes."""
    found = (numbers(row[place].replace(",", ".") for place in box) for _, row in table.rows)
    return [(values, None) for values in found if values]


def roles_of(table: Table, locate: Locate) -> Roles | Unclear | None:
    """What the columns are; None where this is no table of boxes of pictures. `locate` finds a picture, or None."""
    names = Names(table)
    picture = _picture(table, names, locate)
    if picture is None:
        return None
    split = _split(table, names, {picture})
    held_out = HELD_OUT.get(names.keys[split]) if split is not None else None
    taken = {picture, *([split] if split is not None else [])}
    if table.headed and (question := _beyond(table)):
        return question
    for place in range(len(table.columns)):
        if place not in taken and box_cells.are_words_and_boxes(table.column(place)):
            either = (box_order.corner_and_size, box_order.corners)
            return Roles(picture, (place,), either, split=split, inside=True, held_out=held_out)
    named: tuple[tuple[int, ...], tuple[Reading, ...]] | None = box_by_name(names) if table.headed else None
    if named is not None and not _has_boxes(table, named[0]):
        if any(table.column(place) for place in named[0]) and len(named[0]) > 1:
            return Unclear(
                f"{table.file} calls {_listed(table, named[0])} the sides of boxes, and they are no numbers"
            )
        named = None
    if named is None:
        found = _box_by_content(table, picture, taken)
        if not isinstance(found, tuple):
            return found or _part_of_a_box(table, names)
        if table.headed and len(found) == 4:
            return Unclear(
                f"{table.file} names pictures in {table.columns[picture]!r} and has the numbers {_listed(table, found)}: rename "
                "them to xmin, ymin, xmax, ymax (or x, y, width, height), and the column of the class to 'label'; where they "
                "are no boxes, give format=image_labels or format=unlabelled"
            )
        named = found, (box_order.corners, box_order.corner_and_size)
    box: tuple[int, ...]
    readings: tuple[Reading, ...]
    box, readings = named
    size = _size(names, {*taken, *box})
    if not table.headed and len(box) > 4:
        if (*box[:4], picture, *box[4:]) == (1, 2, 3, 4, 5, 6, 7):  # makesense.ai's order
            readings = (box_order.corner_and_size,)
        box, size = box[:4], (box[-2], box[-1])
    crowd, ignore = names.find(CROWD), names.find(IGNORE)
    taken |= {*box, *(size or ()), *(place for place in (crowd, ignore) if place is not None)}
    cells = table.column(box[0]) if len(box) == 1 else []
    if any(map(box_cells.are_objects, cells)):
        readings = (box_order.corner_and_size,)
    if any(map(box_cells.classes_inside, cells)):
        return Roles(picture, box, readings, None, split, size, crowd, ignore, inside=True, held_out=held_out)
    category = _category(table, names, taken)
    if isinstance(category, Unclear):
        return category
    unread = _other_classes(table, names, category, taken)
    angle = names.find(["rotation", "angle", "theta", "bboxrotation", "bboxangle"])
    return Roles(picture, box, readings, category, split, size, crowd, ignore, False, unread, angle, held_out)
