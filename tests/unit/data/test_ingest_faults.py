"""Whatever is dropped or repaired stands in the report, and the rest is used."""

import json
from pathlib import Path

import PIL.Image
import pytest
from hand_made import coco_content, picture, scene, text, voc, yolo

from worker.data.dataset import open_dataset
from worker.data.faults import SHOWN, Report
from worker.data.ingest import Ingested, Unusable, ingest


def _coco(folder: Path, **changes: list) -> Ingested:
    scene(folder / "in")
    content = coco_content(["a", "b"])
    for key, rows in changes.items():
        content[key].extend(rows)
    text(folder / "in/all.json", json.dumps(content))
    return ingest(folder / "in", folder / "out")


def _row(**changes: object) -> dict:
    return {"id": 50, "image_id": 7, "category_id": 1, "bbox": [1, 1, 5, 5], **changes}


def test_nothing_wrong_gives_an_empty_report(tmp_path: Path) -> None:
    assert _coco(tmp_path).report == {
        "counts": {},
        "kinds": [],
        "dropped": 0,
        "repaired": 0,
        "images_dropped": 0,
        "annotations_dropped": 0,
        "faults": [],
        "truncated": False,
    }


@pytest.mark.parametrize(
    ("row", "code", "action", "reason"),
    [
        (_row(bbox=[1, 1, 0, 5]), "degenerate_box", "dropped", "0 x 5 pixels"),
        (_row(bbox=[9, 1, -4, 5]), "degenerate_box", "dropped", "wrong way round"),
        (_row(bbox=[1, 1, 5, 0.4]), "degenerate_box", "dropped", "5 x 0.4"),
        (_row(bbox=[41, 1, 5, 5]), "box_outside", "dropped", "outside the picture"),
        (_row(bbox=[-9, 1, 5, 5]), "box_outside", "dropped", "outside the picture"),
        (_row(bbox=[-3, 1, 9, 5]), "box_clipped", "repaired", "over the border"),
        (_row(bbox=[30, 20, 20, 20]), "box_clipped", "repaired", "40 x 30"),
        (_row(category_id=9), "unknown_category", "dropped", "category_id 9"),
        (_row(category_id=[1]), "unknown_category", "dropped", "category_id [1]"),
        (_row(bbox=[1, 1, 5]), "invalid_annotation", "dropped", "four finite numbers"),
        (_row(bbox=None), "invalid_annotation", "dropped", "four finite numbers"),
        (_row(bbox=["x", 1, 5, 5]), "invalid_annotation", "dropped", "four finite numbers"),
        (_row(bbox=[1, 1, 5, float("nan")]), "invalid_annotation", "dropped", "four finite numbers"),
        (_row(bbox=[1, 1, 5, float("inf")]), "invalid_annotation", "dropped", "four finite numbers"),
        (_row(image_id=1234), "annotation_without_image", "dropped", "image_id 1234"),
        (_row(bbox=[4, 6, 16, 20]), "duplicate_annotation", "dropped", "there already"),
        (_row(segmentation=[[1, 1]]), "invalid_mask", "repaired", "kept without it"),
        (_row(segmentation={"size": [9, 9], "counts": [81]}), "invalid_mask", "repaired", "[9, 9]"),
        (_row(iscrowd=1), "crowd", "repaired", "ignore"),
    ],
)
def test_annotation_faults(row: dict, code: str, action: str, reason: str, tmp_path: Path) -> None:
    result = _coco(tmp_path, annotations=[row])
    assert result.report["counts"] == {code: 1}
    (fault,) = result.report["faults"]
    assert (fault["file"], fault["annotation"], fault["action"]) == ("all.json", "50", action)
    assert reason in fault["reason"]
    assert result.report[action] == 1
    assert result.report["annotations_dropped"] == int(action == "dropped")
    assert len(open_dataset(tmp_path / "out").boxes) == (4 if action == "repaired" else 3)


def test_clipped_box_ends_at_the_border(tmp_path: Path) -> None:
    _coco(tmp_path, annotations=[_row(bbox=[-3, 20, 60, 60])])
    assert [0.0, 20.0, 40.0, 30.0] in open_dataset(tmp_path / "out").boxes.tolist()


