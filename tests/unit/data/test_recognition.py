"""Annotations of one set in two formats: the one that says more is read, and where they differ nobody guesses."""

import json
from pathlib import Path

import pytest
from hand_made import CLASSES, SCENE, _voc_xml, _yolo_lines, coco_content, scene, text
from test_coco_kinds import BOXES, _boxes

from worker.data.faults import Unusable
from worker.data.ingest import ingest


def _yolo(folder: Path, names: bool = True) -> None:
    for name in SCENE:
        text(folder / f"labels/{name}.txt", _yolo_lines(name))
    if names:
        text(folder / "classes.txt", "\n".join(CLASSES))


def _voc(folder: Path) -> None:
    for name in SCENE:
        text(folder / f"annotations/{name}.xml", _voc_xml(name))


def _coco(folder: Path) -> None:
    text(folder / "all.json", json.dumps(coco_content(list(SCENE))))


def _csv(folder: Path) -> None:
    rows = "".join(
        f"{name}.png,{c},{x1},{y1},{x2},{y2}\n"
        for name, (*_, boxes) in SCENE.items()
        for c, x1, y1, x2, y2 in boxes
    )
    text(folder / "boxes.csv", f"filename,class,xmin,ymin,xmax,ymax\n{rows}")


def test_the_same_boxes_of_other_classes_are_a_refusal(tmp_path: Path) -> None:
    """The classes of one format are in another order: both know the words, and give them to other boxes."""
    scene(tmp_path / "in")
    _voc(tmp_path / "in")
    _yolo(tmp_path / "in", names=False)
    text(tmp_path / "in/classes.txt", "\n".join(reversed(CLASSES)))
    with pytest.raises(Unusable, match="3 of 3 boxes of yolo are not in voc, or of another class there"):
        ingest(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("one", [_yolo, _voc, _coco, _csv])
@pytest.mark.parametrize("other", [_yolo, _voc, _coco, _csv])
def test_one_of_two_that_say_the_same_is_read(one, other, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    one(tmp_path / "in")
    other(tmp_path / "in")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == ({} if one is other else {"repeated_labels": 1})
    assert _boxes(tmp_path / "out") == BOXES


def test_names_are_better_than_numbers(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    _yolo(tmp_path / "in", names=False)
    _csv(tmp_path / "in")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.format, result.report["counts"]) == ("csv", {"repeated_labels": 1})


def test_more_pictures_are_better_than_fewer(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    _yolo(tmp_path / "in")
    text(tmp_path / "in/annotations/a.xml", _voc_xml("a"))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.format, result.summary["images"]) == ("yolo", 2)


def test_two_that_differ_are_named_with_the_difference(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    _yolo(tmp_path / "in")
    _coco(tmp_path / "in")
    text(tmp_path / "in/labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(Unusable, match=r"1 of 2 boxes of yolo are not in coco.*format=coco or format=yolo"):
        ingest(tmp_path / "in", tmp_path / "out")
    assert ingest(tmp_path / "in", tmp_path / "out", format="yolo").summary["annotations"] == 2
