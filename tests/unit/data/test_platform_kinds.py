"""What exports of platforms, libraries and benchmarks hold beside plain boxes: it is read, ignored, left out and said."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign import FOREIGN
from hand_made import picture, scene, text
from platforms import labelbox_row
from test_coco_kinds import BOXES, _boxes

from worker.data.dataset import open_dataset
from worker.data.ingest import Ingested, ingest

SQUARE = [(4, 6), (20, 6), (20, 26), (4, 26)]
SQUARE_BOX = ("a", "cat", 4, 6, 20, 26)


def _read(folder: Path) -> Ingested:
    return ingest(folder / "in", folder / "out")


def _one(folder: Path, file: str, content: object) -> dict[str, int]:
    """The counts of the report on one picture, a.png, and one file of labels."""
    picture(folder / "in/a.png", 40, 30)
    text(folder / "in" / file, content if isinstance(content, str) else json.dumps(content))
    return _read(folder).report["counts"]


def _changed(row: dict, change: Callable[[dict], object]) -> dict:
    change(row["projects"]["p"]["labels"][0])
    return row


def test_labelbox_polygons_are_read_and_points_are_said(tmp_path: Path) -> None:
    def change(label: dict) -> None:
        objects = label["annotations"]["objects"]
        objects[0] |= {"bounding_box": None, "polygon": [{"x": x, "y": y} for x, y in SQUARE]}
        del objects[1]["bounding_box"]
        objects[1] |= {"annotation_kind": "ImagePoint", "point": {"x": 1, "y": 2}}

    counts = _one(tmp_path, "x.ndjson", _changed(labelbox_row("a"), change))
    assert counts == {"invalid_annotation": 1}
    assert _boxes(tmp_path / "out") == {SQUARE_BOX}
    assert open_dataset(tmp_path / "out").annotation_image_ids.size == 1


def test_labelbox_pictures_that_were_labelled_twice_are_said(tmp_path: Path) -> None:
    scene(tmp_path / "in", lambda split, name: f"{name}.png")
    rows = [labelbox_row(name) for name in ("a", "b")]
    rows[0]["projects"]["q"] = {"labels": rows[1]["projects"]["p"]["labels"]}
    text(tmp_path / "in/x.json", json.dumps(rows))
    assert _read(tmp_path).report["counts"] == {"extra_columns": 1}
    assert _boxes(tmp_path / "out") == BOXES


def test_labelbox_pictures_that_nobody_labelled_have_no_answer(tmp_path: Path) -> None:
    scene(tmp_path / "in", lambda split, name: f"{name}.png")
    skipped = _changed(labelbox_row("b"), lambda label: label.update(performance_details={"skipped": True}))
    text(tmp_path / "in/x.ndjson", f"{json.dumps(labelbox_row('a'))}\n{json.dumps(skipped)}\n")
    assert _read(tmp_path).report["counts"] == {"unlisted_image": 1}
    assert _boxes(tmp_path / "out") == {row for row in BOXES if row[0] == "a"}


def test_outlines_and_turned_boxes_of_ultralytics(tmp_path: Path) -> None:
    square = [value for x, y in SQUARE for value in (x / 40, y / 30)]
    lines = [
        {"type": "dataset", "task": "obb", "class_names": {"0": "cat"}},
        {
            "type": "image",
            "file": "a.png",
            "annotations": {"segments": [[0, *square]], "obb": [[0, *square]]},
        },
    ]
    counts = _one(tmp_path, "x.ndjson", "\n".join(map(json.dumps, lines)))
    assert counts == {"rotated_box": 1, "duplicate_annotation": 1}
    assert _boxes(tmp_path / "out") == {SQUARE_BOX}


def test_a_class_that_ultralytics_does_not_name(tmp_path: Path) -> None:
    lines = [
        {"type": "dataset", "task": "detect", "class_names": {"0": "cat"}},
        {
            "type": "image",
            "file": "a.png",
            "annotations": {"boxes": [[3, 0.5, 0.5, 0.1, 0.1], [0, 0.3, 0.5, 0.2, 0.4]]},
        },
    ]
    assert _one(tmp_path, "x.ndjson", "\n".join(map(json.dumps, lines))) == {"unknown_category": 1}
    assert _boxes(tmp_path / "out") == {("a", "cat", 8, 9, 16, 21)}


def test_darwin_tags_are_said_and_lines_have_no_box(tmp_path: Path) -> None:
    path = [{"x": x, "y": y} for x, y in SQUARE]
    annotations = [
        {"name": "cat", "polygon": {"paths": [path]}, "bounding_box": {"x": 4, "y": 6, "w": 16, "h": 20}},
        {"name": "night", "tag": {}},
        {"name": "cat", "line": {"path": path}},
    ]
    content = {"item": {"name": "a.png", "slots": [{"width": 40, "height": 30}]}, "annotations": annotations}
    assert _one(tmp_path, "a.json", content) == {"other_task": 1, "invalid_annotation": 1}
    assert _boxes(tmp_path / "out") == {SQUARE_BOX}
    (row,) = json.loads((tmp_path / "out/annotations.json").read_text())["annotations"]
    assert row["segmentation"] == [[4, 6, 20, 6, 20, 26, 4, 26]]


SHAPES = {
    "polygon": ({"points": [value for point in SQUARE for value in point]}, {}),
    "ellipse": ({"cx": 12, "cy": 16, "rx": 8, "ry": 10, "angle": 180}, {}),
    "ellipse on its side": ({"cx": 12, "cy": 16, "rx": 10, "ry": 8, "angle": 90}, {}),
    "rbbox": (
        {
            "points": {
                f"{axis}{n}": v for n, p in enumerate(SQUARE, 1) for axis, v in zip("xy", p, strict=True)
            }
        },
        {},
    ),
    "rbbox on its corner": (
        {
            "points": {
                f"{axis}{n}": v
                for n, p in enumerate([(12, 6), (20, 16), (12, 26), (4, 16)], 1)
                for axis, v in zip("xy", p, strict=True)
            }
        },
        {"rotated_box": 1},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_superannotate(name: str, tmp_path: Path) -> None:
    shape, said = SHAPES[name]
    instances = [
        {"type": name.split()[0], "className": "cat", **shape},
        {"type": "point", "className": "cat", "x": 1, "y": 2},
    ]
    content = {"metadata": {"name": "a.png"}, "instances": instances}
    assert _one(tmp_path, "a.json", content) == {"invalid_annotation": 1, **said}
    assert _boxes(tmp_path / "out") == {SQUARE_BOX}


def test_modes_of_detectron2(tmp_path: Path) -> None:
    rows = [
        {"bbox": [12, 16, 20, 16, 90.0], "bbox_mode": 4, "category_id": 0},
        {"bbox": [22, 6, 30, 26], "bbox_mode": "BoxMode.XYXY_ABS", "category_id": 0},
        {"bbox": [0.1, 0.1, 0.2, 0.2], "bbox_mode": 3, "category_id": 0},
    ]
    counts = _one(tmp_path, "x.json", [{"file_name": "a.png", "annotations": rows}])
    assert counts == {"rotated_box": 1, "unnamed_classes": 1, "invalid_annotation": 1}
    assert _boxes(tmp_path / "out") == {("a", "0", 4, 6, 20, 26), ("a", "0", 22, 6, 30, 26)}


def test_what_mmdetection_ignores_counts_neither_way(tmp_path: Path) -> None:
    rows = [
        {"bbox": [4, 6, 20, 26], "bbox_label": 0, "ignore_flag": 0},
        {"bbox": [22, 6, 30, 26], "bbox_label": 0, "ignore_flag": 1},
    ]
    content = {"metainfo": {"classes": ["cat"]}, "data_list": [{"img_path": "a.png", "instances": rows}]}
    assert _one(tmp_path, "x.json", content) == {"ignored": 1}
    assert open_dataset(tmp_path / "out").aside.tolist() == [False, True]


def test_regions_that_mmdetection_2_ignores_are_crowds(tmp_path: Path) -> None:
    ann = {"bboxes": [[4, 6, 20, 26]], "labels": [0], "bboxes_ignore": [[22, 6, 30, 26]]}
    assert _one(tmp_path, "x.json", [{"filename": "a.png", "ann": ann}]) == {"unnamed_classes": 1, "crowd": 1}
    assert open_dataset(tmp_path / "out").iscrowd.tolist() == [False, True]


def test_crowds_of_crowdhuman(tmp_path: Path) -> None:
    rows = [
        {"tag": "person", "hbox": [9, 9, 2, 2], "vbox": [4, 6, 8, 8], "fbox": [4, 6, 16, 20]},
        {"tag": "person", "fbox": [22, 6, 8, 20], "extra": {"ignore": 1}},
        {"tag": "mask", "fbox": [30, 0, 10, 10], "extra": {"ignore": 1}},
    ]
    content = json.dumps({"ID": "273,a", "gtboxes": rows})
    picture(tmp_path / "in/273,a.jpg", 40, 30)
    text(tmp_path / "in/annotation_train.odgt", content + "\n")
    assert _read(tmp_path).report["counts"] == {"extra_columns": 1, "ignored": 1, "crowd": 1}
    dataset = open_dataset(tmp_path / "out")
    assert dataset.boxes.tolist() == [[4, 6, 20, 26], [22, 6, 30, 26], [30, 0, 40, 10]]
    assert dataset.aside.tolist() == [False, True, True]
    assert dataset.iscrowd.tolist() == [False, False, True]
    assert list(dataset.categories) == ["person"]


def _mot(folder: Path, rows: str, frames: tuple[int, ...] = (1, 2)) -> Ingested:
    for frame in frames:
        picture(folder / f"in/MOT17-02/img1/{frame:06d}.jpg", 40, 30, frame)
    text(folder / "in/MOT17-02/gt/gt.txt", rows)
    return _read(folder)


def test_what_the_mot_challenge_does_not_count(tmp_path: Path) -> None:
    rows = (
        "1,1,5,7,16,20,1,1,0.9\n"  # a pedestrian
        "1,2,23,7,8,20,0,1,0\n"  # one that is not counted
        "1,3,23,7,8,20,0,8,0.5\n"  # a distractor
        "1,4,23,7,8,20,0,3,0.5\n"  # a car
        "2,1,6,7,16,20,1,1,0.9\n"
    )
    text(tmp_path / "in/MOT17-02/det/det.txt", "1,-1,3,3,9,9,0.4,-1,-1,-1\n")
    said = {"other_task": 2, "unnamed_classes": 1, "ignored": 1, "crowd": 1}
    assert _mot(tmp_path, rows).report["counts"] == said
    dataset = open_dataset(tmp_path / "out")
    assert list(dataset.categories) == ["pedestrian"]
    assert dataset.boxes[~dataset.aside].tolist() == [[4, 6, 20, 26], [5, 6, 21, 26]]
    assert dataset.boxes[dataset.aside].tolist() == [[22, 6, 30, 26]] * 2
    assert sorted(dataset.iscrowd.tolist()) == [False, False, False, True]


def test_frames_of_a_part_of_a_sequence_and_frames_without_a_picture(tmp_path: Path) -> None:
    report = _mot(tmp_path, "301,1,5,7,16,20,1,1,1\n299,1,5,7,16,20,1,1,1\n", (301, 302)).report
    assert report["counts"] == {"missing_image": 1, "unnamed_classes": 1}
    assert _boxes(tmp_path / "out") == {("000301", "pedestrian", 4, 6, 20, 26)}
    assert len(open_dataset(tmp_path / "out").images) == 2


@pytest.mark.parametrize("split", ["", "train/"])
def test_frames_of_one_sequence_on_both_sides_of_a_split_are_warned_of(split: str, tmp_path: Path) -> None:
    picture(tmp_path / f"in/{split}A/img1/000001.jpg", 40, 30)
    text(tmp_path / f"in/{split}A/gt/gt.txt", "1,1,5,7,16,20,1,1,1\n")
    notes = " ".join(_read(tmp_path).summary["notes"])
    assert ("hold whole ones out" in notes) == (not split)


def test_a_place_in_the_world_is_no_class(tmp_path: Path) -> None:
    """MOT15 has ten columns, and no classes."""
    _mot(tmp_path, "1,1,5,7,16,20,1,3.5,2,0\n2,1,5,7,16,20,1,-1,-1,-1\n")
    assert _boxes(tmp_path / "out") == {(f"00000{n}", "pedestrian", 4, 6, 20, 26) for n in (1, 2)}


def test_a_class_between_two_is_none_of_them(tmp_path: Path) -> None:
    report = _mot(tmp_path, "1,1,5,7,16,20,1,0.5,1\n2,1,5,7,16,20,1,1,1\n").report
    assert report["counts"]["unknown_category"] == 1
    assert _boxes(tmp_path / "out") == {("000002", "pedestrian", 4, 6, 20, 26)}


@pytest.mark.parametrize(
    ("name", "file", "change", "code"),
    [
        ("labelbox", "export.ndjson", ('"left": 4', '"left": "x"'), "invalid_annotation"),
        ("ultralytics ndjson", "animals.ndjson", ('"a.png"', '"z.png"'), "missing_image"),
        ("ultralytics ndjson", "animals.ndjson", ("[[0, ", "[[NaN, "), "unknown_category"),
        ("ultralytics ndjson", "animals.ndjson", ("[[0, ", "[[0.5, "), "unknown_category"),
        ("darwin", "train/a.json", ('"w": 16', '"w": null'), "invalid_annotation"),
        ("superannotate", "train/a.json", ('"x1": 4', '"x1": "?"'), "invalid_annotation"),
        ("superannotate", "train/a.json", ('"classId": 40', '"classId": -1'), "unknown_category"),
        ("detectron2", "train/dicts.json", ('"bbox_mode": 0', '"bbox_mode": 9'), "invalid_annotation"),
        ("mmdetection", "train/annotations.json", ('"bbox_label": 0', '"bbox_label": 7'), "unknown_category"),
        ("mmdetection 2", "train/middle.json", ("[4, 6, 20, 26]", "[4, 6]"), "invalid_annotation"),
        ("odgt", "annotation_train.odgt", ("[4, 6, 16, 20]", '"?"'), "invalid_annotation"),
        ("mot of cvat", "train/SEQ-a/gt/gt.txt", ("16,20,1,1,", "16,20,1,5,"), "unknown_category"),
    ],
)
def test_one_box_that_is_broken_leaves_and_is_said(
    name: str, file: str, change: tuple[str, str], code: str, tmp_path: Path
) -> None:
    FOREIGN[name][1](tmp_path / "in")
    path = tmp_path / "in" / file
    old = path.read_text()
    assert change[0] in old
    path.write_text(old.replace(change[0], change[1], 1))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"].get(code) == 1
    wanted = 1 if code == "missing_image" else 2
    assert len(open_dataset(tmp_path / "out").boxes) == wanted


def _cvat_xml(marks: str) -> str:
    box = f'<box label="cat" xtl="4" ytl="6" xbr="20" ybr="26">{marks}</box>'
    return f'<annotations><version>1.1</version><image id="0" name="a.png" width="40" height="30">{box}</image></annotations>'


def _coco_json(**marks: object) -> str:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 6, 16, 20], "iscrowd": 0, **marks}
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
            "annotations": [row],
            "categories": [{"id": 1, "name": "cat"}],
        }
    )


def _labelme_json(**marks: object) -> str:
    shape = {"label": "cat", "points": [[4, 6], [20, 26]], "shape_type": "rectangle", **marks}
    return json.dumps(
        {"version": "5.2.1", "shapes": [shape], "imagePath": "a.png", "imageHeight": 30, "imageWidth": 40}
    )


def _datumaro_json(**marks: object) -> str:
    row = {"type": "bbox", "label_id": 0, "bbox": [4, 6, 16, 20], **marks}
    item = {"id": "a", "annotations": [row], "image": {"path": "a.png", "size": [30, 40]}}
    return json.dumps({"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [item]})


MARKED = {
    "coco": ("x.json", _coco_json(difficult=1), _coco_json(difficult=0)),
    "coco of datumaro": (
        "x.json",
        _coco_json(attributes={"difficult": True}),
        _coco_json(attributes={"difficult": False, "occluded": True}),
    ),
    "labelme of x-anylabeling": ("a.json", _labelme_json(difficult=True), _labelme_json(difficult=False)),
    "labelme's flags": (
        "a.json",
        _labelme_json(flags={"difficult": True}),
        _labelme_json(flags={"blurred": True}),
    ),
    "datumaro": (
        "x.json",
        _datumaro_json(attributes={"difficult": True}),
        _datumaro_json(attributes={"difficult": False}),
    ),
    "cvat": (
        "x.xml",
        _cvat_xml('<attribute name="difficult">true</attribute>'),
        _cvat_xml('<attribute name="difficult">false</attribute>'),
    ),
}


@pytest.mark.parametrize("is_marked", [True, False])
@pytest.mark.parametrize("name", MARKED)
def test_difficult_objects_of_any_format_count_neither_way(
    name: str, is_marked: bool, tmp_path: Path
) -> None:
    file, marked, plain = MARKED[name]
    assert _one(tmp_path, file, marked if is_marked else plain) == ({"ignored": 1} if is_marked else {})
    assert open_dataset(tmp_path / "out").aside.tolist() == [is_marked]
