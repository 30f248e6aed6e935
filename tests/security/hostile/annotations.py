"""Annotation files of every format: cut, spoilt, emptied, deep, endless, of no number, too many."""

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import partial

from tests.security.hostile.case import SETS, Case, damaged, files_of, is_picture, zip_of

_NUMBER = re.compile(rb"(?<![\w.#])-?\d+(\.\d+)?(?![\w.])")
_WORD = re.compile(rb"[A-Za-z_]{3,}")
NUMBERS = (b"NaN", b"1e999", b"-Infinity", b"-1", b"9" * 400, b"1e-320", b"0x10", b"", b"true", b"[[]]")
WORDS = (b"\0", b"A" * 100_000, b"../../etc/passwd", b"<script>", b"\xff\xfe\xfd", "\u202e\u200d".encode())
LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12)
)
FILES = {
    "nothing": b"",
    "zeros": bytes(4096),
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"images":' * 100_000,
    "deep elements": b"<annotation>" + b"<object>" * 100_000,
    "laughs": LAUGHS + b"]><annotation><object><name>&l;</name></object></annotation>",
    "an outer file": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9))
    + b"names: *j\n",
    "a tag": b"names: !!python/object/apply:os.system ['touch /tmp/detrank-polyglot']\n",
    "one long line": b"0 " * 2_000_000,
    "many columns": b",".join(b"c%d" % n for n in range(50_000)) + b"\n" + b"1," * 50_000,
    "an open quote": b'filename,class,xmin,ymin,xmax,ymax\n"a.png,cat,' + b"1,1,9,9\n" * 50_000,
    "another encoding": "{'images': [\u0000\ud7ff]}".encode("utf-32"),
}


def _labels(name: str) -> list[str]:
    return [path for path in files_of(name) if not is_picture(path)]


def _with(name: str, change: Callable[[bytes], bytes]) -> bytes:
    return zip_of({path: data if is_picture(path) else change(data) for path, data in files_of(name).items()})


def _replaced(name: str, content: bytes) -> bytes:
    return _with(name, lambda data: content)


def _cut(name: str) -> bytes:
    return _with(name, lambda data: data[: len(data) * 2 // 3])


def _spoilt(name: str, seed: int) -> bytes:
    return _with(name, partial(damaged, seed=seed))


def _substituted(name: str, pattern: re.Pattern[bytes], values: tuple[bytes, ...], seed: int) -> bytes:
    rng = random.Random(seed)

    def change(data: bytes) -> bytes:
        return pattern.sub(lambda found: rng.choice(values) if rng.random() < 0.3 else found[0], data)

    return _with(name, change)


def _coco(images: list[dict], annotations: list[dict], categories: list[dict]) -> bytes:
    document = {"images": images, "annotations": annotations, "categories": categories}
    return zip_of({"annotations.json": json.dumps(document).encode(), **_pictures()})


def _pictures() -> dict[str, bytes]:
    return {path.rpartition("/")[2]: data for path, data in files_of("coco").items() if is_picture(path)}


def _boxes(count: int) -> list[dict]:
    boxes = ([n % 30 + n / count, n // 30 % 20, 5, 5] for n in range(count))
    return [{"id": n, "image_id": 1, "category_id": 1, "bbox": box} for n, box in enumerate(boxes)]


IMAGE, CATEGORY = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "cat"}]
MANY = {
    "a million boxes in a picture": lambda: _coco(IMAGE, _boxes(1_000_000), CATEGORY),
    "a million boxes of yolo in a picture": lambda: zip_of(
        {"data.yaml": b"names: [a]\n", "a.txt": b"0 0.5 0.5 0.2 0.2\n" * 1_000_000, **_pictures()}
    ),
    "100,000 categories": lambda: _coco(
        IMAGE, _boxes(10), [{"id": n, "name": f"c{n}"} for n in range(100_000)]
    ),
    "100,000 pictures that are not there": lambda: _coco(
        [{"id": n, "file_name": f"{n}.png"} for n in range(100_000)], _boxes(10), CATEGORY
    ),
    "a polygon of 500,000 points": lambda: _coco(
        IMAGE, [{**_boxes(1)[0], "segmentation": [[n % 30 for n in range(1_000_000)]]}], CATEGORY
    ),
    "run lengths that claim 2**31 pixels": lambda: _coco(
        IMAGE,
        [{**_boxes(1)[0], "iscrowd": 1, "segmentation": {"size": [65536, 32768], "counts": [0, 2**31]}}],
        CATEGORY,
    ),
    "one picture a hundred times": lambda: _coco(
        [{"id": n, "file_name": "a.png"} for n in range(100)], _boxes(10), CATEGORY
    ),
}


def cases() -> Iterator[Case]:
    for name in SETS:
        yield Case(f"{name}: cut", "datasets", partial(_cut, name), spared=True)
        for seed in range(2):
            yield Case(f"{name}: spoilt, seed {seed}", "datasets", partial(_spoilt, name, seed), spared=True)
        make = partial(_substituted, name, _NUMBER, NUMBERS, 0)
        yield Case(f"{name}: numbers that are none", "datasets", make, spared=True)
        make = partial(_substituted, name, _WORD, WORDS, 0)
        yield Case(f"{name}: words that are none", "datasets", make, spared=True)
    for kind, content in FILES.items():
        for name in ("coco", "voc", "yolo", "csv of corners", "labelme"):
            # the pictures are still there, and reading them bare is right where nothing looks like labels
            yield Case(f"{name}: {kind}", "datasets", partial(_replaced, name, content), spared=True)
    for kind, many in MANY.items():
        yield Case(kind, "datasets", many, spared=True)
