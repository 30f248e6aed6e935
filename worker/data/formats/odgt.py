"""odgt, the JSON lines of CrowdHuman: `ID` and `gtboxes` with a box of the whole body, of its visible part, of the head."""

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.json_files import first_with, lines_of, mapping, rows, with_keys
from worker.data.formats.raw import Raw, is_set_aside, numbers, pixel_size
from worker.data.tree import Tree

NAME = "odgt"
TITLE = "odgt (CrowdHuman's JSON lines)"
_KEYS = ("gtboxes",)
_SUFFIXES = (".odgt", ".jsonl", ".json", ".txt")
_BOXES = ("fbox", "box", "bbox")  # the first that is there is the object
_OTHERS = {"vbox": "of the visible part", "hbox": "of the head"}


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS, suffixes=_SUFFIXES)
    return f"gtboxes, such as {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every line: x, y, width, height in pixels from 0 (arXiv 1805.00123; the files' description at crowdhuman.org).

    The object is the whole body, `fbox`, as in the paper's detectors; what has `ignore` counts neither way, and `mask` names
    a region to ignore.
    """
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS, suffixes=_SUFFIXES):
        collected.used.add(file)
        left_out: set[str] = set()
        for line, content in lines_of(tree, file, report):
            entry = mapping(content)
            found = rows(entry.get("gtboxes"))
            if not isinstance(entry.get("gtboxes"), list):
                continue
            written = entry.get("fpath") or entry.get("ID")
            image = collected.named(
                written if not isinstance(written, str) or "." in written[-5:] else f"{written}.jpg",
                file,
                declared=pixel_size(entry.get("width"), entry.get("height")),
                lost=len(found),
            )
            if image is None:
                continue
            for place, row in enumerate(found, start=1):
                key = next((key for key in _BOXES if key in row), _BOXES[0])
                left_out.update(_OTHERS.keys() & row.keys())
                values = row.get(key)
                corners = xywh(numbers(values)) if isinstance(values, list) else None
                reference = f"line {line}, box {place}"
                if row.get("tag") == "mask":
                    collected.ignore(image, corners, file, reference)
                    continue
                wanted = f"{key} must have finite numbers x, y, width, height"
                collected.box(
                    image,
                    row.get("tag"),
                    corners,
                    file,
                    reference,
                    ignore=is_set_aside(mapping(row.get("extra"))),
                    wanted=wanted,
                )
        if left_out:
            others = ", ".join(f"{key} ({_OTHERS[key]})" for key in sorted(left_out))
            report.add(
                "extra_columns", file, f"the boxes are those of whole objects; {others} is not read", lost=0
            )
    return collected.raw()
