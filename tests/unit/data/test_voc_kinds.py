"""VOC files as people have them: every kind gives the boxes of the plain set, or says what was not read."""

import shutil
from pathlib import Path

import PIL.Image
import pytest
from hand_made import SCENE, picture, scene, text, voc
from test_coco_kinds import BOXES, _boxes
from test_yolo_kinds import TRUTH, _found

from worker.data.dataset import open_dataset
from worker.data.ingest import ingest


def _xml(folder: Path) -> dict[str, str]:
    voc(folder)
    return {name: (folder / f"VOC2012/Annotations/{name}.xml").read_text() for name in SCENE}


def test_repeated_stems_are_paired_by_folder(tmp_path: Path) -> None:
    xml = _xml(tmp_path / "plain")
    for name in SCENE:
        target = tmp_path / f"in/JPEGImages/vid{name}/0000.png"
        target.parent.mkdir(parents=True)
        shutil.copy(tmp_path / f"plain/VOC2012/JPEGImages/{name}.png", target)
        text(tmp_path / f"in/Annotations/vid{name}/0000.xml", xml[name].replace(f"{name}.png", "0000.png"))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {}
    assert {row[1:] for row in _boxes(tmp_path / "out")} == {row[1:] for row in BOXES}


def test_stems_that_no_folder_tells_apart_are_said(tmp_path: Path) -> None:
    voc(tmp_path / "in")
    for camera in (1, 2):
        picture(tmp_path / f"in/cam{camera}/x.png", 40, 30, camera + 10)
    text(
        tmp_path / "in/VOC2012/Annotations/x.xml",
        "<annotation><object><name>cat</name></object></annotation>",
    )
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"label_without_image": 1, "unlisted_image": 2}
    assert "2 pictures could be meant" in result.report["faults"][0]["reason"]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{}.png",
        "JPEGImages/{}.png",
        "VOC2012/JPEGImages/{}",
        "/data/JPEGImages/{}.png",
        "{} 1",
        "./JPEGImages/{}.png ./Annotations/{}.xml",
    ],
)
def test_lines_of_image_sets(line: str, tmp_path: Path) -> None:
    xml = _xml(tmp_path / "plain")
    for name, (split, *_) in SCENE.items():
        stem = f"Compound Leaves ({name})"
        target = tmp_path / f"in/JPEGImages/{stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / f"plain/VOC2012/JPEGImages/{name}.png", target)
        text(tmp_path / f"in/Annotations/{stem}.xml", xml[name])
        text(tmp_path / f"in/ImageSets/Main/{split}.txt", line.format(stem, stem) + "\n")
        text(
            tmp_path / "in/ImageSets/Main/trainval.txt",
            "".join(f"Compound Leaves ({name})\n" for name in SCENE),
        )
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.report["counts"], result.summary["splits_from"]) == ({}, "from the archive")
    assert _found(tmp_path / "out") == TRUTH


def test_swapped_corners_are_put_in_order_and_said(tmp_path: Path) -> None:
    xml = _xml(tmp_path / "in")
    for name, content in xml.items():
        swapped = content.replace("xmin", "?").replace("xmax", "xmin").replace("?", "xmax")
        # counted from 1 with the last pixel included, whichever corner it is
        text(tmp_path / f"in/VOC2012/Annotations/{name}.xml", swapped)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"swapped_corners": 3}
    assert _found(tmp_path / "out") == TRUTH


@pytest.mark.parametrize(
    ("encoding", "declaration", "word"),
    [
        ("gbk", "", "\u6807\u6ce8\u732b"),
        ("gbk", '<?xml version="1.0" encoding="utf-8"?>', "\u6807\u6ce8\u732b"),
        ("gbk", '<?xml version="1.0" encoding="gb2312"?>', "\u732b"),
        ("latin-1", "", "\u00f6re"),
        ("utf-16", "", "\u732b"),
        ("utf-8-sig", "", "\u732b"),
    ],
)
def test_undeclared_encodings(encoding: str, declaration: str, word: str, tmp_path: Path) -> None:
    xml = _xml(tmp_path / "in")
    for name, content in xml.items():
        changed = declaration + content.replace("<name>cat<", f"<name>{word}<")
        (tmp_path / f"in/VOC2012/Annotations/{name}.xml").write_bytes(changed.encode(encoding))
    assert ingest(tmp_path / "in", tmp_path / "out").report["counts"] == {}
    assert set(open_dataset(tmp_path / "out").categories) == {word, "dog"}


def test_difficult_objects_are_kept_and_set_aside(tmp_path: Path) -> None:
    xml = _xml(tmp_path / "in")
    text(
        tmp_path / "in/VOC2012/Annotations/a.xml",
        xml["a"].replace("<difficult>0", "<difficult>1", 1),
    )
    result = ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert (result.report["counts"], dataset.aside.sum(), len(dataset.boxes)) == ({"ignored": 1}, 1, 3)


def test_one_picture_in_the_folder_of_each_class_has_the_boxes_of_all(tmp_path: Path) -> None:
    scene(tmp_path / "plain")
    for category in ("cat", "dog"):
        for seed, (name, (_, width, height, boxes)) in enumerate(SCENE.items()):
            own = [box for box in boxes if box[0] == category]
            if own:
                picture(tmp_path / f"in/{category}/{name}.png", width, height, seed)
                objects = "".join(
                    f"<object><name>{c}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
                    f"<ymax>{y2}</ymax></bndbox></object>"
                    for c, x1, y1, x2, y2 in own
                )
                text(tmp_path / f"in/{category}/{name}.xml", f"<annotation>{objects}</annotation>")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"duplicate_image": 1}
    assert result.report["annotations_dropped"] == 0
    assert _boxes(tmp_path / "out") == BOXES


@pytest.mark.parametrize("folder", ["SegmentationClass", "annotations/trimaps", "masks", "train_masks"])
def test_masks_beside_the_pictures_are_neither_pictures_nor_unlabelled(folder: str, tmp_path: Path) -> None:
    voc(tmp_path / "in")
    for name, (_, width, height, _) in SCENE.items():
        target = tmp_path / f"in/VOC2012/{folder}/{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (width, height), 1).save(target)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"side_picture": 1}
    assert _found(tmp_path / "out") == TRUTH


def test_splits_of_the_folders_of_xml_alone(tmp_path: Path) -> None:
    xml = _xml(tmp_path / "plain")
    scene(tmp_path / "in")
    for name, (split, *_) in SCENE.items():
        text(tmp_path / f"in/annotations/{split}/{name}.xml", xml[name])
    assert ingest(tmp_path / "in", tmp_path / "out").report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH
