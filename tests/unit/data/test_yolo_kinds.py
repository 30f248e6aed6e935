"""YOLO labels as people have them: every kind gives the boxes of the plain set, or says what was not read."""

import shutil
import unicodedata
from pathlib import Path

import PIL.Image
import pytest
from hand_made import SCENE, picture, scene, text, yolo, yolo_roboflow

from worker.data.dataset import open_dataset
from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest

TRUTH = {(split, *box) for split, _, _, boxes in SCENE.values() for box in boxes}


def _found(out: Path) -> set[tuple]:
    dataset = open_dataset(out)
    splits = {image.id: image.split for image in dataset.images}
    return {
        (splits[int(image)], dataset.categories[label], *(round(side) for side in box))
        for image, label, box in zip(
            dataset.annotation_image_ids, dataset.labels, dataset.boxes.tolist(), strict=True
        )
    }


def _read(folder: Path, **options: object) -> Ingested:
    return ingest(folder / "in", folder / "out", **options)  # type: ignore[arg-type]


def _each_line(folder: Path, change) -> None:
    for file in (folder / "in/labels").rglob("*.txt"):
        file.write_text("".join(change(line.split()) + "\n" for line in file.read_text().splitlines()))


def _key_points(words: list[str], count: int, visible: bool) -> str:
    cx, cy, w, h = words[1:]
    corners = [(float(cx) + side * float(w), float(cy) + side * float(h)) for side in (-0.4, 0.4)]
    points = [corners[place % 2] for place in range(count)]
    return " ".join([*words, *(f"{x} {y} 2" if visible else f"{x} {y}" for x, y in points)])


