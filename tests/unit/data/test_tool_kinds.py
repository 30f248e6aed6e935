"""Exports of labelling tools as people have them: turned boxes, several pictures a task, other orders, two versions of one set."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hand_made import SCENE, _voc_xml, coco_content, picture, scene, text
from test_coco_kinds import BOXES, _boxes
from test_silent_misreadings import MANY

from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest

PICTURES = {"a": "img1", "b": "img2"}


def _read(folder: Path) -> Ingested:
    return ingest(folder / "in", folder / "out")


def test_a_turned_box_of_cvat_in_voc_becomes_upright(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 40, 30)
    turn = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes></object>"
    xml = _voc_xml("a").replace("</object>", turn.format("0.0"), 1)
    xml = "</object>".join(
        [*xml.split("</object>")[:-2], xml.split("</object>")[-2] + turn.format("90.0") + "</annotation>"]
    )
    text(tmp_path / "in/a.xml", xml)
    assert _read(tmp_path).report["counts"] == {"rotated_box": 1, "box_clipped": 1}
    assert _boxes(tmp_path / "out") == {("a", "cat", 4, 6, 20, 26), ("a", "dog", 18, 0, 28, 22)}


def test_several_boxes_of_one_voc_object_are_several_objects(tmp_path: Path) -> None:
    scene(tmp_path / "in", lambda split, name: f"{name}.png")
    for name in SCENE:
        xml = _voc_xml(name)
        first, _, rest = xml.partition("<object>")
        text(tmp_path / f"in/{name}.xml", first + "<object>" + rest.replace("</object><object>", ""))
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


def test_a_turned_box_of_cvat_in_datumaro_becomes_upright(tmp_path: Path) -> None:
    picture(tmp_path / "in/images/default/a.png", 40, 30)
    row = {"type": "bbox", "label_id": 0, "bbox": [10, 5, 12, 8], "attributes": {"rotation": 90.0}}
    content = {
        "categories": {"label": {"labels": [{"name": "cat"}]}},
        "items": [{"id": "a", "annotations": [row], "image": {"path": "a.png", "size": [30, 40]}}],
    }
    text(tmp_path / "in/annotations/default.json", json.dumps(content))
    assert _read(tmp_path).report["counts"] == {"rotated_box": 1}
    assert _boxes(tmp_path / "out") == {("a", "cat", 12, 3, 20, 15)}


def _cvat(folder: Path, shape: str, more: str = "") -> None:
    scene(folder / "in")
    images = "".join(
        f'<image id="1" name="{name}.png" width="{width}" height="{height}">{more}'
        + "".join(shape.format(c=c, x1=x1, y1=y1, x2=x2, y2=y2) for c, x1, y1, x2, y2 in boxes)
        + "</image>"
        for name, (_, width, height, boxes) in SCENE.items()
    )
    text(folder / "in/annotations.xml", f"<annotations><version>1.1</version>{images}</annotations>")


def test_tags_of_whole_pictures_are_said(tmp_path: Path) -> None:
    _cvat(tmp_path, '<box label="{c}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>', '<tag label="day"/>')
    assert _read(tmp_path).report["counts"] == {"other_task": 1}
    assert _boxes(tmp_path / "out") == BOXES


def test_attributes_that_tell_the_boxes_of_one_label_apart_are_said(tmp_path: Path) -> None:
    kind = '<attribute name="kind">{c}</attribute>'
    _cvat(tmp_path, f'<box label="animal" xtl="{{x1}}" ytl="{{y1}}" xbr="{{x2}}" ybr="{{y2}}">{kind}</box>')
    report = _read(tmp_path).report
    assert report["counts"] == {"extra_columns": 1}
    assert "'animal': the attributes kind are not read" in report["faults"][0]["reason"]


def _task(keys: dict[str, str]) -> dict:
    """One Label Studio task of both pictures; `keys` are what the data calls them."""
    results = [
        {
            "id": f"{name}{x1}",
            "type": "rectanglelabels",
            "to_name": PICTURES[name],
            "original_width": width,
            "original_height": height,
            "value": {
                "x": x1 / width * 100,
                "y": y1 / height * 100,
                "width": (x2 - x1) / width * 100,
                "height": (y2 - y1) / height * 100,
                "rectanglelabels": [c],
            },
        }
        for name, (_, width, height, boxes) in SCENE.items()
        for c, x1, y1, x2, y2 in boxes
    ]
    data = {keys[name]: f"/data/upload/1/{name}.png" for name in SCENE}
    return {"id": 3, "data": data, "annotations": [{"result": results}]}


def test_several_pictures_of_a_task(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/project.json", json.dumps([_task(PICTURES)]))
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


def test_several_pictures_of_a_task_that_nothing_tells_apart(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/project.json", json.dumps([_task({"a": "left", "b": "right"})]))
    with pytest.raises(Unusable, match=r"the results are about img1, img2, and the task has .* left, right"):
        _read(tmp_path)


def test_further_labels_of_a_region_are_said(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    task = _task(PICTURES)
    task["annotations"][0]["result"][0]["value"]["rectanglelabels"].append("blurred")
    text(tmp_path / "in/project.json", json.dumps([task]))
    assert _read(tmp_path).report["counts"] == {"extra_columns": 1}
    assert _boxes(tmp_path / "out") == BOXES


ORDERS: dict[str, Callable] = {
    "centre": lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
    "corner": lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
    "fractions": lambda x1, y1, x2, y2: ((x1 + x2) / 80, (y1 + y2) / 60, (x2 - x1) / 40, (y2 - y1) / 30),
}


@pytest.mark.parametrize("order", ORDERS)
def test_createml_of_other_programs(order: str, tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 40, 30)
    rows = [
        {
            "label": c,
            "coordinates": dict(zip(("x", "y", "width", "height"), ORDERS[order](*box), strict=True)),
        }
        for c, *box in MANY
    ]
    text(tmp_path / "in/a.json", json.dumps([{"image": "a.png", "annotations": rows}]))
    assert _read(tmp_path).report["counts"] == ({} if order == "centre" else {"box_order": 1})
    assert _boxes(tmp_path / "out") == {("a", *row) for row in MANY}


def test_classes_with_blanks_in_kitti(tmp_path: Path) -> None:
    picture(tmp_path / "in/image_2/a.png", 40, 30)
    lines = "big cat 0 0 0 4 6 20 26 0 0 0 0 0 0 0\ndog 0 0 0 8 2 38 12 0 0 0 0 0 0 0\n"
    text(tmp_path / "in/label_2/a.txt", lines)
    assert _read(tmp_path).report["counts"] == {}
    assert _boxes(tmp_path / "out") == {("a", "big cat", 4, 6, 20, 26), ("a", "dog", 8, 2, 38, 12)}


def _moved(folder: Path, two: bool) -> None:
    content = coco_content(["a", "b"])
    text(folder / "all.json", json.dumps(content))
    for row in content["annotations"]:
        row["bbox"][0] += 1
    if two:
        text(folder / "all_v2.json", json.dumps(content))


def _moved_voc(folder: Path, two: bool) -> None:
    for name in SCENE:
        text(folder / f"ann/{name}.xml", _voc_xml(name))
        if two:
            text(folder / f"ann_old/{name}.xml", _voc_xml(name, shift=2))


@pytest.mark.parametrize("write", [_moved, _moved_voc])
@pytest.mark.parametrize("two", [True, False])
def test_two_versions_of_the_labels_are_said(write: Callable, two: bool, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    write(tmp_path / "in", two)
    assert _read(tmp_path).report["counts"] == ({"several_versions": 1} if two else {})