def test_rounding_at_the_border_is_no_fault(tmp_path: Path) -> None:
    result = _coco(tmp_path, annotations=[_row(bbox=[-0.05, 1, 9, 5])])
    assert result.report["counts"] == {}
    assert open_dataset(tmp_path / "out").boxes.min() == 0.0


def _missing(folder: Path) -> None:
    (folder / "a.png").unlink()


def _empty(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"")


def _truncated(folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(data[: len(data) // 2])


def _text(folder: Path) -> None:
    (folder / "a.png").write_text("<html>404</html>")


def _truncated_jpeg(folder: Path) -> None:
    picture(folder / "a.jpg", 40, 30)
    data = (folder / "a.jpg").read_bytes()
    (folder / "a.png").write_bytes(data[: len(data) * 2 // 3])
    (folder / "a.jpg").unlink()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_missing, "missing_image"),
        (_empty, "unreadable_image"),
        (_truncated, "unreadable_image"),
        (_truncated_jpeg, "unreadable_image"),
        (_text, "unreadable_image"),
    ],
)
def test_picture_faults_cost_that_picture_only(damage, code: str, tmp_path: Path) -> None:
    scene(tmp_path / "in")
    text(tmp_path / "in/all.json", json.dumps(coco_content(["a", "b"])))
    damage(tmp_path / "in/images")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {code: 1}
    assert (result.report["images_dropped"], result.report["annotations_dropped"]) == (1, 2)
    assert "a.png" in result.report["faults"][0]["file"]
    assert [(image.width, image.height) for image in open_dataset(tmp_path / "out").images] == [(32, 48)]


def test_equal_pictures_are_kept_once_and_in_train(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    picture(tmp_path / "in/images/val/again.png", 40, 30, seed=0)
    text(tmp_path / "in/labels/val/again.txt", "0 0.5 0.5 0.5 0.5\n")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"duplicate_image": 1}
    assert (result.report["annotations_dropped"], result.summary["annotations"]) == (0, 4)
    fault = result.report["faults"][0]
    assert fault["file"] == "images/val/again.png"
    assert "images/train/a.png, in train; 1 of its annotations are new" in fault["reason"]


def test_labels_without_pictures_and_pictures_without_labels(tmp_path: Path) -> None:
    voc(tmp_path / "in")
    (tmp_path / "in/VOC2012/JPEGImages/a.png").unlink()
    picture(tmp_path / "in/VOC2012/JPEGImages/new.png", 20, 20)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"label_without_image": 1, "unlisted_image": 1}
    assert result.report["annotations_dropped"] == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("2 0.5 0.5 0.5 0.5", "unknown_category"),
        ("-1 0.5 0.5 0.5 0.5", "unknown_category"),
        ("0.5 0.5 0.5 0.5 0.5", "unknown_category"),
        ("0 0.5 0.5 0.5", "invalid_annotation"),
        ("0 0.5 0.5 0.5 0.5 0.9", "invalid_annotation"),
        ("0 0.5 0.5 0.5 nan", "invalid_annotation"),
        ("cat 0.5 0.5 0.5 0.5", "invalid_annotation"),
        ("0 0.5 0.5 0 0", "degenerate_box"),
        ("0 1.5 0.5 0.2 0.2", "box_outside"),
        ("0 0.9 0.5 0.4 0.4", "box_clipped"),
    ],
)
def test_yolo_lines(line: str, code: str, tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    path = tmp_path / "in/labels/train/a.txt"
    path.write_text(path.read_text() + "\n" + line + "\n")
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {code: 1}
    assert result.report["faults"][0]["file"] == "labels/train/a.txt"
    assert result.report["faults"][0]["annotation"] == "line 4"


def test_boxes_made_for_another_size_are_scaled(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    content["images"][0].update(width=80, height=60)
    for row in content["annotations"]:
        if row["image_id"] == 7:
            row["bbox"] = [2 * value for value in row["bbox"]]
    text(tmp_path / "in/all.json", json.dumps(content))
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert result.report["counts"] == {"size_mismatch": 1}
    assert [4.0, 6.0, 20.0, 26.0] in open_dataset(tmp_path / "out").boxes.tolist()


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "GIF", "TIFF"])
def test_odd_pictures_are_rewritten(mode: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = PIL.Image.new("RGB", (20, 10), (200, 30, 30))
    match mode:
        case "CMYK":
            image.convert("CMYK").save(folder / "a.jpg")
        case "I;16":
            PIL.Image.new("I;16", (20, 10), 40000).save(folder / "a.png")
        case _:
            image.save(folder / f"a.{mode.lower()}")
    result = ingest(folder, tmp_path / "out")
    assert result.report["counts"] == {"converted_image": 1}
    stored = open_dataset(tmp_path / "out").images[0].path
    assert stored.suffix in (".jpg", ".png")
    with PIL.Image.open(stored) as found:
        assert (found.mode, found.size) == ("RGB", (20, 10))
        wanted = (156, 156, 156) if mode == "I;16" else (200, 30, 30)
        assert max(abs(a - b) for a, b in zip(found.getpixel((5, 5)), wanted, strict=True)) <= 3


def test_plain_pictures_keep_their_bytes(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    ingest(tmp_path / "in", tmp_path / "out")
    before = {path.read_bytes() for path in (tmp_path / "in/images").iterdir()}
    assert {image.path.read_bytes() for image in open_dataset(tmp_path / "out").images} == before


@pytest.mark.parametrize("content", [{}, {"readme.txt": "hello"}, {"a.json": "{}", "b.csv": "x,y\n1,2\n"}])
def test_nothing_known_says_what_was_found_and_what_is_accepted(content: dict, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, words in content.items():
        text(source / name, words)
    with pytest.raises(Unusable) as refusal:
        ingest(source, tmp_path / "out")
    assert "Accepted: coco" in refusal.value.reason
    assert ("no files at all" in refusal.value.reason) == (not content)
    assert refusal.value.report["counts"] == {}
    assert not (tmp_path / "out").exists()


def test_only_bad_annotations_is_unusable_with_the_report(tmp_path: Path) -> None:
    scene(tmp_path / "in")
    content = coco_content(["a", "b"])
    for row in content["annotations"]:
        row["bbox"] = [0, 0, 0, 0]
    text(tmp_path / "in/all.json", json.dumps(content))
    with pytest.raises(Unusable, match=r"^all.json.*3 x degenerate_box.*format=unlabelled") as refusal:
        ingest(tmp_path / "in", tmp_path / "out")
    assert refusal.value.report["counts"] == {"degenerate_box": 3, "emptied_image": 2}
    assert not (tmp_path / "out").exists()


def test_no_readable_picture_is_unusable(tmp_path: Path) -> None:
    text(tmp_path / "in/a.jpg", "no picture")
    with pytest.raises(Unusable, match="1 x unreadable_image"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_long_reports_are_cut_and_say_so_but_lie_whole_beside(tmp_path: Path) -> None:
    rows = [_row(id=1000 + index, bbox=[0, 0, 0, 0]) for index in range(SHOWN + 5)]
    report = _coco(tmp_path, annotations=rows).report
    assert (len(report["faults"]), report["truncated"], report["dropped"]) == (SHOWN, True, SHOWN + 5)
    whole = json.loads((tmp_path / "out/report.json").read_text())
    assert (len(whole["faults"]), whole["truncated"]) == (SHOWN + 5, False)


def test_a_stop_request_passes_through(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def progress(done: int, total: int, message: str) -> None:
        raise Stop

    scene(tmp_path / "in")
    with pytest.raises(Stop):
        ingest(tmp_path / "in", tmp_path / "out", progress=progress)
    assert not (tmp_path / "out/annotations.json").exists()


def test_progress_rises_to_its_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    scene(tmp_path / "in")
    ingest(
        tmp_path / "in", tmp_path / "out", progress=lambda done, total, message: seen.append((done, total))
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1


def test_report_text_can_always_be_stored() -> None:
    report = Report()
    report.add("missing_image", "bad\udcff\x00\n" + "x" * 1000, "\ud800")
    encoded = json.dumps(report.to_json(), ensure_ascii=False).encode("utf-8")
    assert b"\x00" not in encoded
    assert len(encoded) < 1500
