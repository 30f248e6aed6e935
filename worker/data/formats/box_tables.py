"""Tables of boxes (CSV, TSV): one row a box or one a picture, under any names, with a header or without; also Global Wheat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker.data.faults import Report, Unusable
from worker.data.formats import automl, box_cells, box_order, label_studio, open_images, rotated, tables, via
from worker.data.formats.box_order import Reading, Sized, Sizes
from worker.data.formats.class_numbers import names_of_numbers
from worker.data.formats.collecting import Collected
from worker.data.formats.column_names import Names, is_called_class
from worker.data.formats.column_roles import FLAGS, Locate, Roles, Unclear, is_numeric, roles_of
from worker.data.formats.locate import is_picture, locate
from worker.data.formats.pairing import without_contested
from worker.data.formats.raw import Raw, RawImage, numbers, pixel_size
from worker.data.formats.tables import Table
from worker.data.splits import split_named, split_of_file
from worker.data.tree import NoSuchPicture, Tree

NAME = "csv"
TITLE = "CSV or TSV of boxes: filename, class and corners or sizes under any names (also RetinaNet's, Global Wheat's)"
_WHEAT = "wheat head"
_LOOKED_AT = 20_000  # rows that tell what four numbers are


@dataclass(frozen=True, slots=True)
class Row:
    """One row under its roles: boxes are four numbers each, None for one that cannot be read."""

    line: int
    picture: str
    boxes: tuple[tuple[float, ...] | None, ...]
    category: str
    categories: tuple[str, ...]
    split: str | None
    size: tuple[int, int] | None
    crowd: bool
    ignore: bool


def _finder(tree: Tree, file: str) -> Locate:
    known: dict[str, str | None] = {}

    def find(name: str) -> str | None:
        if name not in known:
            try:
                known[name] = locate(tree, name, file, split_of_file(file))
            except NoSuchPicture:
                known[name] = None
        return known[name]

    return find


def _candidates(tree: Tree) -> Iterator[str]:
    owned = {
        *via.tables_of(tree),
        *label_studio.tables_of(tree),
        *open_images.tables_of(tree),
        *automl.tables_of(tree),
    }
    yield from (file for file in tree.with_suffix(*tables.SUFFIXES) if file not in owned)
    # GTSDB's gt.txt
    yield from (
        file for file in tree.with_suffix(".txt") if not tree.namesakes(file) and _is_table(tree, file)
    )


def _is_table(tree: Tree, file: str) -> bool:
    """Whether a text is a table: a picture and at least four more cells in its first row, with a header or without."""
    table = tables.sample(tree, file)
    return (
        table is not None
        and len(table.columns) >= 5
        and bool(table.rows)
        and all(table.rows[0][1][:5])
        and any(map(is_picture, table.rows[0][1]))
    )


def may_hold_boxes(tree: Tree, file: str, *, unclear: bool) -> bool:
    """Whether a table holds boxes, or (`unclear`) looks so."""
    table = tables.sample(tree, file)
    roles = roles_of(table, _finder(tree, file)) if table is not None and table.rows else None
    return isinstance(roles, Roles) or (unclear and roles is not None)


def sampled(tree: Tree) -> Iterator[tuple[Table, Roles | Unclear]]:
    """The beginnings of the tables that hold boxes, or look so, and what their columns are."""
    for file in _candidates(tree):
        table = tables.sample(tree, file)
        if table is not None and table.rows and (roles := roles_of(table, _finder(tree, file))):
            yield table, roles


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next((table.file for table, roles in sampled(tree) if isinstance(roles, Roles)), None)
    return f"a table of boxes, {file}" if file else None


def _row(line: int, cells: Sequence[str], roles: Roles) -> Row:
    boxes: list[tuple[float, ...] | None]
    inside = None
    if len(roles.box) == 1:
        boxes = box_cells.boxes_of(cells[roles.box[0]])
        inside = box_cells.classes_inside(cells[roles.box[0]]) if roles.inside else None
    else:
        written = [cells[place] for place in roles.box]
        values = numbers(word.replace(",", ".") for word in written)
        empty = not any(word.lower() not in ("", "nan", "none", "null") for word in written)
        if values and len(values) == 8:
            values = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        boxes = [] if empty else [tuple(values) if values else None]
    beside = cells[roles.category] if roles.category is not None else ""
    return Row(
        line,
        cells[roles.picture],
        tuple(boxes),
        beside,
        inside or (box_cells.classes_beside(beside, len(boxes)) if roles.category is not None else ()),
        _split_of(cells, roles),
        pixel_size(cells[roles.size[0]], cells[roles.size[1]]) if roles.size else None,
        _is_set(cells, roles.crowd),
        _is_set(cells, roles.ignore),
    )


def _split_of(cells: Sequence[str], roles: Roles) -> str | None:
    if roles.split is None:
        return None
    if roles.held_out:
        return roles.held_out if FLAGS.get(cells[roles.split].lower()) else "train"
    return split_named(cells[roles.split])


def _is_set(cells: Sequence[str], place: int | None) -> bool:
    return place is not None and FLAGS.get(cells[place].lower(), False)


def _meaning(
    tree: Tree, table: Table, roles: Roles, found: Sequence[Row], report: Report
) -> tuple[Reading, bool, str | None]:
    """(what the four numbers are, whether they are fractions, a note where it was not said). Raises Unusable when unclear."""
    find, sizes = _finder(tree, table.file), Sizes(tree)
    boxes: list[Sized] = []
    for row in found:
        path = find(row.picture)
        size = row.size or (sizes.of(path) if path else None)
        boxes += [(box, size) for box in row.boxes if box]
    fractions = box_order.are_fractions(boxes)
    if box_order.are_percent(boxes):
        raise Unusable(
            f"The boxes of {table.file} ({', '.join(table.columns[place] for place in roles.box)}) all lie in the first 100 pixels of "
            "larger pictures: they seem to be percent. Divide them by 100, so that they are fractions.",
            report.to_json(),
        )
    if len(roles.readings) == 1:
        return roles.readings[0], fractions, None
    fitting = box_order.possible(roles.readings, boxes, fractions=fractions)
    listed = ", ".join(table.columns[place] for place in roles.box)
    wheat = len(roles.box) == 1 and table.columns[roles.box[0]] in ("BoxesString", "bbox") and not fractions
    if wheat and (not fitting or len(fitting) > 1):
        fixed = (
            box_order.corners if table.columns[roles.box[0]] == "BoxesString" else box_order.corner_and_size
        )
        return fixed, False, f"{table.file}: {listed} was taken as {box_order.NAMES[fixed]}"
    usual = roles.readings[0]
    if table.headed and len(roles.box) == 4 and usual in fitting and (len(fitting) == 1 or not fractions):
        return usual, fractions, None
    if len(fitting) == 1:
        return fitting[0], fractions, f"{table.file}: {listed} was taken as {box_order.NAMES[fitting[0]]}"
    meant = " or ".join(box_order.NAMES[reading] for reading in roles.readings)
    why = "the boxes fit both" if fitting else "the boxes fit neither"
    raise Unusable(
        f"The boxes of {table.file} ({listed}) might be {meant}, and {why}. Name the columns xmin, ymin, xmax, ymax; or "
        "xmin, ymin, width, height; or x_center, y_center, width, height.",
        report.to_json(),
    )


def _read_table(collected: Collected, file: str, questions: list[str]) -> bool:
    """Read one table; False where it holds no boxes, or (a fault) where it is unclear what its columns are."""
    tree, report = collected.tree, collected.report
    table = tables.whole(tree, file, report)
    roles = roles_of(table, _finder(tree, file)) if table else None
    if table is None or roles is None:
        return False
    if isinstance(roles, Unclear):
        report.add("unread_file", file, roles.question)
        questions.append(roles.question)
        return False
    collected.used.add(file)
    sample_rows = [_row(line, cells, roles) for line, cells in table.rows[:_LOOKED_AT]]
    reading, fractions, note = _meaning(tree, table, roles, sample_rows, report)
    if note:
        collected.notes.append(note)
    named = _names(collected, table, roles)
    _say_unread(table, roles, report)
    split = split_of_file(file)
    with_boxes = _classes_with_boxes(table, roles)
    lost: dict[str, int] = {}
    find = _finder(tree, file)
    located = {name: find(name) for name in dict.fromkeys(cells[roles.picture] for _, cells in table.rows)}
    own = without_contested(located)
    for line, cells in table.rows:
        row = _row(line, cells, roles)
        path = own[row.picture]
        if path is None:
            lost[row.picture] = lost.get(row.picture, 0) + len(row.boxes)
            continue
        declared = None if fractions else row.size
        image = collected.at(path, split=row.split or split, declared=declared, relative=fractions)
        if not row.boxes and (line in table.short or row.category in with_boxes):
            reason = "the row is cut short" if line in table.short else f"{row.category!r} has no box here"
            collected.report.add("invalid_annotation", file, reason, f"line {line}")
            image.dropped += 1
        _add(collected, image, row, reading, named, file)
    for name, count in lost.items():
        if path := located[name]:
            reason = f"the only picture of this name, {path}, is also called otherwise (named in {file})"
            report.add("missing_image", name, reason, lost=count, image=True)
        else:
            collected.named(name, file, lost=count)  # says why
    return True


def _classes_with_boxes(table: Table, roles: Roles) -> set[str]:
    """The classes that have a box somewhere: a row of any other class (`No finding`) says that its picture has no object."""
    if roles.category is None:
        return set()
    return {cells[roles.category] for _, cells in table.rows if all(cells[place] for place in roles.box)} - {
        ""
    }


def _say_unread(table: Table, roles: Roles, report: Report) -> None:
    """Name further columns of classes, what stands behind the header, and boxes that were turned."""
    if roles.unread:
        listed = ", ".join(repr(table.columns[place]) for place in roles.unread)
        chosen = repr(table.columns[roles.category or 0])
        report.add(
            "extra_columns", table.file, f"the class was taken from {chosen}; {listed} was left out", lost=0
        )
    sure = Names(table).find(["confidence", "score", "conf", "prob", "probability"])
    if sure is not None and is_numeric(table.column(sure)) and len(set(table.column(sure))) > 1:
        reason = f"{table.columns[sure]!r} says how sure a detector or person was: left out, and every box counts alike"
        report.add("extra_columns", table.file, reason, lost=0)
    if table.long:
        reason = f"{len(table.long)} rows have more cells than the header, such as line {min(table.long)}: what stands there is not read"
        report.add("extra_columns", table.file, reason, lost=0)
    if roles.angle is not None and any(any(numbers([cell]) or ()) for cell in table.column(roles.angle)):
        reason = f"{table.columns[roles.angle]!r} turns the boxes and is not read: they are taken as they stand before the turn"
        report.add("rotated_box", table.file, reason)
    if len(roles.box) == 8:
        corners = [numbers(cells[place].replace(",", ".") for place in roles.box) for _, cells in table.rows]
        rotated.say(report, table.file, sum(len(set(values[::2])) > 2 for values in corners if values))


def _names(collected: Collected, table: Table, roles: Roles) -> dict[str, str] | str:
    """{what the class column says: the class}, or the one class of a table without such a column."""
    if roles.category is not None and not is_called_class(table.columns[roles.category]):
        collected.notes.append(f"{table.file}: the class was taken from {table.columns[roles.category]!r}")
    if roles.inside or (roles.category is not None and len(roles.box) == 1):
        of_rows = [_row(line, cells, roles).categories for line, cells in table.rows]
        return names_of_numbers(collected, [name for names in of_rows for name in names if name], table.file)
    if roles.category is None:
        if _has_columns_of_wheat(table.columns):
            return _WHEAT
        reason = "the table names no class: every box is called 'object'"
        collected.report.add("unnamed_classes", table.file, reason)
        return "object"
    return names_of_numbers(collected, table.column(roles.category), table.file)


def _has_columns_of_wheat(columns: Sequence[str]) -> bool:
    """Whether a table is one of the Global Wheat datasets of 2020 and 2021, which name no class."""
    return {"image_id", "bbox", "source"} <= set(columns) or {"image_name", "BoxesString", "domain"} <= set(
        columns
    )


def _add(
    collected: Collected, image: RawImage, row: Row, reading: Reading, named: dict[str, str] | str, file: str
) -> None:
    for place, box in enumerate(row.boxes):
        written = row.categories[place] if row.categories else ""
        category = named if isinstance(named, str) else named.get(written, written)
        corners = reading(box) if box else None
        wanted = "four finite numbers are wanted"
        collected.box(
            image,
            category,
            corners,
            file,
            f"line {row.line}",
            crowd=row.crowd,
            ignore=row.ignore,
            wanted=wanted,
        )


def _is_of_heads(file: str, tree: Tree) -> bool:
    columns = tables.header(tree, file)
    lower = {name.lower() for name in columns}
    return _has_columns_of_wheat(columns) and not lower & {"class", "label", "category", "class_name", "name"}


def read(tree: Tree, report: Report) -> Raw:
    """Read every table of boxes. Raises Unusable, naming the columns, where it is unclear what they are.

    Coordinates are continuous pixels from 0, or fractions where no number is above 2; which corner or centre four numbers
    mean is told by the columns' names, else by which meaning puts the boxes into their pictures.
    """
    collected = Collected(tree, report)
    questions: list[str] = []
    heads = [
        file
        for file in _candidates(tree)
        if _read_table(collected, file, questions) and _is_of_heads(file, tree)
    ]
    if questions and not collected.used:
        raise Unusable(f"{questions[0]}.", report.to_json())
    if heads and len(heads) == sum(file.lower().endswith(tables.SUFFIXES) for file in collected.used):
        # Global Wheat lists only pictures with at least one head.
        bare = sorted(set(tree.images) - collected.images.keys())
        for path in bare:
            collected.at(path)
        collected.notes.append(
            f"{len(bare)} pictures that no table lists count as pictures without heads, as in Global Wheat"
        )
    return collected.raw()
