"""The page of checkpoints has a measured row for every family, and no row whose difference is large."""

import re

import pytest

from models_store.detr.families import FAMILIES
from tests.unit.models_store.family_table import PAGE, rows

LARGEST = 1e-3
# Of boxes: what is suppressed by nearly equal scores may differ.
LARGEST_IN_PIXELS = 0.05
OTHERS = (
    "YOLOX (arXiv 2107.08430)",
    "Faster R-CNN, FPN",
    "fasterrcnn_fpn",
    "retinanet",
    "body and pyramid (heads new)",
    "backbones of transformers",
)


@pytest.mark.parametrize("family", [*(f.title for f in FAMILIES.values()), *OTHERS])
def test_every_family_was_measured(family):
    assert [line for line in rows().values() if line.startswith(f"| {family} |")]


def test_no_measured_difference_is_large():
    found: dict[bool, list[float]] = {False: [], True: []}
    for line in rows().values():
        for name, number in re.findall(r"(\D+?) (\d\.\de[-+]\d\d)", line.rsplit("|", 2)[1]):
            found["pixels" in name].append(float(number))
    assert len(found[False]) > 40
    assert max(found[False]) < LARGEST
    assert max(found[True]) < LARGEST_IN_PIXELS


def test_what_becomes_of_files_is_said_for_every_kind():
    inside = PAGE.read_text(encoding="utf-8").partition("<!-- what becomes: begin -->")[2]
    table = [
        line
        for line in inside.partition("<!-- what becomes: end -->")[0].splitlines()
        if line.startswith("| ")
    ][1:]
    becomes = {line.split("|")[2].strip() for line in table}
    assert becomes == {"ranked", "body", "refused", "teaches", "body, ranked inside a detector"}
    assert all(line.split("|")[3].strip() for line in table)
