"""JSON that strangers made: which keys a file has, and its content under a typed look."""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report
from worker.data.formats.raw import numbers, text_of
from worker.data.tree import Tree

_HEAD, _TAIL = 4 << 20, 1 << 20  # bytes: a picture inside a LabelMe file lies between its keys
_KEY = re.compile(rb'"([A-Za-z_][\w.-]{0,40})"\s*:')
_LOOKED_AT = 1000  # files, evenly spaced, that decide which format a tree has


@functools.lru_cache(maxsize=4 * _LOOKED_AT)
def _keys(path: str, size: int, changed: int) -> frozenset[str]:
    with open(path, "rb") as stream:
        data = stream.read(_HEAD)
        if size > _HEAD:
            stream.seek(max(_HEAD, size - _TAIL))
            data += stream.read(_TAIL)
    data = data.replace(b"\0", b"")  # UTF-16
    return frozenset(key.decode() for key in set(_KEY.findall(data)))


def keys(tree: Tree, file: str) -> frozenset[str]:
    """The words that are keys in the beginning or the end of a JSON file; none when it cannot be read."""
    path = tree.absolute(file)
    try:
        status = path.stat()
        return _keys(str(path), status.st_size, status.st_mtime_ns)
    except OSError:
        return frozenset()


def with_keys(tree: Tree, *wanted: str, suffixes: tuple[str, ...] = (".json",)) -> Iterator[str]:
    """The JSON files in which all the wanted words are keys."""
    return (file for file in tree.with_suffix(*suffixes) if keys(tree, file).issuperset(wanted))


def sample(files: list[str]) -> list[str]:
    """At most 1000 of the files, evenly spaced, to recognise a format by."""
    return files[:: max(1, -(-len(files) // _LOOKED_AT))]


def first_with(
    tree: Tree, *wanted: str, unwanted: tuple[str, ...] = (), suffixes: tuple[str, ...] = (".json",)
) -> str | None:
    """A JSON file that has all the wanted keys and none of the unwanted, or None."""
    for file in sample(tree.with_suffix(*suffixes)):
        found = keys(tree, file)
        if found.issuperset(wanted) and found.isdisjoint(unwanted):
            return file
    return None


def content_of(tree: Tree, file: str, report: Report) -> Any:
    """The parsed content of one file; None and a fault where it is no valid JSON."""
    text = text_of(tree, file, report)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        report.add("unreadable_file", file, f"not valid JSON: {error}")
        return None


def parsed(text: str | bytes) -> Any:
    """The parsed text; None where it is no valid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def named_points(value: object) -> list[list[float]]:
    """The (x, y) of a list of objects with `x` and `y`; empty when one of them has no such numbers."""
    return points([[row.get("x"), row.get("y")] for row in rows(value)])


def lines_of(tree: Tree, file: str, report: Report) -> Iterator[tuple[int, Any]]:
    """(line number, content) of every line of a JSON lines file; lines that are no JSON are faults."""
    for number, line in enumerate((text_of(tree, file, report) or "").splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                report.add("invalid_annotation", file, f"not valid JSON: {error}", f"line {number}")


def rows(value: object) -> list[dict[str, Any]]:
    """The objects of a list; empty for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def mapping(value: object) -> dict[str, Any]:
    """An object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def points(value: object) -> list[list[float]]:
    """The (x, y) of a list of pairs; empty when one of them is none."""
    if not isinstance(value, list):
        return []
    found = [numbers(pair[:2]) if isinstance(pair, list) and len(pair) >= 2 else None for pair in value]
    whole = [pair for pair in found if pair]
    return whole if len(whole) == len(found) else []


def entries_of(tree: Tree, file: str, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place from 1, object) of every object of a JSON list, a single object, or JSON lines, whatever the file's suffix."""
    content = parsed(text_of(tree, file, report) or "")
    if content is None:
        found: Iterator[tuple[int, Any]] = lines_of(tree, file, report)
    else:
        found = enumerate(content if isinstance(content, list) else [content], start=1)
    return ((place, entry) for place, entry in found if isinstance(entry, dict))
