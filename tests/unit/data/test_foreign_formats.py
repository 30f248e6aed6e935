"""The formats of other tools: every box, class and split of the hand-made pictures, what devkits ignore, and what is broken."""

import base64
import io
import json
import re
import zlib
from pathlib import Path

import PIL.Image
import pytest
from foreign import FOREIGN
from hand_made import CLASSES, SCENE, picture, text

from worker.data.dataset import Dataset, open_dataset
from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest

SAID = {"unnamed_classes"}  # the one fault of formats that number their classes or have one


def _rows(dataset: Dataset) -> list[tuple]:
    splits = {image.id: image.split for image in dataset.images}
    columns = zip(
        dataset.annotation_image_ids, dataset.labels, dataset.boxes.tolist(), dataset.iscrowd, strict=True
    )
    return sorted(
        (splits[int(image)], dataset.categories[label], *box)
        for image, label, box, crowd in columns
        if not crowd
    )


def _wanted(names: list[str]) -> list[tuple]:
    called = dict(zip(CLASSES, names, strict=True))
    return sorted(
        (split, called[c], *map(float, box)) for split, _, _, boxes in SCENE.values() for c, *box in boxes
    )


def _ingest(name: str, folder: Path, **changes: object) -> tuple[Ingested, Dataset]:
    """Write the scene in a format, put `changes` (file=content, or a function of the old content) over it, and read it."""
    FOREIGN[name][1](folder / "in")
    for file, change in changes.items():
        path = folder / "in" / file
        old = path.read_text() if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(change(old) if callable(change) else str(change))
    result = ingest(folder / "in", folder / "out")
    return result, open_dataset(folder / "out")


@pytest.mark.parametrize("name", FOREIGN)
def test_boxes_classes_and_splits_are_those_drawn(name: str, tmp_path: Path) -> None:
    result, dataset = _ingest(name, tmp_path)
    format, _, names = FOREIGN[name]
    assert (result.format, result.supervision in ("boxes", "masks")) == (format, True)
    for found, wanted in zip(_rows(dataset), _wanted(names), strict=True):
        assert found[:2] == wanted[:2]
        assert found[2:] == pytest.approx(wanted[2:], abs=0.01)
    assert set(result.report["counts"]) <= SAID


