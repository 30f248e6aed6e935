"""Hugging Face parquet: pictures inside the file (`image: {bytes, path}`) or beside it, and `objects` in each row."""

from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report, Unusable
from worker.data.formats.collecting import Collected
from worker.data.formats.hf_objects import (
    Entry,
    add_all,
    declared_size,
    entry_of,
    holds_objects,
    named_in,
    names_described,
)
from worker.data.formats.json_files import mapping, parsed
from worker.data.formats.raw import Raw, RawImage
from worker.data.splits import split_named, split_of_file
from worker.data.tree import Tree

NAME = "parquet"
TITLE = "Hugging Face parquet with image and objects (needs pyarrow: detrank[parquet])"
_MAGIC = b"PAR1"
_ROWS = 32  # rows at a time, for pictures lie in them
_MAX_GROUP = 2 << 30  # bytes: a row group is unpacked whole
_MAX_RATIO, _ALWAYS = 200, 1 << 30  # a file that unpacks to more is no dataset
_PICTURES = ("image", "img", "picture", "jpg", "png", "image_path", "file_name", "path")


def _files(tree: Tree) -> list[str]:
    found = []
    for file in tree.with_suffix(".parquet"):
        with tree.absolute(file).open("rb") as stream:
            if stream.read(4) == _MAGIC:
                found.append(file)
    return found


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _files(tree)
    return f"{len(files)} parquet files, such as {files[0]}" if files else None


def _opened(tree: Tree, file: str, report: Report) -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415  # an extra: 156 MB that only this format needs
    except ImportError:
        raise Unusable(
            f"{file} is parquet, which this worker cannot read: install pyarrow there (pip install 'detrank[parquet]'), or "
            "upload the same data as an imagefolder with metadata.jsonl.",
            report.to_json(),
        ) from None
    return parquet.ParquetFile(tree.absolute(file))


def _too_large(opened: Any, size: int) -> str | None:
    groups = [
        opened.metadata.row_group(place).total_byte_size for place in range(opened.metadata.num_row_groups)
    ]
    if groups and max(groups) > _MAX_GROUP:
        return f"a row group unpacks to {max(groups):,} bytes, {_MAX_GROUP:,} are allowed: write smaller row groups"
    if sum(groups) > max(_ALWAYS, _MAX_RATIO * size):
        return f"{size:,} bytes that unpack to {sum(groups):,} are no dataset"
    return None


def _rows(tree: Tree, file: str, report: Report) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """(number, row, classes that the schema names); a file that cannot be read is a fault."""
    try:
        opened = _opened(tree, file, report)
        if reason := _too_large(opened, tree.absolute(file).stat().st_size):
            report.add("unreadable_file", file, reason)
            return
        described = parsed((opened.schema_arrow.metadata or {}).get(b"huggingface", b""))
        names = named_in(mapping(mapping(described).get("info")).get("features"))
        number = 0
        for batch in opened.iter_batches(batch_size=_ROWS, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row, names
    except Unusable:
        raise
    except Exception as error:
        # pyarrow has its own exceptions for every kind of damage.
        report.add("unreadable_file", file, f"parquet that cannot be read: {error}")


def _picture(collected: Collected, row: dict[str, Any], file: str, number: int) -> RawImage | None:
    """The picture of a row: its bytes are put beside the archive's files, a path is looked up there."""
    split = split_named(row.get("split")) or split_of_file(file)
    for key in _PICTURES:
        value = row.pop(key, None)
        written = value.get("path") if isinstance(value, dict) else value
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            path = collected.tree.add_picture(
                file, f"{number:06d}", written if isinstance(written, str) else "", data
            )
            return collected.at(path, split=split, declared=declared_size(row))
        if isinstance(written, str):
            return collected.named(written, file, split=split, declared=declared_size(row), lost=1)
    collected.report.add("missing_image", file, "the row holds no picture", f"row {number}", image=True)
    return None


def read(tree: Tree, report: Report) -> Raw:
    """Read every row of every file, like an imagefolder's; classes are named by the schema, else as there.

    Raises Unusable where pyarrow is not installed, or where the boxes fit no single meaning.
    """
    collected = Collected(tree, report)
    entries: list[Entry] = []
    names: list[str] = []
    for file in _files(tree):
        bare = 0
        for number, row, named in _rows(tree, file, report):
            names = names or named
            if not holds_objects(row):
                bare += 1
                continue
            collected.used.add(file)
            image = _picture(collected, row, file, number)
            if image is not None and (entry := entry_of(collected, image, row, file, f"row {number}")):
                entries.append(entry)
        if bare:
            report.add("unread_file", file, f"{bare} rows have no column of objects with boxes")
    add_all(collected, entries, names or names_described(tree, collected.used))
    return collected.raw()