@pytest.mark.parametrize("shape", [None, [17, 3], [24, 3], [12, 2]])
def test_key_points_behind_the_box_are_left_out_and_said(shape: list[int] | None, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    count, numbers = shape or (17, 3)
    _each_line(tmp_path, lambda words: _key_points(words, count, numbers == 3))
    if shape:
        with (tmp_path / "in/data.yaml").open("a") as file:
            file.write(f"kpt_shape: {shape}\n")
    result = _read(tmp_path)
    assert _found(tmp_path / "out") == TRUTH
    assert result.report["counts"] == {"extra_columns": 1}
    assert f"{count} key points" in result.report["faults"][0]["reason"]


@pytest.mark.parametrize(("place", "column"), [(5, "0.93"), (1, "0.01"), (5, "7"), (5, "0.93 7")])
def test_a_column_of_confidences_or_tracks_is_left_out_and_said(
    place: int, column: str, tmp_path: Path
) -> None:
    yolo(tmp_path / "in")
    _each_line(tmp_path, lambda words: " ".join([*words[:place], column, *words[place:]]))
    result = _read(tmp_path)
    assert _found(tmp_path / "out") == TRUTH
    assert result.report["counts"] == {"extra_columns": 1}


@pytest.mark.parametrize("columns", ["0 1", "0.4 12.7", "4 6 20 26"])
def test_columns_that_are_no_points_are_left_out_and_said(columns: str, tmp_path: Path) -> None:
    """Seven and nine numbers are a polygon, unless a box stands in front of flags, distances or pixels."""
    yolo(tmp_path / "in")
    _each_line(tmp_path, lambda words: " ".join([*words, columns]))
    result = _read(tmp_path)
    assert _found(tmp_path / "out") == TRUTH
    assert (result.supervision, result.report["counts"]) == ("boxes", {"extra_columns": 1})


def test_a_column_that_could_be_either_is_no_guess(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    _each_line(tmp_path, lambda words: f"{words[0]} 0.7 0.5 0.3 0.3 0.2")
    with pytest.raises(Unusable, match=r"^labels/train/a.txt, line 1.*3 x invalid_annotation"):
        _read(tmp_path)


@pytest.mark.parametrize("place", [0.1, 0.3, 0.6])
def test_small_polygons_of_equal_length_are_no_key_points(place: float, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    ring = [(0, 0), (0.02, 0), (0.04, 0), (0.04, 0.05), (0.02, 0.05), (0, 0.05)]
    for file in (tmp_path / "in/labels").rglob("*.txt"):
        rows = [[(place + 0.07 * k + x, place + 0.05 * k + y) for x, y in ring] for k in range(3)]
        file.write_text("".join("0 " + " ".join(f"{x} {y}" for x, y in row) + "\n" for row in rows))
    assert _read(tmp_path).supervision == "masks"


def test_polygons_of_equal_length_are_no_key_points(tmp_path: Path) -> None:
    yolo(tmp_path / "in")

    def polygon(words: list[str]) -> str:
        cx, cy, w, h = map(float, words[1:])
        corners = [(-1, -1), (0, -1), (1, -1), (1, 1), (0, 1), (-1, 1)]
        return " ".join([words[0], *(f"{cx + a * w / 2} {cy + b * h / 2}" for a, b in corners)])

    _each_line(tmp_path, polygon)
    result = _read(tmp_path)
    assert (result.supervision, result.report["counts"]) == ("masks", {})
    assert _found(tmp_path / "out") == TRUTH


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", "  "])
def test_separators(separator: str, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    _each_line(tmp_path, separator.join)
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_comments(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for file in (tmp_path / "in/labels").rglob("*.txt"):
        file.write_text("# class cx cy w h\n" + file.read_text())
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_decimal_commas(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    _each_line(tmp_path, lambda words: " ".join(words).replace(".", ","))
    _read(tmp_path)
    assert _found(tmp_path / "out") == TRUTH


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for file in [*(tmp_path / "in").rglob("*.txt"), tmp_path / "in/data.yaml"]:
        file.write_bytes(file.read_text().encode(encoding))
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_any_number_of_empty_label_files_comes_first(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for seed in range(60):
        picture(tmp_path / f"in/images/train/0{seed:02}.png", 9, 9, 100 + seed)
        text(tmp_path / f"in/labels/train/0{seed:02}.txt", "")
    result = _read(tmp_path)
    assert _found(tmp_path / "out") == TRUTH
    assert (result.summary["images"], result.summary["images_without_boxes"]) == (62, 60)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data.yaml", "train: images/train\nval: images/val\nnames: {'0': cat, '1': dog}\n"),
        ("data.yaml", "train: images/train\nval: images/val\nnames: {cat: 0, dog: 1}\n"),
        ("data.yaml", "train: images/train\nval: images/val\nnames:\n- 0: cat\n- 1: dog\n"),
        ("data.yaml", "train: images/train\nval: images/val\nnames: cat, dog\n"),
        (
            "data.yaml",
            'train: "C:\\Users\\me\\images\\train"\nval: "C:\\Users\\me\\images\\val"\nnames: [cat, dog]\n',
        ),
        ("labels.txt", "cat\ndog\n"),
        ("classes.txt", "cat\ndog\n\n"),
        ("_classes.txt", "0 cat\n1 dog\n"),
        ("pets.names", "cat\ndog\n"),
        ("labels/classes.txt", "cat\ndog\n"),
        ("labels/train/classes.txt", "cat\ndog\n"),
        ("_darknet.labels", "cat\ndog\n"),
        ("notes.json", '{"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {}}'),
    ],
)
def test_names_wherever_they_are(file: str, content: str, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    (tmp_path / "in/data.yaml").unlink()
    text(tmp_path / "in" / file, content)
    result = _read(tmp_path)
    assert result.report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_words_of_yaml_are_names(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    text(tmp_path / "in/data.yaml", "train: images/train\nval: images/val\nnames: [no, 007]\n")
    _read(tmp_path)
    assert open_dataset(tmp_path / "out").categories == ("no", "007")


def test_a_model_beside_the_data_describes_no_data(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    text(tmp_path / "in/a_model.yaml", "nc: 80\nnames: [x]\nbackbone: []\nhead: []\n")
    text(tmp_path / "in/runs/args.yaml", "epochs: 3\nlr0: 0.1\n")
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_classes_that_nobody_names_are_said(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    (tmp_path / "in/data.yaml").unlink()
    result = _read(tmp_path)
    assert result.report["counts"] == {"unnamed_classes": 1}
    assert open_dataset(tmp_path / "out").categories == ("class 0", "class 1")


def test_classes_counted_from_one(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    _each_line(tmp_path, lambda words: " ".join([str(int(words[0]) + 1), *words[1:]]))
    result = _read(tmp_path)
    assert result.report["counts"] == {"renumbered_classes": 1}
    assert _found(tmp_path / "out") == TRUTH


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train/images", "validate/images"),
        ("train_set", "val_set"),
        ("obj_train_data", "obj_valid_data"),
        ("TrainImages", "TestImages/../ValImages"),
        ("2024 training", "2024 validation"),
    ],
)
def test_split_folders_of_other_names(train: str, val: str, tmp_path: Path) -> None:
    folders = {"train": train, "val": val.rpartition("../")[2]}
    scene(tmp_path / "in", lambda split, name: f"{folders[split]}/{name}.png")
    yolo(tmp_path / "plain")
    for name, (split, *_) in SCENE.items():
        file = tmp_path / "in" / folders[split].replace("images", "labels") / f"{name}.txt"
        text(file, (tmp_path / f"plain/labels/{split}/{name}.txt").read_text())
    text(tmp_path / "in/classes.txt", "cat\ndog\n")
    result = _read(tmp_path)
    assert (result.report["counts"], result.summary["splits_from"]) == ({}, "from the archive")
    assert _found(tmp_path / "out") == TRUTH


def test_splits_of_the_labels_alone(tmp_path: Path) -> None:
    yolo(tmp_path / "plain")
    shutil.copytree(tmp_path / "plain/labels", tmp_path / "in/labels")
    scene(tmp_path / "in")
    text(tmp_path / "in/classes.txt", "cat\ndog\n")
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_names_of_pictures_whose_letters_macos_decomposed(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for file in [*(tmp_path / "in").rglob("*.png"), *(tmp_path / "in").rglob("labels/*/*.txt")]:
        form = "NFD" if file.suffix == ".png" else "NFC"
        file.rename(file.with_name(unicodedata.normalize(form, f"\u00fc{file.name}")))
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_folders_of_pictures_beside_folders_of_labels(tmp_path: Path) -> None:
    yolo(tmp_path / "plain")
    for name, (split, *_) in SCENE.items():
        for kind, suffix in (("images", ".png"), ("labels", ".txt")):
            target = tmp_path / f"in/{split}_{kind}/same{suffix}"
            target.parent.mkdir(parents=True)
            shutil.copy(tmp_path / f"plain/{kind}/{split}/{name}{suffix}", target)
    text(tmp_path / "in/classes.txt", "cat\ndog\n")
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def _listed(folder: Path, root: str, line: str, yaml: str) -> None:
    scene(folder)
    yolo(folder.parent / "plain")
    for name, (split, *_) in SCENE.items():
        text(folder / f"labels/{name}.txt", (folder.parent / f"plain/labels/{split}/{name}.txt").read_text())
        text(folder / root / f"{split}.txt", line.format(name=name) + "\n")
    text(folder / "pets.yaml", yaml)


@pytest.mark.parametrize(
    ("root", "line", "yaml"),
    [
        (
            "",
            "./images/{name}.png",
            "path: /datasets/pets\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n",
        ),
        ("lists", "images/{name}.png", "path: lists\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n"),
        (
            "",
            "/home/me/pets/images/{name}.png",
            "train: /home/me/pets/train.txt\nval: /home/me/pets/val.txt\nnames: [cat, dog]\n",
        ),
        (
            "",
            "C:\\pets\\images\\{name}.png",
            "train: C:\\pets\\train.txt\nval: C:\\pets\\val.txt\nnames: [cat, dog]\n",
        ),
        ("ImageSets", "{name}", "names: [cat, dog]\n"),
    ],
)
def test_lists_of_pictures(root: str, line: str, yaml: str, tmp_path: Path) -> None:
    _listed(tmp_path / "in", root, line, yaml)
    result = _read(tmp_path)
    assert (result.report["counts"], result.summary["splits_from"]) == ({}, "from the archive")
    assert _found(tmp_path / "out") == TRUTH


def test_absolute_folders(tmp_path: Path) -> None:
    yolo_roboflow(tmp_path / "in")
    text(
        tmp_path / "in/data.yaml",
        "train: /content/pets/train/images\nval: /content/pets/valid/images\ntest: /content/pets/test/images\nnames: [cat, dog]\n",
    )
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_darknet_layout_of_cvat(tmp_path: Path) -> None:
    yolo(tmp_path / "plain")
    for name, (split, *_) in SCENE.items():
        folder = tmp_path / f"in/obj_{split}_data"
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / f"plain/images/{split}/{name}.png", folder)
        shutil.copy(tmp_path / f"plain/labels/{split}/{name}.txt", folder)
        text(tmp_path / f"in/{split}.txt", f"data/obj_{split}_data/{name}.png\n")
    text(tmp_path / "in/obj.names", "cat\ndog\n")
    text(
        tmp_path / "in/obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid = data/val.txt\nnames = data/obj.names\n",
    )
    assert _read(tmp_path).report["counts"] == {}
    assert _found(tmp_path / "out") == TRUTH


def test_a_label_that_two_folders_of_pictures_could_mean_is_said(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for camera in (0, 1):
        picture(tmp_path / f"in/cam{camera}/same.png", 30, 30, 70 + camera)
    text(tmp_path / "in/other/same.txt", "0 0.5 0.5 0.5 0.5\n")
    result = _read(tmp_path)
    assert result.report["counts"] == {"label_without_image": 1, "unlisted_image": 2}
    assert _found(tmp_path / "out") == TRUTH


def test_lines_in_pixels_are_a_refusal(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    _each_line(tmp_path, lambda words: f"{words[0]} 120 80 60 40")
    (tmp_path / "in/data.yaml").unlink()
    with pytest.raises(Unusable, match="2 files that look like labels were not read"):
        _read(tmp_path)


def test_masks_have_no_labels(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for name, (split, width, height, _) in SCENE.items():
        (tmp_path / f"in/masks/{split}").mkdir(parents=True)
        PIL.Image.new("L", (width, height), 1).save(tmp_path / f"in/masks/{split}/{name}.png")
        (tmp_path / f"in/{split}_mask").mkdir()
        PIL.Image.new("P", (width, height), 1).save(tmp_path / f"in/{split}_mask/{name}.png")
    result = _read(tmp_path)
    assert _found(tmp_path / "out") == TRUTH
    assert result.report["counts"] == {"side_picture": 1}


def test_a_class_called_mask_is_no_folder_of_masks(tmp_path: Path) -> None:
    for folder, seed in (("mask", 1), ("no_mask", 2)):
        picture(tmp_path / f"in/{folder}/1.png", 20, 10, seed)
    result = _read(tmp_path)
    assert (result.format, result.summary["images"], result.report["counts"]) == ("image_labels", 2, {})