# what is broken: (format, file, its content or how it changes, code in the report, boxes that are left)
BROKEN = [
    ("labelme", "train/a.json", lambda old: old.replace("[[20, 6]", '[["x", 6]'), "invalid_annotation", 2),
    ("labelme", "train/a.json", lambda old: old.replace('"cat"', "null"), "unknown_category", 2),
    ("labelme", "train/a.json", lambda old: old[:-9], "unreadable_file", 1),
    ("labelme", "train/a.json", lambda old: old.replace("rectangle", "point", 1), "invalid_annotation", 2),
    ("via", "train/via_region_data.json", lambda old: old.replace('"x": 4', '"x": "?"'), "invalid_annotation", 2),
    ("via", "train/via_region_data.json", lambda old: old.replace("a.png", "c.png"), "missing_image", 1),
    ("via csv", "train/via.csv", lambda old: old.replace('""cat""', '""""'), "unknown_category", 2),
    ("via csv", "train/via.csv", lambda old: old[: old.rindex("a.png")], "invalid_annotation", 2),
    ("via project of version 3", "via_project.json", lambda old: old.replace('"vid": "b"', '"vid": "z"'), "missing_image", 2),
    ("label studio min", "min.json", lambda old: old.replace('["cat"]', "[{}]"), "unknown_category", 2),
    ("label studio", "project-1-at-2024.json", lambda old: old.replace('"width": 40.0', '"wide": 40.0'), "invalid_annotation", 2),
    ("labelme", "train/a.json", lambda old: old.replace('"cat"', "true"), "unknown_category", 2),
    ("lvis", "lvis_v1_train.json", lambda old: old.replace('"annotations"', '"objects"'), "unreadable_file", 1),
    ("bdd100k", "labels/det_20/det_train.json", lambda old: old.replace('"labels"', '"marks"'), "unlisted_image", 1),
    ("imagefolder", "train/metadata.jsonl", lambda old: old.replace('"category"', '"kind"'), "unknown_category", 1),
    ("dota", "train/labelTxt/a.txt", lambda old: old.replace("cat 0", "cat x"), "invalid_annotation", 2),
    ("createml", "train/_annotations.createml.json", lambda old: old.replace("12.0", "null"), "invalid_annotation", 2),
    ("label studio", "project-1-at-2024.json", lambda old: old.replace('"x": 10.0', '"x": "ten"'), "invalid_annotation", 2),
    ("supervisely", "train/ann/a.png.json", lambda old: old.replace("[4, 6]", "[4]"), "invalid_annotation", 2),
    ("supervisely", "train/ann/c.png.json", '{"size": {"height": 1, "width": 1}, "objects": []}', "label_without_image", 3),
    ("datumaro", "annotations/train.json", lambda old: old.replace('"label_id": 0', '"label_id": 9'), "unknown_category", 2),
    ("datumaro", "annotations/train.json", lambda old: old.replace('"type": "bbox"', '"type": "points"', 1), "invalid_annotation", 2),
    ("bdd100k", "labels/det_20/det_train.json", lambda old: old.replace('"x1": 4', '"x1": null'), "invalid_annotation", 2),
    ("lvis", "lvis_v1_train.json", lambda old: old.replace('"category_id": 5', '"category_id": 99'), "unknown_category", 2),
    ("lvis", "lvis_v1_train.json", lambda old: old.replace('"image_id": 397133', '"image_id": 1', 1), "annotation_without_image", 2),
    ("cvat", "annotations.xml", lambda old: old.replace('xtl="4.00"', 'xtl="four"'), "invalid_annotation", 2),
    ("cvat", "annotations.xml", lambda old: old.replace("</image></annotations>", ""), "unreadable_file", 2),
    ("imagefolder", "train/metadata.jsonl", lambda old: old.replace("[4, 6, 16, 20]", '"x"'), "invalid_annotation", 2),
    ("imagefolder", "train/metadata.jsonl", lambda old: old.replace("[0, 1]", "[0]"), "invalid_annotation", 1),
    ("imagefolder", "train/metadata.jsonl", lambda old: old + "{broken\n", "invalid_annotation", 3),
    ("imagefolder", "README.md", "no front matter", "unnamed_classes", 3),
    ("imagefolder csv", "train/metadata.csv", lambda old: old.replace("bbox", "bbox]"), "invalid_annotation", 1),
    ("kitti", "train/label_2/a.txt", lambda old: old + "cat 0.0 1\n", "invalid_annotation", 3),
    ("kitti", "train/label_2/c.txt", lambda old: "cat 0 0 0 1 1 9 9 1 1 1 1 1 1 1\n", "label_without_image", 3),
    ("visdrone", "VisDrone2019-DET-train/annotations/a.txt", lambda old: old + "1,2,x,9,1,4,0,0\n", "invalid_annotation", 3),
    ("visdrone", "VisDrone2019-DET-train/annotations/a.txt", lambda old: old + "1,2,9,9,1,14,0,0\n", "unknown_category", 3),
    ("dota", "train/labelTxt/a.txt", lambda old: old + "1 2 3 4 5 6 7 ? cat 0\n", "invalid_annotation", 3),
    ("keras-yolo3", "train/_annotations.txt", lambda old: old.replace("4,6,20,26,0", "4,6,x,26,0"), "invalid_annotation", 2),
    ("oidv4", "OID/Dataset/train/Cat/Label/a.txt", lambda old: old + "Cat 1 2 nan 4\n", "invalid_annotation", 3),
    ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt", lambda old: old + "1 x 9 9 0 0 0 0 0 0\n", "invalid_annotation", 3),
    ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt", lambda old: old.replace("/a.png", "/z.png"), "missing_image", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "change", "code", "left"), BROKEN)
def test_what_cannot_be_read_is_counted_and_the_rest_is_kept(
    name: str, file: str, change: object, code: str, left: int, tmp_path: Path
) -> None:
    result, dataset = _ingest(name, tmp_path, **{file: change})
    assert result.report["counts"].get(code, 0) >= 1
    assert len(dataset.boxes) == left


VISDRONE = "VisDrone2019-DET-train/annotations/a.txt"
REGIONS = [
    (
        "kitti",
        "train/label_2/a.txt",
        "DontCare -1 -1 -10 1.0 2.0 9.0 9.0 -1 -1 -1 -1000 -1000 -1000 -10\n",
        2,
    ),
    ("visdrone", VISDRONE, "1,2,8,7,0,0,0,0\n", 10),
    ("visdrone", VISDRONE, "1,2,8,7,0,11,0,0\n", 10),
]


@pytest.mark.parametrize(("name", "file", "line", "classes"), REGIONS)
def test_a_region_that_names_no_class_is_ignored_for_every_class(
    name: str, file: str, line: str, classes: int, tmp_path: Path
) -> None:
    result, dataset = _ingest(name, tmp_path, **{file: lambda old: old + line})
    assert dataset.iscrowd.sum() == classes == len(dataset.categories) == result.report["counts"]["crowd"]
    assert dataset.boxes[dataset.iscrowd].tolist() == [[1.0, 2.0, 9.0, 9.0]] * classes


IGNORED = [
    ("visdrone", VISDRONE, "1,2,8,7,0,1,0,0\n"),
    ("dota", "train/labelTxt/a.txt", "1 2 9 2 9 9 1 9 cat 1\n"),
    ("oidv4", "OID/Dataset/train/Cat/Label/a.txt", "cat 1 2 9 9 difficult\n"),
]


@pytest.mark.parametrize(("name", "file", "line"), IGNORED)
def test_an_object_that_a_devkit_ignores_is_kept_and_counts_neither_way(
    name: str, file: str, line: str, tmp_path: Path
) -> None:
    result, dataset = _ingest(name, tmp_path, **{file: lambda old: old + line})
    assert result.report["counts"]["ignored"] == 1
    assert dataset.ignored is not None
    assert dataset.boxes[dataset.ignored].tolist() == [[1.0, 2.0, 9.0, 9.0]]


def test_invalid_faces_are_ignored_and_a_count_of_zero_is_background(tmp_path: Path) -> None:
    listing = "0--Parade/a.png\n2\n1 2 8 7 0 0 0 1 0 0\n3 4 5 6 0 0 0 0 0 0\n"
    val = "0--Parade/b.png\n0\n0 0 0 0 0 0 0 0 0 0\n"
    files = {
        f"wider_face_split/wider_face_{part}_bbx_gt.txt": text
        for part, text in (("train", listing), ("val", val))
    }
    result, dataset = _ingest("widerface", tmp_path, **files)
    assert dataset.ignored is not None
    assert dataset.boxes[dataset.ignored].tolist() == [[1.0, 2.0, 9.0, 9.0]]
    assert (len(dataset.images), result.summary["images_without_boxes"]) == (2, 1)


ROTATED = [
    ("dota", "train/labelTxt/a.txt", lambda old: old + "15 10 20 15 15 20 10 15 cat 0\n"),
    ("labelme", "train/a.json", lambda old: old.replace('"shapes": [', '"shapes": [{"label": "cat", "shape_type": "rotation", "points": [[15, 10], [20, 15], [15, 20], [10, 15]]}, ')),
    ("cvat", "annotations.xml", lambda old: old.replace('height="30">', 'height="30"><box label="cat" xtl="11.464466" ytl="11.464466" xbr="18.535534" ybr="18.535534" rotation="45"/>')),
    ("label studio", "project-1-at-2024.json", lambda old: old.replace('"result": [', '"result": [{"id": "t", "type": "rectanglelabels", "original_width": 40, "original_height": 30, "value": {"x": 37.5, "y": 33.333333333, "width": 17.677669529, "height": 23.570226039, "rotation": 45, "rectanglelabels": ["cat"]}}, ', 1)),
    ("supervisely", "train/ann/a.png.json", lambda old: old.replace('"objects": [', '"objects": [{"classTitle": "cat", "geometryType": "oriented_bbox", "points": [[11.464466, 11.464466], [18.535534, 18.535534]], "angle": 0.785398163}, ')),
    ("datumaro", "annotations/train.json", lambda old: old.replace('"annotations": [', '"annotations": [{"type": "rotated_bbox", "label_id": 0, "points": [15, 15, 7.0710678, 7.0710678, 45]}, ')),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "change"), ROTATED)
