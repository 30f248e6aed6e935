"""Azure Machine Learning's JSON lines: `image_url` and `label`, a list of corners in fractions; Azure's COCO is COCO (coco.py)."""

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import first_with, lines_of, mapping, rows, with_keys
from worker.data.formats.raw import Raw, numbers
from worker.data.tree import Tree

NAME = "azure"
TITLE = "Azure Machine Learning JSON lines (image_url, label with topX, topY, bottomX, bottomY)"
_KEYS = ("image_url", "label", "topX")
_SUFFIXES = (".jsonl", ".json", ".ndjson")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS, suffixes=_SUFFIXES)
    return f"JSON lines of Azure Machine Learning, {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every line (learn.microsoft.com, 'JSONL schema for AutoML computer vision'); one without `label` is unlabelled."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS, suffixes=_SUFFIXES):
        collected.used.add(file)
        for line, content in lines_of(tree, file, report):
            entry = mapping(content)
            if not isinstance(entry.get("label"), list):
                continue
            found = rows(entry["label"])
            image = collected.named(entry.get("image_url"), file, relative=True, lost=len(found))
            if image is None:
                continue
            for place, row in enumerate(found, start=1):
                corners = numbers(row.get(side) for side in ("topX", "topY", "bottomX", "bottomY"))
                collected.box(
                    image,
                    row.get("label"),
                    corners,
                    file,
                    f"line {line}, label {place}",
                    crowd=row.get("isCrowd") in (True, 1, "true"),
                    wanted="finite numbers topX, topY, bottomX, bottomY are wanted",
                )
    return collected.raw()
