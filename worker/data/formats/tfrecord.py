"""TFRecord of TensorFlow's object detection API: pictures and boxes as `tf.train.Example` (tensorflow.org, 'TFRecord and tf.train.Example')."""

import struct
from collections.abc import Iterator

from worker.data.faults import Report
from worker.data.formats.class_numbers import names_of_numbers
from worker.data.formats.collecting import Collected
from worker.data.formats.raw import Raw, RawImage, numbers
from worker.data.splits import split_of_file
from worker.data.tree import Tree

NAME = "tfrecord"
TITLE = "TFRecord of TensorFlow's object detection API (image/encoded, image/object/bbox/*)"
_SIDES = tuple(f"image/object/bbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
_MAX_RECORD = 1 << 28  # bytes: one picture with its boxes
_MAX_BOXES = 1 << 24  # bytes of what one record says of its boxes
_PICTURE = "image/encoded"
_KEYS = {
    key.encode(): key
    for key in (
        _PICTURE,
        "image/filename",
        *_SIDES,
        "image/object/class/text",
        "image/object/class/label",
        "image/object/is_crowd",
        "image/object/group_of",
    )
}
_WORDS = (".tfrecord", ".tfrecords", ".record")

Feature = list[bytes] | list[float] | list[int]


class Broken(Exception):
    """Bytes that are no record or no Example."""


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            raise Broken("cut short")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise Broken("a number of more than 64 bits")


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(field number, value) of a protocol buffer message (protobuf.dev, 'Encoding')."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, place = _varint(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise Broken("no protocol buffer")
        if place + size > len(data):
            raise Broken("cut short")
        yield tag >> 3, data[place : place + size]
        place += size


def _feature(data: bytes) -> Feature:
    """The values of one Feature: bytes_list = 1, float_list = 2, int64_list = 3, each with its values in field 1."""
    for number, inner in _fields(data):
        if not isinstance(inner, bytes):
            continue
        values = [value for field, value in _fields(inner) if field == 1]
        if number == 1:
            return [value for value in values if isinstance(value, bytes)]
        if number == 2:
            packed = b"".join(value for value in values if isinstance(value, bytes))
            return list(struct.unpack(f"<{len(packed) // 4}f", packed[: len(packed) // 4 * 4]))
        whole = [value for value in values if isinstance(value, int)]
        for value in values:
            if isinstance(value, bytes):
                place = 0
                while place < len(value):
                    one, place = _varint(value, place)
                    whole.append(one)
        return whole
    return []


def _example(data: bytes) -> dict[str, Feature]:
    """Name -> values of an Example. Raises Broken."""
    found: dict[str, Feature] = {}
    for _, features in _fields(data):
        for _, entry in _fields(features) if isinstance(features, bytes) else ():
            parts = dict(_fields(entry)) if isinstance(entry, bytes) else {}
            key, value = parts.get(1), parts.get(2, b"")
            if isinstance(key, bytes) and isinstance(value, bytes) and (name := _KEYS.get(key)):
                if name != _PICTURE and len(value) > _MAX_BOXES:
                    raise Broken(f"{name} has {len(value):,} bytes")
                found[name] = _feature(value)
    return found


def _files(tree: Tree) -> list[str]:
    """Files that are called TFRecord (`train.tfrecord`, `train.record-00000-of-00010`) and begin with a whole record's length."""
    found = []
    for file in tree.files:
        name = file.rpartition("/")[2].lower()
        if any(word in name for word in _WORDS):
            path = tree.absolute(file)
            with path.open("rb") as stream:
                head = stream.read(8)
            if len(head) == 8 and struct.unpack("<Q", head)[0] + 16 <= path.stat().st_size:
                found.append(file)
    return found


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _files(tree)
    return f"{len(files)} TFRecord files, such as {files[0]}" if files else None


def _records(tree: Tree, file: str, report: Report) -> Iterator[tuple[int, dict[str, Feature]]]:
    """(number, Example) of each record: length, its checksum, data, its checksum. What is broken is a fault."""
    with tree.absolute(file).open("rb") as stream:
        number = 0
        while head := stream.read(12):
            number += 1
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else _MAX_RECORD + 1
            data = stream.read(length + 4) if length <= _MAX_RECORD else b""
            if len(data) != length + 4:
                report.add("unreadable_file", file, f"record {number} is cut short or no record")
                return
            try:
                yield number, _example(data[:-4])
            except Broken as error:
                report.add("invalid_annotation", file, f"no tf.train.Example: {error}", f"record {number}")


def _text(values: Feature) -> list[str]:
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


def _classes(example: dict[str, Feature]) -> list[str]:
    return _text(example.get("image/object/class/text") or example.get("image/object/class/label") or [])


def _boxes(
    collected: Collected, image: RawImage, example: dict[str, Feature], file: str, number: int
) -> list[tuple[RawImage, str, list[float], bool, str, str]]:
    sides = [example.get(side, []) for side in _SIDES]
    classes = _classes(example)
    crowds = example.get("image/object/is_crowd") or example.get("image/object/group_of") or []
    if len({len(classes), *map(len, sides)}) != 1:
        image.dropped += 1
        reason = "as many classes as xmin, ymin, xmax, ymax are wanted"
        collected.report.add("invalid_annotation", file, reason, f"record {number}")
        return []
    rows = zip(*sides, strict=True)
    return [
        (
            image,
            category,
            numbers(row) or [],
            place < len(crowds) and crowds[place] == 1,
            file,
            f"record {number}, object {place + 1}",
        )
        for place, (category, row) in enumerate(zip(classes, rows, strict=True))
    ]


def read(tree: Tree, report: Report) -> Raw:
    """Read every record that has a picture and boxes in fractions; classes by their text, else by number and a label map."""
    collected = Collected(tree, report)
    found = []
    for file in _files(tree):
        for number, example in _records(tree, file, report):
            data = next(iter(example.get(_PICTURE, [])), None)
            if not isinstance(data, bytes):
                report.add(
                    "missing_image", file, "the record has no image/encoded", f"record {number}", image=True
                )
                continue
            collected.used.add(file)
            name = next(iter(_text(example.get("image/filename", []))), "")
            path = tree.add_picture(file, f"{number:06d}", name, data)
            image = collected.at(path, split=split_of_file(file), relative=True)
            found += _boxes(collected, image, example, file, number)
    called = (
        names_of_numbers(collected, [category for _, category, *_ in found], found[0][4]) if found else {}
    )
    for image, category, corners, crowd, file, reference in found:
        collected.box(image, called.get(category, category), corners, file, reference, crowd=crowd)
    return collected.raw()