def test_rotated_boxes_become_upright_and_the_report_says_so(
    name: str, file: str, change: object, tmp_path: Path
) -> None:
    result, dataset = _ingest(name, tmp_path, **{file: change})
    assert result.report["counts"] == {"rotated_box": 1}
    assert "upright" in result.report["faults"][0]["reason"]
    assert any(box == pytest.approx([10.0, 10.0, 20.0, 20.0], abs=0.01) for box in dataset.boxes.tolist())


def test_circles_and_polygons_are_the_boxes_around_them(tmp_path: Path) -> None:
    shapes = '"shapes": [{"label": "cat", "shape_type": "circle", "points": [[15, 15], [15, 20]]}, '
    shapes += '{"label": "dog", "shape_type": "polygon", "points": [[1, 2], [9, 2], [5, 8]]}, '
    _, dataset = _ingest(
        "labelme", tmp_path, **{"train/a.json": lambda old: old.replace('"shapes": [', shapes)}
    )
    assert [10.0, 10.0, 20.0, 20.0] in dataset.boxes.tolist()
    assert [1.0, 2.0, 9.0, 8.0] in dataset.boxes.tolist()


def test_via_regions_with_several_attributes_are_asked_about(tmp_path: Path) -> None:
    def two(old: str) -> str:
        return old.replace('"species":', '"colour": "red", "kind":')

    with pytest.raises(Unusable, match=r"'colour', 'kind'.*Rename"):
        _ingest("via", tmp_path, **{f"{part}/via_region_data.json": two for part in ("train", "valid")})


