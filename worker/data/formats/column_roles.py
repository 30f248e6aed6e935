"""What the columns of a table of boxes are, by their names and by what stands in them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.data.formats import box_order
from worker.data.formats.box_order import Reading
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import numbers
from worker.data.formats.tables import Table
from worker.data.splits import split_named

Locate = Callable[[str], str | None]


def _words(text: str) -> list[str]:
    return text.split()


_PICTURE = _words(
    "filename filepath file imagename imagepath imagefile imagefilename imageid imgname imgpath imgid image img path "
    "picture photo frame framename patientid id name uri url imageuri gcsuri"
)
_CLASS = _words(
    "class classname label labelname category categoryname classes labels objectclass objectname classlabel object "
    "species tag type name target cls classid labelid categoryid objectclassid labelidx classidx classindex"
)
_WEAK = frozenset(_words("object type tag name target"))  # that may say something else than the class
_SPLIT = _words("split set subset partition usage mluse fold phase")
_CROWD = _words("iscrowd crowd isgroupof")
_IGNORE = _words("difficult isdifficult ignore ignored")
# What tables have besides, and is no class.
_OTHER = frozenset(
    _words(
        "width height depth channels imagewidth imageheight imgwidth imgheight imw imh area confidence score conf prob source "
        "index idx annotationid boxid bboxid objectid instanceid trackid pose truncated occluded isoccluded istruncated "
        "isdepiction isinside timestamp time date annotator annotatorid radid worker url domain comment notes segmentation "
        "folder database rotation angle license"
    )
)
_LEFT = _words("xmin x1 left xtl xleft leftx minx xstart startx tlx topleftx x1min ulx xul lx xlow")
_TOP = _words("ymin y1 top ytl ytop topy miny ystart starty tly toplefty uly yul upper ylow")
_RIGHT = _words("xmax x2 right xbr xright rightx maxx xend endx brx bottomrightx lrx xlr rx xhigh")
_BOTTOM = _words("ymax y2 bottom ybr ybottom bottomy maxy yend endy bry bottomrighty lry ylr lower yhigh")
_CENTER_X = _words("xcenter cx xc centerx xcentre centrex xmid centroidx xmiddle")
_CENTER_Y = _words("ycenter cy yc centery ycentre centrey ymid centroidy ymiddle")
# `w` and `h` before `width` and `height`, which are the picture's where a table has both.
_WIDTH, _HEIGHT = ["w", "bw", "dx", "width"], ["h", "bh", "dy", "height"]
_CELL = _words(
    "bbox box bboxes boxes boundingbox boundingboxes bndbox boxesstring coordinates coords rect roi annotations geometry"
)
_OF_BOX = re.compile(r"^(bounding_?box(es)?|bndbox|bboxe?s?|box|bb|rect|roi|coords?)(?=.)")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
PLAIN = re.compile(r"[\s\d.,;:\-+eE\[\](){}|]*")
_MANY = 30  # distinct values of a column that are looked up among the pictures


@dataclass(frozen=True)
class Roles:
    """Places of columns. `box` has four, or one whose cells hold whole boxes; `readings` are what the four may mean."""

    picture: int
    box: tuple[int, ...]
    readings: tuple[Reading, ...]
    category: int | None = None
    split: int | None = None
    size: tuple[int, int] | None = None
    crowd: int | None = None
    ignore: int | None = None


def is_called_class(name: str) -> bool:
    """Whether a column is called what columns of classes usually are."""
    return _key(name) in _CLASS


@dataclass(frozen=True)
class Unclear:
    """A table that looks like boxes, and what has to be said before it can be read."""

    question: str


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class _Names:
    """The columns of a header, found by what they are called; `bbox_x1`, `Roi.X1` and `x1` are the same."""

    def __init__(self, table: Table) -> None:
        self.keys = [_key(name) for name in table.columns] if table.headed else [""] * len(table.columns)
        self.inner = [_OF_BOX.sub("", key) for key in self.keys]

    def find(self, names: Sequence[str]) -> int | None:
        """The first column with one of the names, in the order of the names."""
        return next((place for name in names for place, key in enumerate(self.keys) if key == name), None)

    def side(self, names: Sequence[str]) -> int | None:
        """As `find`, columns that say that they are of a box (`bbox_width`) before those that do not (`width`)."""
        of_box = (
            place
            for name in names
            for place, (key, inner) in enumerate(zip(self.keys, self.inner, strict=True))
            if inner == name and key != name
        )
        return next(of_box, self.find(names))

    def sides(self, *wanted: Sequence[str]) -> tuple[int, ...] | None:
        found = [self.side(names) for names in wanted]
        whole = tuple(place for place in found if place is not None)
        return whole if len(whole) == len(wanted) == len(set(whole)) else None


def _box_by_name(names: _Names) -> tuple[tuple[int, ...], tuple[Reading, ...]] | None:
    if zero_based := names.sides(["x0"], ["y0"], ["x1"], ["y1"]):
        return zero_based, (box_order.corners,)
    if found := names.sides(_LEFT, _TOP, _RIGHT, _BOTTOM):
        return found, (box_order.corners,)
    if found := names.sides(_CENTER_X, _CENTER_Y, _WIDTH, _HEIGHT):
        return found, (box_order.center_and_size,)
    far = (names.side(_RIGHT), names.side(_BOTTOM))
    if (found := names.sides(_LEFT, _TOP, _WIDTH, _HEIGHT)) and not any(place is not None for place in far):
        return found, (box_order.corner_and_size,)
    if found := names.sides(["x"], ["y"], _WIDTH, _HEIGHT):
        return found, (box_order.corner_and_size, box_order.center_and_size)
    cell = names.find(_CELL)
    return ((cell,), (box_order.corner_and_size, box_order.corners)) if cell is not None else None


def _found_share(table: Table, place: int, locate: Locate) -> float:
    values = list(dict.fromkeys(table.column(place)))[:_MANY]
    return sum(locate(value) is not None for value in values) / len(values) if values else 0.0


def _picture(table: Table, names: _Names, locate: Locate) -> int | None:
    """The column of pictures: one whose values are found, by its name first; else one that is called so."""
    called = [place for name in _PICTURE for place, key in enumerate(names.keys) if key == name]
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


def _unknown_columns(table: Table, names: _Names, taken: set[int]) -> list[int]:
    return [
        place
        for place, key in enumerate(names.keys)
        if place not in taken and key not in _OTHER and not key.startswith("unnamed") and table.column(place)
    ]


def _is_class(cells: Sequence[str]) -> bool:
    """Whether cells look like classes: words that come again."""
    return not is_numeric(cells) and (len(cells) <= 20 or len(set(cells)) <= len(cells) / 2)


def _category(table: Table, names: _Names, taken: set[int]) -> int | Unclear | None:
    """The column of classes; None where no column can be it."""
    called = [
        place for name in _CLASS for place, key in enumerate(names.keys) if key == name and place not in taken
    ]
    called = [place for place in called if table.column(place)]
    if len(called) == 1 and names.keys[called[0]] in _WEAK and len(set(table.column(called[0]))) == 1:
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


def _which_class(table: Table, places: Sequence[int]) -> Unclear:
    return Unclear(
        f"{table.file} has boxes, and the class might stand in {_listed(table, places)}: rename the column of the class to "
        "'label'"
    )


def _split(table: Table, names: _Names, taken: set[int]) -> int | None:
    called = names.find(_SPLIT)
    places = [called] if called is not None else [] if table.headed else range(len(table.columns))
    for place in places:
        cells = set(table.column(place))
        if place not in taken and cells and all(split_named(cell) for cell in cells):
            return place
    return None


def _size(names: _Names, taken: set[int]) -> tuple[int, int] | None:
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


def _part_of_a_box(table: Table, names: _Names) -> Unclear | None:
    """A question where some columns are called sides of a box and others are missing."""
    strict = {*_LEFT, *_TOP, *_RIGHT, *_BOTTOM, *_CENTER_X, *_CENTER_Y, "x0", "y0"}
    loose = {"x", "y", *_WIDTH, *_HEIGHT}
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


def _has_boxes(table: Table, box: tuple[int, ...]) -> bool:
    """Whether a row has a number in each of the four columns, or four numbers in the one."""
    if len(box) == 4:
        return any(numbers(row[place].replace(",", ".") for place in box) for _, row in table.rows)
    return any(len(re.findall(r"\d+(?:\.\d+)?", cell)) >= 4 for cell in table.column(box[0]))


def boxes_of(table: Table, box: tuple[int, ...]) -> list[box_order.Sized]:
    """The four numbers of every row that has them, without the pictures' sizes."""
    found = (numbers(row[place].replace(",", ".") for place in box) for _, row in table.rows)
    return [(values, None) for values in found if values]


def roles_of(table: Table, locate: Locate) -> Roles | Unclear | None:
    """What the columns are; None where this is no table of boxes of pictures. `locate` finds a picture, or None."""
    names = _Names(table)
    picture = _picture(table, names, locate)
    if picture is None:
        return None
    split = _split(table, names, {picture})
    taken = {picture, *([split] if split is not None else [])}
    named = _box_by_name(names) if table.headed else None
    if named is not None and not _has_boxes(table, named[0]):
        if any(table.column(place) for place in named[0]) and len(named[0]) == 4:
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
    box, readings = named
    size = _size(names, {*taken, *box})
    crowd, ignore = names.find(_CROWD), names.find(_IGNORE)
    taken |= {*box, *(size or ()), *(place for place in (crowd, ignore) if place is not None)}
    category = _category(table, names, taken)
    if isinstance(category, Unclear):
        return category
    return Roles(picture, box, readings, category, split, size, crowd, ignore)
