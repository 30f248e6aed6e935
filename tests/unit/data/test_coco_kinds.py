"""COCO files as people have them: every kind gives the boxes of the plain set, or says what was not read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hand_made import SCENE, coco_content, picture, scene, text
from test_yolo_kinds import TRUTH, _found

from worker.data.dataset import open_dataset
from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest

BOXES = {(name, *box) for name, (_, _, _, boxes) in SCENE.items() for box in boxes}


def _read(folder: Path, content: dict | None = None) -> Ingested:
    if content is not None:
        text(folder / "in/all.json", json.dumps(content))
    return ingest(folder / "in", folder / "out")


def _boxes(out: Path) -> set[tuple]:
    """(stem of the picture, class, x1, y1, x2, y2)"""
    content = json.loads((out / "annotations.json").read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    sources = {row["id"]: Path(row["source"]).stem for row in content["images"]}
    return {
        (sources[row["image_id"]], names[row["category_id"]], x, y, x + w, y + h)
        for row in content["annotations"]
        for x, y, w, h in [map(round, row["bbox"])]
    }


@pytest.mark.parametrize("of_image", [lambda i: float(i), str, lambda i: f"{i:06}", lambda i: i])
@pytest.mark.parametrize("of_row", [lambda i: float(i), str, lambda i: f"{i:06}"])
def test_one_id_written_in_several_ways(of_image: Callable, of_row: Callable, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["images"]:
        row["id"] = of_image(row["id"])
    for row in content["annotations"]:
        row["image_id"], row["category_id"] = of_row(row["image_id"]), of_row(row["category_id"])
    assert _read(tmp_path, content).report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


def test_ids_that_are_file_names(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    names = {row["id"]: row["file_name"] for row in content["images"]}
    for row in content["annotations"]:
        row["image_id"] = names[row["image_id"]]
    assert _read(tmp_path, content).report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


def test_an_id_that_is_given_twice_is_said(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    content["images"][1]["id"] = "7"
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] == 7]
    assert _read(tmp_path, content).report["counts"] == {"repeated_id": 1, "unlisted_image": 1}


@pytest.mark.parametrize(
    "written",
    [
        "/home/me/pets/images/{}.png",
        "../images/{}.png",
        "file:///data/images/{}.png",
        "https://bucket.example/x/images/{}.png?token=1",
        "s3://bucket/pets/{}.png",
        "/data/local-files/?d=pets/images/{}.png",
        "/data/upload/3/1a2b3c4d-{}.png",
        "C:\\pets\\images\\{}.png",
        "{}.JPEG",
        "{}",
        "images%2F{}.png",
    ],
)
def test_names_of_other_places(written: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    assert _read(tmp_path, coco_content(["a", "b"], written.format)).report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


@pytest.mark.parametrize("written", ["my%20{}%20%26%20co.png", "my {} &amp; co.png", "my+{}+%26+co.png"])
def test_escaped_names(written: str, tmp_path: Path) -> None:
    scene(tmp_path / "in", lambda split, name: f"images/my {name} & co.png")
    assert _read(tmp_path, coco_content(["a", "b"], written.format)).report["counts"] == {}
    assert {row[0] for row in _boxes(tmp_path / "out")} == {"my a & co", "my b & co"}


def test_escaped_files(tmp_path: Path) -> None:
    scene(tmp_path / "in", lambda split, name: f"images/my%20{name}.png")
    assert _read(tmp_path, coco_content(["a", "b"], "my {}.png".format)).report["counts"] == {}


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    scene(tmp_path / "in", lambda split, name: f"pets/{name}/0001.png")
    assert _read(tmp_path, coco_content(["a", "b"], "/elsewhere/{}/0001.png".format)).report["counts"] == {}
    sizes = {row[1:] for row in _boxes(tmp_path / "out")}
    assert sizes == {row[1:] for row in BOXES}


def test_two_names_for_one_picture_go_to_none(tmp_path: Path) -> None:
    picture(tmp_path / "in/0001.png", 40, 30)
    picture(tmp_path / "in/0002.png", 40, 30, 1)
    content = coco_content(["a", "b"], "{}/0001.png".format)
    content["images"].append({"id": 1, "file_name": "0002.png", "width": 40, "height": 30})
    content["annotations"].append({"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]})
    assert _read(tmp_path, content).report["counts"] == {"missing_image": 2, "unlisted_image": 1}


def test_a_name_of_another_split_is_not_found_there(tmp_path: Path) -> None:
    picture(tmp_path / "in/train/x.png", 40, 30)
    picture(tmp_path / "in/val/a.png", 40, 30, 1)
    content = coco_content(["a"], lambda name: f"train/{name}.png")
    content["images"].append({"id": 1, "file_name": "train/x.png", "width": 40, "height": 30})
    content["annotations"].append({"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]})
    assert _read(tmp_path, content).report["counts"] == {"missing_image": 1, "unlisted_image": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "gbk", "latin-1"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    word = "b\u00e4r" if encoding == "latin-1" else "\u56fe\u7247"
    scene(tmp_path / "in", lambda split, name: f"images/{word}{name}.png")
    content = coco_content(["a", "b"], lambda name: f"{word}{name}.png")
    (tmp_path / "in/all.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert _read(tmp_path).report["counts"] == {}
    assert {row[0] for row in _boxes(tmp_path / "out")} == {f"{word}a", f"{word}b"}


@pytest.mark.parametrize("bbox", [None, []])
def test_the_box_of_run_lengths(bbox: list | None, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    heights = {7: 30, 8: 48}
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        height, width = heights[row["image_id"]], {7: 40, 8: 32}[row["image_id"]]
        runs = [x * height + y, h, *([height - h, h] * (w - 1))]
        runs.append(height * width - sum(runs))
        row.update(bbox=bbox, segmentation={"size": [height, width], "counts": runs})
    result = _read(tmp_path, content)
    assert (result.report["counts"], result.supervision) == ({}, "masks")
    assert _boxes(tmp_path / "out") == BOXES


def test_a_declared_size_that_is_wrong(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["images"]:
        row.update(width=2 * row["width"], height=2 * row["height"])
    result = _read(tmp_path, content)
    assert result.report["counts"] == {"size_mismatch": 2}
    assert "taken as they are" in result.report["faults"][0]["reason"]
    assert _boxes(tmp_path / "out") == BOXES


def test_pictures_that_were_made_larger_take_their_boxes_along(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["images"]:
        row.update(width=row["width"] // 2, height=row["height"] // 2)
    for row in content["annotations"]:
        row["bbox"] = [side / 2 for side in row["bbox"]]
    assert _read(tmp_path, content).report["counts"] == {"size_mismatch": 2}
    assert _boxes(tmp_path / "out") == BOXES


@pytest.mark.parametrize("whole", ["annotations.json", "all.json", "instances_trainval.json"])
def test_the_whole_set_beside_its_splits_adds_nothing(whole: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in" / whole, json.dumps(coco_content(["a", "b"])))
    text(tmp_path / "in/instances_train.json", json.dumps(coco_content(["a"])))
    text(tmp_path / "in/instances_val.json", json.dumps(coco_content(["b"])))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"repeated_labels": 1}
    assert _found(tmp_path / "out") == TRUTH


def test_one_file_for_each_class_is_united(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    for category in ("cat", "dog"):
        content = coco_content(["a", "b"])
        kept = {row["id"] for row in content["categories"] if row["name"] == category}
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] in kept]
        text(tmp_path / f"in/{category}.json", json.dumps(content))
    assert ingest(tmp_path / "in", tmp_path / "out").report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


def test_pictures_of_a_file_without_annotations_are_no_background(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/instances_train.json", json.dumps(coco_content(["a"])))
    bare = coco_content(["b"])
    del bare["annotations"]
    text(tmp_path / "in/image_info_test.json", json.dumps(bare))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.report["counts"], result.summary["images"]) == ({"unlisted_image": 1}, 1)


def test_what_is_to_be_ignored_is_kept_and_set_aside(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    content["annotations"][0]["ignore"] = 1
    result = _read(tmp_path, content)
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.aside.sum(), dataset.iscrowd.sum(), len(dataset.boxes)) == (1, 0, 3)
    assert (result.summary["annotations"], result.summary["ignored"]) == (2, 1)
    assert result.report["counts"] == {"ignored": 1}
    again = ingest(tmp_path / "out", tmp_path / "again")
    assert again.digest == result.digest


def test_a_file_means_the_pictures_beside_it(tmp_path: Path) -> None:
    for seed, category in enumerate(("cat", "dog")):
        picture(tmp_path / f"in/{category}/photos/0001.png", 40, 30, seed)
        content = coco_content(["a"], lambda name: "0001.png")
        kept = [row["id"] for row in content["categories"] if row["name"] == category]
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] in kept]
        text(tmp_path / f"in/{category}/labels.json", json.dumps(content))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.report["counts"], result.summary["images"]) == ({}, 2)
    assert {row[1:] for row in _boxes(tmp_path / "out")} == {row[1:] for row in BOXES if row[0] == "a"}


def test_a_broken_file_is_the_first_thing_that_is_said(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/all.json", json.dumps(coco_content(["a", "b"]))[:-30])
    with pytest.raises(Unusable, match=r"^all.json: not valid JSON"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_fractions_as_azure_writes_them_are_read_so_and_said(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    sizes = {row["id"]: (row.pop("width"), row.pop("height")) for row in content["images"]}
    for row in content["annotations"]:
        row["bbox"] = [side / sizes[row["image_id"]][place % 2] for place, side in enumerate(row["bbox"])]
    assert _read(tmp_path, content).report["counts"] == {"box_order": 1}
    assert _boxes(tmp_path / "out") == BOXES


@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda box: ", ".join(map(str, box)),
        lambda box: dict(zip(("x", "y", "width", "height"), box, strict=True)),
    ],
)
def test_boxes_that_are_texts_or_objects(written: Callable, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["annotations"]:
        row["bbox"] = written(row["bbox"])
    assert _read(tmp_path, content).report["counts"] == {}
    assert _boxes(tmp_path / "out") == BOXES


def test_annotations_that_count_categories_from_0_and_the_list_from_1(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["annotations"]:
        row["category_id"] -= 1
    assert _read(tmp_path, content).report["counts"] == {"renumbered_classes": 1}
    assert _boxes(tmp_path / "out") == BOXES


def test_an_id_of_two_categories_is_a_refusal(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    content["categories"].append({"id": 1, "name": "horse"})
    with pytest.raises(Unusable, match="the categories 'cat' and 'horse' have the same id, 1"):
        _read(tmp_path, content)


def test_boxes_that_cvat_turned_become_upright(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 40, 30)
    content = coco_content(["a"])
    for row in content["annotations"]:
        row["attributes"] = {"occluded": False, "rotation": 0.0}
    content["annotations"][0].update(bbox=[10, 5, 12, 8], attributes={"rotation": 90.0})
    assert _read(tmp_path, content).report["counts"] == {"rotated_box": 1}
    assert _boxes(tmp_path / "out") == {("a", "cat", 12, 3, 20, 15), ("a", "dog", 8, 2, 38, 12)}