def test_via_regions_without_attributes_are_objects_and_the_report_says_so(tmp_path: Path) -> None:
    def none(old: str) -> str:
        content = json.loads(old)
        for entry in content.values():
            for region in entry["regions"]:
                region["region_attributes"] = {}
        return json.dumps(content)

    changes = {f"{part}/via_region_data.json": none for part in ("train", "valid")}
    result, dataset = _ingest("via", tmp_path, **changes)
    assert (dataset.categories, len(dataset.boxes)) == (("object",), 3)
    assert "called 'object'" in result.report["faults"][0]["reason"]


def test_label_studio_tasks_that_nobody_labelled_are_no_background(tmp_path: Path) -> None:
    def unlabelled(old: str) -> str:
        tasks = json.loads(old)
        tasks[0]["annotations"] = []
        return json.dumps(tasks)

    result, dataset = _ingest("label studio", tmp_path, **{"project-1-at-2024.json": unlabelled})
    assert (len(dataset.images), result.report["counts"]) == (1, {"unlisted_image": 1})


def test_a_file_of_a_format_without_a_picture_is_refused_by_its_name(tmp_path: Path) -> None:
    FOREIGN["kitti"][1](tmp_path / "in")
    for path in (tmp_path / "in").rglob("*.txt"):
        path.write_text("cat 0.00 0 -1.57 1.00\n")
    with pytest.raises(Unusable, match=r"label_2/a\.txt"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_boxes_of_objects_that_cannot_be_sizes_are_corners(tmp_path: Path) -> None:
    def corners(old: str) -> str:
        row = json.loads(old)
        row["objects"]["bbox"] = [[x, y, x + w, y + h] for x, y, w, h in row["objects"]["bbox"]]
        return json.dumps(row)

    changes = {f"{part}/metadata.jsonl": corners for part in ("train", "valid")}
    result, dataset = _ingest("imagefolder", tmp_path, **changes)
    assert _rows(dataset) == _wanted(CLASSES)
    assert "x1, y1, x2, y2" in result.summary["notes"][0]


def test_fractions_that_may_be_anything_are_asked_about(tmp_path: Path) -> None:
    def fractions(old: str) -> str:
        row = json.loads(old)
        row["objects"]["bbox"] = [[0.1, 0.1, 0.15, 0.15] for _ in row["objects"]["bbox"]]
        return json.dumps(row)

    changes = {f"{part}/metadata.jsonl": fractions for part in ("train", "valid")}
    with pytest.raises(Unusable, match="fit several of these: write them in pixels"):
        _ingest("imagefolder", tmp_path, **changes)


def test_lists_of_labelled_pictures_are_the_splits(tmp_path: Path) -> None:
    """KITTI has every labelled picture in one folder, and pictures of the same names elsewhere."""
    lists = {"ImageSets/train.txt": "b\n", "ImageSets/val.txt": "a\n", "ImageSets/trainval.txt": "a\nb\n"}
    result, dataset = _ingest("kitti", tmp_path, **lists)
    assert [(image.width, image.split) for image in dataset.images if image.width == 40] == [(40, "val")]
    assert (result.report["counts"], result.summary["splits"]["train"]["annotations"]) == ({}, 1)


def test_rotated_boxes_of_voc_become_upright(tmp_path: Path) -> None:
    """roLabelImg writes <robndbox>, its angle in radians."""
    turned = "<type>robndbox</type><robndbox><cx>15</cx><cy>15</cy><w>7.0710678</w><h>7.0710678</h><angle>0.7853982</angle></robndbox>"
    xml = f"<annotation><filename>a.png</filename><object><name>cat</name>{turned}</object></annotation>"
    picture(tmp_path / "in/a.png", 40, 30)
    text(tmp_path / "in/a.xml", xml)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"rotated_box": 1}
    assert open_dataset(tmp_path / "out").boxes[0].tolist() == pytest.approx([10, 10, 20, 20], abs=0.01)


