"""Every reader turns the same two pictures into the same canonical rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from hand_made import BOXED, SCENE, coco, coco_content, mnist, picture, scene, text, voc, yolo

from worker.data.dataset import open_dataset
from worker.data.faults import Report, Unusable
from worker.data.formats import READERS
from worker.data.ingest import ingest
from worker.data.tree import walk


def rows_of(out: Path) -> dict:
    content = json.loads((out / "annotations.json").read_text())
    images = [
        {key: row[key] for key in ("id", "width", "height", "split", "sha256")} for row in content["images"]
    ]
    return {"images": images, "annotations": content["annotations"], "categories": content["categories"]}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    folder = tmp_path_factory.mktemp("expected")
    coco(folder / "in")
    result = ingest(folder / "in", folder / "out")
    return rows_of(folder / "out"), result.digest


@pytest.mark.parametrize("name", BOXED)
def test_all_formats_give_the_same_rows(name: str, tmp_path: Path, expected: tuple[dict, str]) -> None:
    format, write = BOXED[name]
    write(tmp_path / "in")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.format, result.supervision) == (format, "boxes")
    assert rows_of(tmp_path / "out") == expected[0]
    assert result.digest == expected[1]
    assert {code for code in result.report["counts"] if code != "unused_category"} == set()


@pytest.mark.parametrize("name", BOXED)
def test_rows_are_those_drawn(name: str, tmp_path: Path) -> None:
    _, write = BOXED[name]
    write(tmp_path / "in")
    ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    splits = {image.id: image.split for image in dataset.images}
    found = {
        (splits[int(image)], dataset.categories[label], *box)
        for image, label, box in zip(
            dataset.annotation_image_ids, dataset.labels, dataset.boxes.tolist(), strict=True
        )
    }
    assert found == {(split, *box) for split, _, _, boxes in SCENE.values() for box in boxes}
    assert dataset.boxes.dtype == np.float64
    assert dataset.labels.dtype == np.int64


@pytest.mark.parametrize("name", BOXED)
def test_given_format_reads_as_the_recognised_one(
    name: str, tmp_path: Path, expected: tuple[dict, str]
) -> None:
    format, write = BOXED[name]
    write(tmp_path / "in")
    assert ingest(tmp_path / "in", tmp_path / "out", format=format).digest == expected[1]


def test_canonical_form_reads_as_itself(tmp_path: Path, expected: tuple[dict, str]) -> None:
    coco(tmp_path / "in")
    ingest(tmp_path / "in", tmp_path / "out")
    again = ingest(tmp_path / "out", tmp_path / "again")
    assert again.digest == expected[1]
    assert again.report["counts"] == {}


def test_order_in_the_file_does_not_matter(tmp_path: Path) -> None:
    content = coco_content(["a", "b"])
    digests = set()
    for number, reverse in enumerate((False, True)):
        folder = tmp_path / f"in{number}"
        scene(folder)
        for key in ("images", "annotations"):
            content[key].sort(key=lambda row: row["id"], reverse=reverse)
        text(folder / "all.json", json.dumps(content))
        digests.add(ingest(folder, tmp_path / f"out{number}").digest)
    assert len(digests) == 1


@pytest.mark.parametrize("change", ["box", "class", "split", "picture"])
def test_digest_follows_the_content(change: str, tmp_path: Path, expected: tuple[dict, str]) -> None:
    coco(tmp_path / "in")
    path = tmp_path / "in/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    if change == "box":
        content["annotations"][0]["bbox"][0] += 1
    if change == "class":
        content["categories"][0]["name"] = "lynx"
    if change == "split":
        for image in content["images"]:
            image["split"] = "test"
    if change == "picture":
        picture(tmp_path / "in/train/a.png", 40, 30, seed=99)
    path.write_text(json.dumps(content))
    assert ingest(tmp_path / "in", tmp_path / "out").digest != expected[1]


def test_voc_that_counts_from_zero_is_taken_as_it_is(tmp_path: Path) -> None:
    voc(tmp_path / "in")
    path = tmp_path / "in/VOC2012/Annotations/a.xml"
    path.write_text(path.read_text().replace("<xmin>5<", "<xmin>0<"))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert "from 0" in result.summary["notes"][0]
    assert [5.0, 7.0] not in open_dataset(tmp_path / "out").boxes[:, :2].tolist()
    assert [0.0, 7.0, 20.0, 26.0] in open_dataset(tmp_path / "out").boxes.tolist()
    assert result.report["counts"] == {}


def test_yolo_without_val_draws_one(tmp_path: Path) -> None:
    for index in range(10):
        picture(tmp_path / f"in/images/train/{index}.png", 20, 20, index)
        text(tmp_path / f"in/labels/train/{index}.txt", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "in/data.yaml", "train: images/train\nnames: [thing]\n")
    result = ingest(tmp_path / "in", tmp_path / "out", seed=3)
    assert result.summary["splits"] == {
        "train": {"images": 8, "annotations": 8},
        "val": {"images": 2, "annotations": 2},
    }
    assert "seed 3" in result.summary["splits_from"]


def test_yolo_polygons_become_boxes_with_masks(tmp_path: Path) -> None:
    picture(tmp_path / "in/images/a.png", 40, 20)
    text(tmp_path / "in/labels/a.txt", "0 0.25 0.25 0.75 0.25 0.5 0.75\n")
    text(tmp_path / "in/data.yaml", "train: images\nnames: [thing]\n")
    assert ingest(tmp_path / "in", tmp_path / "out").supervision == "masks"
    assert open_dataset(tmp_path / "out").boxes.tolist() == [[10.0, 5.0, 30.0, 15.0]]
    rows = rows_of(tmp_path / "out")["annotations"]
    assert rows[0]["segmentation"] == [[10.0, 5.0, 30.0, 5.0, 20.0, 15.0]]


def test_yolo_picture_with_an_empty_label_file_is_background(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    picture(tmp_path / "in/images/train/empty.png", 20, 20)
    text(tmp_path / "in/labels/train/empty.txt", "")
    summary = ingest(tmp_path / "in", tmp_path / "out").summary
    assert (summary["images"], summary["images_without_boxes"]) == (3, 1)


def test_yolo_without_names_numbers_them(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    (tmp_path / "in/data.yaml").unlink()
    ingest(tmp_path / "in", tmp_path / "out")
    assert open_dataset(tmp_path / "out").categories == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("table", "boxes"),
    [
        ('image_id,width,height,bbox,source\na,40,30,"[4.5, 6, 10, 12]",x\n', [[4.5, 6.0, 14.5, 18.0]]),
        (
            "image_name,BoxesString,domain\na.png,4 6 14 18;20 1 30 9,x\nb.png,no_box,x\n",
            [[4.0, 6.0, 14.0, 18.0], [20.0, 1.0, 30.0, 9.0]],
        ),
    ],
)
def test_global_wheat(table: str, boxes: list, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/train.csv", table)
    result = ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert result.format == "csv"
    assert dataset.categories == ("wheat head",)
    assert dataset.boxes.tolist() == boxes
    assert result.summary["images_without_boxes"] == 1


def test_mnist_without_names_takes_the_labels(tmp_path: Path) -> None:
    mnist(tmp_path / "in")
    (tmp_path / "in/classes.txt").unlink()
    ingest(tmp_path / "in", tmp_path / "out")
    assert open_dataset(tmp_path / "out").categories == ("1", "2")


def test_coco_keeps_masks_and_marks_crowds(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
    content["annotations"].append(
        {
            "id": 900,
            "image_id": 7,
            "category_id": 1,
            "bbox": [0, 0, 9, 9],
            "iscrowd": 1,
            "segmentation": {"size": [30, 40], "counts": [0, 9, 1191]},
        }
    )
    text(tmp_path / "in/all.json", json.dumps(content))
    result = ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert result.supervision == "masks"
    assert dataset.iscrowd.sum() == 1
    assert (result.summary["annotations"], result.summary["crowd"]) == (3, 1)
    assert result.report["counts"] == {"crowd": 1}


def test_coco_prefers_instances_to_other_tasks(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    text(tmp_path / "in/annotations/person_keypoints_train2017.json", json.dumps(coco_content(["a"])))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"other_task": 1}
    assert result.summary["annotations"] == 3


def test_folders_are_classes(tmp_path: Path) -> None:
    picture(tmp_path / "in/train/cat/1.png", 20, 10, 1)
    picture(tmp_path / "in/train/dog/1.png", 20, 10, 2)
    picture(tmp_path / "in/val/dog/2.png", 20, 10, 3)
    result = ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert (result.format, result.supervision, dataset.categories) == (
        "image_labels",
        "image_labels",
        ("cat", "dog"),
    )
    assert sorted(dataset.labels.tolist()) == [0, 1, 1]
    assert dataset.boxes.tolist() == [[0.0, 0.0, 20.0, 10.0]] * 3
    assert [result.summary["splits"][split]["images"] for split in ("train", "val")] == [2, 1]


def test_one_picture_in_two_class_folders_has_both_labels(tmp_path: Path) -> None:
    picture(tmp_path / "in/cat/1.png", 20, 10, 1)
    picture(tmp_path / "in/dog/1.png", 20, 10, 1)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert open_dataset(tmp_path / "out").labels.tolist() == [0, 1]
    assert result.report["counts"] == {"duplicate_image": 1}


@pytest.mark.parametrize(
    "table",
    [
        "filename,label\na.png,cat|dog\nb.png,dog\n",
        "filename;class\na.png;cat|dog\nb.png;dog\n",
        "filename,cat,dog\na.png,1,1\nb.png,0,1\n",
    ],
)
def test_table_of_image_labels(table: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/_classes.csv", table)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.supervision == "image_labels"
    assert sorted(open_dataset(tmp_path / "out").labels.tolist()) == [0, 1, 1]


def test_pictures_alone_are_unlabelled(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    result = ingest(tmp_path / "in", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert (result.format, result.supervision, len(dataset.images)) == ("unlabelled", "none", 2)
    assert dataset.boxes.shape == (0, 4)
    assert dataset.categories == ()


def test_two_formats_are_named(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    voc(tmp_path / "in")
    with pytest.raises(Unusable, match=r"2 formats: coco .*voc .*format=coco or format=voc"):
        ingest(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_format_lists_the_known(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    with pytest.raises(Unusable, match=r"'spreadsheet' is no known format.*coco.*unlabelled"):
        ingest(tmp_path / "in", tmp_path / "out", format="spreadsheet")


@pytest.mark.parametrize("name", READERS)
def test_no_reader_recognises_nothing(name: str, tmp_path: Path) -> None:
    assert READERS[name].recognise(walk(tmp_path)) is None


@pytest.mark.parametrize("name", READERS)
def test_every_reader_survives_a_folder_of_something_else(name: str, tmp_path: Path) -> None:
    text(tmp_path / "readme.txt", "no dataset")
    text(tmp_path / "empty.csv", "")
    text(tmp_path / "a.json", "[1, 2")
    text(tmp_path / "a.xml", "<annotation><object>")
    text(tmp_path / "data.yaml", "names: [")
    picture(tmp_path / "readme.png", 8, 8)
    report = Report()
    raw = READERS[name].read(walk(tmp_path), report)
    assert all(not image.boxes for image in raw.images)
