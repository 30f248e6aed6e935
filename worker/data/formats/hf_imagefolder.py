"""Hugging Face imagefolder: `metadata.jsonl` or `metadata.csv` beside the pictures, `file_name` and `objects` in each row."""

from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report
from worker.data.formats import tables
from worker.data.formats.collecting import Collected
from worker.data.formats.hf_objects import (
    BOXES,
    add_all,
    declared_size,
    entry_of,
    holds_objects,
    names_described,
)
from worker.data.formats.json_files import keys, lines_of, mapping
from worker.data.formats.raw import Raw
from worker.data.splits import split_named
from worker.data.tree import Tree

NAME = "imagefolder"
TITLE = "Hugging Face imagefolder with metadata.jsonl or metadata.csv (file_name, objects)"
_NAMES = ("file_name", "image", "image_path", "filename")


def _json_lines(tree: Tree) -> list[str]:
    return [
        file
        for file in tree.with_suffix(".jsonl", ".ndjson")
        if "file_name" in (found := keys(tree, file))
        and not found.isdisjoint(("objects", "annotations", *BOXES))
    ]


def _tables(tree: Tree) -> list[str]:
    return [
        file
        for file in tree.with_suffix("metadata.csv")
        if {"file_name", "objects"} <= set(tables.header(tree, file))
    ]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next(iter([*_json_lines(tree), *_tables(tree)]), None)
    return f"Hugging Face metadata, {file}" if file else None


def _rows(tree: Tree, file: str, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.endswith(".csv"):
        yield from tables.rows(tree, file, report)
        return
    for line, content in lines_of(tree, file, report):
        yield line, mapping(content)


def read(tree: Tree, report: Report) -> Raw:
    """Read every row; boxes are x, y, width, height in pixels (huggingface.co/docs/datasets/object_detection) unless they cannot be.

    Numbered classes are named by the README's `dataset_info`, a dataset_infos.json or a list of names; else the report says
    that nothing names them. Raises Unusable where the boxes fit no single meaning.
    """
    collected = Collected(tree, report)
    entries = []
    for file in (*_json_lines(tree), *_tables(tree)):
        collected.used.add(file)
        for line, row in _rows(tree, file, report):
            name = next((row[key] for key in _NAMES if isinstance(row.get(key), str)), None)
            split = split_named(row.get("split"))
            image = collected.named(name, file, split=split, declared=declared_size(row), lost=1)
            # A row without objects says nothing about what is in the picture.
            if image is not None and not holds_objects(row):
                collected.images.pop(image.path)
            elif image is not None and (entry := entry_of(collected, image, row, file, f"line {line}")):
                entries.append(entry)
    add_all(collected, entries, names_described(tree, collected.used))
    return collected.raw()