def test_labelme_files_in_parallel_folders_are_paired_by_folder(tmp_path: Path) -> None:
    for seed, (camera, x) in enumerate((("cam0", 3), ("cam1", 7))):
        picture(tmp_path / f"in/images/{camera}/0000.png", 40, 30, seed)
        shape = {"label": "cat", "shape_type": "rectangle", "points": [[x, 4], [20, 25]]}
        content = {"shapes": [shape], "imagePath": "0000.png", "imageWidth": 40, "imageHeight": 30}
        text(tmp_path / f"in/labels/{camera}/0000.json", json.dumps(content))
    result = ingest(tmp_path / "in", tmp_path / "out")
    rows = json.loads((tmp_path / "out/annotations.json").read_text())
    sources = {image["id"]: image["source"] for image in rows["images"]}
    found = {sources[row["image_id"]]: row["bbox"][0] for row in rows["annotations"]}
    assert found == {"images/cam0/0000.png": 3.0, "images/cam1/0000.png": 7.0}
    assert result.report["counts"] == {}


def test_metadata_with_a_row_a_box(tmp_path: Path) -> None:
    lines = ""
    for name, (*_, boxes) in SCENE.items():
        picture(tmp_path / f"in/{name}.png", 40 if name == "a" else 32, 30 if name == "a" else 48)
        for c, x1, y1, x2, y2 in boxes:
            row = {"file_name": f"{name}.png", "bbox": [x1, y1, x2 - x1, y2 - y1], "label": c}
            lines += json.dumps(row) + "\n"
    text(tmp_path / "in/metadata.jsonl", lines)
    ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert sorted(dataset.boxes.tolist()) == sorted(
        [*map(float, box)] for *_, boxes in SCENE.values() for _, *box in boxes
    )


def test_names_that_refer_to_themselves_end(tmp_path: Path) -> None:
    """YAML can nest a list in itself a billion times."""
    levels = "".join(f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'x'}]\n" for i in range(30))
    readme = f"---\nbomb:\n{levels}dataset_info:\n  features:\n    objects: *l29\n---\n"
    result, dataset = _ingest("imagefolder", tmp_path, **{"README.md": readme})
    assert (len(dataset.boxes), result.report["counts"]) == (3, {"unnamed_classes": 1})


def _emptied(content: str) -> str:
    """Every number gone: nothing that is left can be a box."""
    return re.sub(r"-?\d+(\.\d+)?", "?", content)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_set_without_one_readable_box_is_refused_with_a_file_of_it(name: str, tmp_path: Path) -> None:
    FOREIGN[name][1](tmp_path / "in")
    labels = [path for path in (tmp_path / "in").rglob("*") if path.is_file() and path.suffix != ".png"]
    for path in labels:
        path.write_text(_emptied(path.read_text()))
    with pytest.raises(Unusable) as refusal:
        ingest(tmp_path / "in", tmp_path / "out")
    assert any(path.name in refusal.value.reason for path in labels)
    assert len(refusal.value.reason) < 700
    assert not (tmp_path / "out").exists()


def test_a_bitmap_of_supervisely_is_its_box(tmp_path: Path) -> None:
    stream = io.BytesIO()
    PIL.Image.new("1", (7, 5), 1).save(stream, "PNG")
    data = base64.b64encode(zlib.compress(stream.getvalue())).decode()
    item = {"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [3, 4]}}

    def with_bitmap(old: str) -> str:
        content = json.loads(old)
        content["objects"] += [item, {**item, "bitmap": {"data": "eJz=", "origin": [0, 0]}}]
        return json.dumps(content)

    result, dataset = _ingest("supervisely", tmp_path, **{"train/ann/a.png.json": with_bitmap})
    assert [3.0, 4.0, 10.0, 9.0] in dataset.boxes.tolist()
    assert result.report["counts"] == {"invalid_annotation": 1}


def test_one_picture_in_the_folders_of_two_classes_has_the_boxes_of_both(tmp_path: Path) -> None:
    for folder, line in (("Cat", "Cat 4 6 20 26"), ("Dog", "Dog 8 2 38 12")):
        picture(tmp_path / f"in/train/{folder}/a.png", 40, 30)
        text(tmp_path / f"in/train/{folder}/Label/a.txt", line + "\n")
    ingest(tmp_path / "in", tmp_path / "out")
    assert sorted(open_dataset(tmp_path / "out").boxes.tolist()) == [[4, 6, 20, 26], [8, 2, 38, 12]]
