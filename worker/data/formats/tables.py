"""Reading tables that strangers made: CSV, TSV and the like, with a header or without."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from worker.data.faults import Report
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import head_of, numbers, text_of
from worker.data.tree import Tree

SUFFIXES = (".csv", ".tsv", ".tab")
_FIELD_LIMIT = 1 << 24  # characters; GWHD puts all boxes of a picture into one cell
_HEAD = 1 << 16
_LOOKED_AT = 20  # lines that decide the delimiter
_COLUMNS = 4  # above which a row of one cell is a title
_DELIMITERS = "\t;|,"  # of several that divide alike the comma last: it may be a decimal one


@dataclass(frozen=True)
class Table:
    """The cells of one file, stripped; `columns` are the header's names, or `column 1`, `column 2` ... without one.

    Rows are (line, cells); `short` are the lines that have fewer cells than the first one, the rest of which are empty, `long`
    those that have something behind the `width` cells of a header.
    """

    file: str
    columns: tuple[str, ...]
    headed: bool
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    short: frozenset[int] = frozenset()
    long: frozenset[int] = frozenset()
    width: int = 0

    def column(self, place: int) -> list[str]:
        """The cells of one column that are not empty."""
        return [row[place] for _, row in self.rows if row[place]]


def _delimiter(text: str, blanks: bool) -> str:
    """The delimiter that divides the first lines into equally many cells, and into the most; `blanks` may be one."""
    lines = text.splitlines()[:_LOOKED_AT]
    best, cells = ",", 0
    for delimiter in _DELIMITERS + " " * blanks:
        try:
            counts = {
                len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row
            }
        except csv.Error:
            continue
        if len(counts) == 1 and max(counts) > max(cells, 1):
            best, cells = delimiter, max(counts)
    if cells:
        return best
    # A title or a comment above the header divides into nothing.
    divided = next((line for line in lines if any(map(line.count, _DELIMITERS))), "")
    return max(_DELIMITERS, key=divided.count) if divided else ","


def _is_header(cells: list[str]) -> bool:
    words = [cell for cell in cells if cell]
    return bool(words) and not any(numbers([word]) or is_picture(word) for word in words)


def _parsed(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank. Raises csv.Error."""
    csv.field_size_limit(_FIELD_LIMIT)
    if text[:4].lower() == "sep=":  # Excel's own first line
        text = text.partition("\n")[2]
    blanks = file.lower().endswith(".txt")
    text = _without_quotes(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(text[:_HEAD], blanks), skipinitialspace=True
    )
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped


def _is_quoted(line: str) -> bool:
    """Whether a line is one row between quotes, `"a.jpg,cat,1,2,3,4"`: Excel's, where another delimiter is usual."""
    inner = line[1:-1]
    return (
        len(line) > 2
        and line[0] == line[-1] == '"'
        and '"' not in inner.replace('""', "")
        and inner.count(",") >= _COLUMNS - 1
    )


def _without_quotes(text: str) -> str:
    lines = text.split("\n")
    if not any(_is_quoted(line.rstrip("\r")) for line in lines[:2]):
        return text
    stripped = (line.rstrip("\r") for line in lines)
    return "\n".join(line[1:-1].replace('""', '"') if _is_quoted(line) else line for line in stripped)


def _without_title(found: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The rows without what stands above the header: a title, or comments of the program that wrote the table."""
    start = 0
    while start < len(found) and sum(map(bool, found[start][1])) == 1:
        start += 1
    if start == len(found) or len(found[start][1]) < _COLUMNS:
        return found
    above = [cells[0] for _, cells in found[:start]]
    return found[start:] if _is_header(found[start][1]) or all(map(_is_comment, above)) else found


def _is_comment(cell: str) -> bool:
    return cell.startswith("#")


def _table(file: str, found: list[tuple[int, list[str]]]) -> Table | None:
    found = _without_title(found)
    if not found:
        return None
    first = found[0][1]
    # A row 0, 1, 2 ... is what pandas writes over a table whose columns have no names.
    counted = len(first) > 2 and first == [str(place) for place in range(len(first))]
    headed = _is_header(first)
    body = found[1:] if headed or counted else found
    width = max(len(first), *(len(cells) for _, cells in body)) if body else len(first)
    names = [cell.lstrip("#").strip() for cell in first] if headed else []
    columns = tuple(
        (names[place] if place < len(names) else "") or f"column {place + 1}" for place in range(width)
    )
    rows = tuple((line, tuple(cells + [""] * (width - len(cells)))) for line, cells in body)
    short = frozenset(line for line, cells in body if len(cells) < len(first))
    long = frozenset(line for line, cells in body if headed and any(cells[len(first) :]))
    return Table(file, columns, headed, rows, short, long, len(first))


def sample(tree: Tree, file: str) -> Table | None:
    """The first 64 KiB of a table, without its last line where it is cut; None when there is none."""
    text = head_of(tree, file, _HEAD)
    if len(text) > _HEAD // 5 and "\n" in text and not text.endswith("\n"):
        text = text[: text.rindex("\n")]
    try:
        return _table(file, list(_parsed(text, file)))
    except csv.Error:
        return None


def whole(tree: Tree, file: str, report: Report) -> Table | None:
    """A whole table. What cannot be parsed is a fault, and the rows before it are kept."""
    found: list[tuple[int, list[str]]] = []
    try:
        for row in _parsed(text_of(tree, file, report) or "", file):
            found.append(row)
    except csv.Error as error:
        last = found[-1][0] if found else 0
        report.add("unreadable_file", file, f"not valid CSV after line {last}: {error}")
    return _table(file, found)


def header(tree: Tree, file: str) -> list[str]:
    """The column names of a table; empty when it has no header."""
    found = sample(tree, file)
    return list(found.columns) if found and found.headed else []


def rows(tree: Tree, file: str, report: Report) -> list[tuple[int, dict[str, str]]]:
    """(line number, {column: cell}) for every row of a table with a header; absent cells are empty strings."""
    table = whole(tree, file, report)
    if table is None or not table.headed:
        return []
    return [(line, dict(zip(table.columns, cells, strict=True))) for line, cells in table.rows]
