"""Reading CSV tables that strangers made."""

import csv
import io

from worker.data.faults import Report
from worker.data.formats.raw import head_of, text_of
from worker.data.tree import Tree

_FIELD_LIMIT = 1 << 24  # characters; GWHD puts all boxes of a picture into one cell


def header(tree: Tree, file: str) -> list[str]:
    """The column names of a CSV file, stripped; empty when there is no readable first line."""
    lines = head_of(tree, file, 1 << 16).splitlines()
    try:
        return (
            [cell.strip() for cell in next(csv.reader(lines[:1], delimiter=_delimiter(lines[0])))]
            if lines
            else []
        )
    except (csv.Error, StopIteration):
        return []


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def rows(tree: Tree, file: str, report: Report) -> list[tuple[int, dict[str, str]]]:
    """(line number, {column: cell}) for every row that is not blank; absent cells are empty strings.

    What cannot be parsed is a fault, and the rows before it are kept.
    """
    text = text_of(tree, file, report)
    if not text:
        return []
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), restval="", delimiter=_delimiter(text.split("\n", 1)[0])
    )
    found: list[tuple[int, dict[str, str]]] = []
    try:
        for row in reader:
            cells = {
                (name or "").strip(): (cell or "").strip()
                for name, cell in row.items()
                if isinstance(name, str) and isinstance(cell, str)
            }
            if any(cells.values()):
                found.append((reader.line_num, cells))
    except csv.Error as error:
        report.add("unreadable_file", file, f"not valid CSV after line {reader.line_num}: {error}")
    return found
