"""Amazon's manifests (SageMaker Ground Truth, Rekognition Custom Labels): JSON lines of `source-ref` and labels of a job."""

from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.json_files import first_with, lines_of, mapping, rows, with_keys
from worker.data.formats.raw import Raw, numbers, pixel_size
from worker.data.tree import Tree

NAME = "ground_truth"
TITLE = "SageMaker Ground Truth or Rekognition manifest (JSON lines)"
_KEYS = ("source-ref", "annotations", "class_id")
_SUFFIXES = (".manifest", ".jsonl", ".json", ".ndjson")
_SIDES = ("left", "top", "width", "height")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS, suffixes=_SUFFIXES)
    return f"a manifest of Ground Truth, {file}" if file else None


def _jobs(entry: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what a labelling job says of the picture, its metadata): each stands under the name that the job was given."""
    for key, value in entry.items():
        if isinstance(mapping(value).get("annotations"), list):
            yield value, mapping(entry.get(f"{key}-metadata"))


def read(tree: Tree, report: Report) -> Raw:
    """Read every line: left, top, width, height in pixels from 0; `class-map` of the job's metadata names the classes.

    A line without boxes of a job is a picture that nobody labelled (docs.aws.amazon.com, Rekognition, 'Object localization in
    manifest files').
    """
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS, suffixes=_SUFFIXES):
        collected.used.add(file)
        for line, content in lines_of(tree, file, report):
            entry = mapping(content)
            jobs = list(_jobs(entry))
            if not jobs:
                continue
            lost = sum(len(rows(job["annotations"])) for job, _ in jobs)
            size = next(iter(rows(jobs[0][0].get("image_size"))), {})
            declared = pixel_size(size.get("width"), size.get("height"))
            image = collected.named(entry.get("source-ref"), file, declared=declared, lost=lost)
            if image is None:
                continue
            for job, metadata in jobs:
                called = {str(number): name for number, name in mapping(metadata.get("class-map")).items()}
                for place, row in enumerate(rows(job["annotations"]), start=1):
                    reference = f"line {line}, annotation {place}"
                    number = str(row.get("class_id"))
                    if number not in called:
                        collected.unknown(image, row.get("class_id"), "the 'class-map'", file, reference)
                        continue
                    corners = xywh(numbers(row.get(side) for side in _SIDES))
                    wanted = "finite numbers left, top, width, height are wanted"
                    collected.box(image, called[number], corners, file, reference, wanted=wanted)
    return collected.raw()
