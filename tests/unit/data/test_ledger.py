"""A dataset is never ready while most of its labels went unread, and whatever went unread is named."""

from pathlib import Path

import pytest
from hand_made import BOXED, SCENE, coco, picture, scene, text, yolo

from worker.data.dataset import open_dataset
from worker.data.faults import CODES, Unusable
from worker.data.ingest import Ingested, ingest


def _faults(result: Ingested) -> list[tuple[str, str]]:
    return [(fault["code"], fault["file"]) for fault in result.report["faults"]]


@pytest.mark.parametrize(
    ("file", "guess"),
    [
        ("train.json", "COCO, LabelMe"),
        ("a.json", "COCO, LabelMe"),
        ("labels/a.txt", "KITTI"),
        ("a.xml", "CVAT"),
        ("rows.jsonl", "Hugging Face"),
        ("data/train-0.parquet", "parquet"),
        ("odd.tfrecord", "TFRecord"),
        ("boxes.mat", "MATLAB"),
        ("images.zip", "an archive"),
    ],
)
def test_pictures_beside_unread_labels_are_no_dataset(file: str, guess: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in" / file, "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12")
    with pytest.raises(Unusable) as refusal:
        ingest(tmp_path / "in", tmp_path / "out")
    assert refusal.value.reason.startswith(f"1 files that look like labels were not read, such as {file}")
    assert guess in refusal.value.reason
    assert refusal.value.report["counts"] == {"unread_file": 1}
    assert not (tmp_path / "out").exists()


def test_who_asks_for_the_pictures_alone_gets_them_and_the_files_named(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/train.json", "[]")
    result = ingest(tmp_path / "in", tmp_path / "out", format="unlabelled")
    assert result.supervision == "none"
    assert _faults(result) == [("unread_file", "train.json")]


def test_folders_are_no_classes_where_labels_lie_in_them(tmp_path: Path) -> None:
    for camera in ("cam0", "cam1"):
        picture(tmp_path / f"in/{camera}/a.png", 20, 10, int(camera[-1]))
        text(tmp_path / f"in/{camera}/a.json", "{}")
    with pytest.raises(Unusable, match=r"^2 files that look like labels.*format=image_labels"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_labels_of_most_pictures_in_another_format_are_a_refusal(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for seed in range(3):
        picture(tmp_path / f"in/images/train/more{seed}.png", 20, 20, 90 + seed)
        text(tmp_path / f"in/images/train/more{seed}.json", "{}")
    with pytest.raises(
        Unusable, match=r"^3 files that look like labels.*2 pictures have labels and 3 are left"
    ):
        ingest(tmp_path / "in", tmp_path / "out")


def test_unread_labels_of_a_few_pictures_are_named(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    picture(tmp_path / "in/images/train/more.png", 20, 20, 90)
    text(tmp_path / "in/images/train/more.json", "{}")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert _faults(result) == [
        ("unread_file", "images/train/more.json"),
        ("unlisted_image", "images/train/more.png"),
    ]
    assert result.summary["images"] == 2


@pytest.mark.parametrize("name", BOXED)
def test_what_is_harmless_is_passed_over(name: str, tmp_path: Path) -> None:
    BOXED[name][1](tmp_path / "in")
    for file in (
        "README.txt",
        "README.roboflow.txt",
        "LICENSE",
        "make.py",
        "labels/train.cache",
        ".hidden/a.json",
    ):
        text(tmp_path / "in" / file, "words")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert {code for code, _ in _faults(result)} <= {"unused_category"}


@pytest.mark.parametrize("name", BOXED)
def test_no_reader_forgets_what_it_used_nor_claims_a_stray_file(name: str, tmp_path: Path) -> None:
    BOXED[name][1](tmp_path / "in")
    for file in ("stray.txt", "stray.json", "stray.xml", "stray.csv", "stray.xyz"):
        text(tmp_path / "in" / file, "words")
    result = ingest(tmp_path / "in", tmp_path / "out")
    found = sorted(fault for fault in _faults(result) if fault[0] != "unused_category")
    assert found == [
        ("unread_file", f"stray{suffix}") for suffix in (".csv", ".json", ".txt", ".xml", ".xyz")
    ]


def test_a_picture_without_a_label_is_left_out_or_background_as_asked(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    picture(tmp_path / "in/images/train/bare.png", 20, 20)
    left = ingest(tmp_path / "in", tmp_path / "left")
    assert (left.summary["images"], _faults(left)) == (2, [("unlisted_image", "images/train/bare.png")])
    kept = ingest(tmp_path / "in", tmp_path / "kept", unlabelled="background")
    assert (kept.summary["images"], kept.summary["images_without_boxes"], _faults(kept)) == (3, 1, [])
    assert "1 pictures without labels count as background, as asked" in kept.summary["notes"]


@pytest.mark.parametrize("line", ["9 0.5 0.5 0.5 0.5", "0 0.5 0.5 0 0", "0 0.5 0.5"])
def test_a_picture_that_lost_every_annotation_is_no_background(line: str, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    text(tmp_path / "in/labels/val/b.txt", line)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert _faults(result)[-1] == ("emptied_image", "images/val/b.png")
    assert [image.width for image in open_dataset(tmp_path / "out").images] == [SCENE["a"][1]]


def test_the_refusal_begins_with_the_first_fault_and_is_short(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    for file in (tmp_path / "in/annotations").iterdir():
        file.write_text(file.read_text().replace('"category_id": ', '"category_id": 9'))
    with pytest.raises(Unusable) as refusal:
        ingest(tmp_path / "in", tmp_path / "out")
    assert refusal.value.reason.startswith("annotations/instances_train2017.json, 100: category_id 91")
    assert len(refusal.value.reason) < 300


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", "cat\ndog\n"),
        ("notes.txt", "These 2 folders were drawn by hand in 3 weeks.\n"),
        ("data.yaml", "names: [cat, dog]\n"),
    ],
)
def test_words_beside_folders_of_classes_are_named_and_refuse_nothing(
    file: str, content: str, tmp_path: Path
) -> None:
    for seed, folder in enumerate(("cat", "dog")):
        picture(tmp_path / f"in/{folder}/1.png", 20, 10, seed)
    text(tmp_path / "in" / file, content)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert (result.format, _faults(result)) == ("image_labels", [("unread_file", file)])


@pytest.mark.parametrize("content", ["1.png 3 4 12 9\n", "cat/1.png\n3 4 12 9\n"])
def test_rows_of_numbers_beside_folders_of_classes_are_a_refusal(content: str, tmp_path: Path) -> None:
    for seed, folder in enumerate(("cat", "dog")):
        picture(tmp_path / f"in/{folder}/1.png", 20, 10, seed)
    text(tmp_path / "in/rows.txt", content)
    with pytest.raises(Unusable, match=r"such as rows\.txt|boxes of rows\.txt"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_most_lines_that_nobody_understands_are_a_refusal(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    label = tmp_path / "in/labels/train/a.txt"
    label.write_text(label.read_text() + "7 0.5 0.5 0.1 0.1\n" * 4)
    with pytest.raises(
        Unusable,
        match=r"^labels/train/a.txt, line 3: class 7 .* 4 annotations could not be understood and 3 could",
    ):
        ingest(tmp_path / "in", tmp_path / "out")
    assert ingest(tmp_path / "in", tmp_path / "out", format="yolo").summary["annotations"] == 3


def test_the_page_explains_every_code() -> None:
    page = (Path(__file__).parents[3] / "docs/datasets.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"`{code}`" not in page] == []


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("seq.xml", '<sequence name="s"><frame num="1"></frame></sequence>', "tracks of UA-DETRAC"),
        ("tracks/a.txt", "1,1,4,6,16,20,1,1,1\n1,2,8,2,30,10,1,1,1\n", "tracks of the MOT challenge"),
        ("labels/a.txt", "cat 0.5 0.5 0.2 0.2\n", "YOLO's begin with the number of the class"),
        (
            "labels/a.txt",
            "0 12 16 16 20\n",
            "YOLO's are class, centre x.*as fractions of the picture: divide",
        ),
    ],
)
def test_kinds_that_nobody_reads_are_called_by_name(
    file: str, content: str, what: str, tmp_path: Path
) -> None:
    picture(tmp_path / "in/images/a.png", 40, 30)
    text(tmp_path / "in" / file, content)
    with pytest.raises(Unusable, match=f"such as {file}: it is .*{what}"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_most_boxes_that_end_before_they_begin_are_a_refusal(tmp_path: Path) -> None:
    """Widths in the place of right borders: one box in five has an area all the same."""
    picture(tmp_path / "in/images/a.png", 40, 30)
    boxes = ["20,10,8,9,0", "30,20,5,5,0", "25,2,9,9,0", "12,15,10,10,0", "2,3,10,10,0"]
    text(tmp_path / "in/boxes.txt", f"images/a.png {' '.join(boxes)}\n")
    with pytest.raises(
        Unusable, match="4 boxes end before they begin or lie outside their pictures and 1 are right"
    ):
        ingest(tmp_path / "in", tmp_path / "out")
    assert ingest(tmp_path / "in", tmp_path / "out", format="keras_yolo").summary["annotations"] == 1
