"""What the command line prints of a dataset: how it was read, its splits, and every loss with its first reason."""

from pathlib import Path

import pytest

from app.cli.session import out
from app.cli.show import datasets as page
from tests.unit.data.hand_made import coco, picture, text, yolo
from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest


def _record(found: Ingested) -> dict:
    return {"format": found.format, "supervision": found.supervision, "summary": found.summary}


def _printed(report: dict) -> str:
    with out.capture() as capture:
        out.print(page.found(report))
    return " ".join(capture.get().split())


def test_what_was_read_and_where_the_splits_come_from(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    lines = page.headline(_record(ingest(tmp_path / "in", tmp_path / "out")))
    assert lines == [
        "read as coco, boxes: 2 images, 3 objects",
        "splits from the archive: train 1 images 2 objects, val 1 images 1 objects",
    ]


def test_drawn_splits_and_background_are_said(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for seed in range(8):
        picture(tmp_path / f"in/more/{seed}.png", 20, 20, 40 + seed)
        text(tmp_path / f"in/more/{seed}.txt", "")
    text(tmp_path / "in/data.yaml", "names: [cat, dog]")
    found = ingest(tmp_path / "in", tmp_path / "out")
    first, second = page.headline(_record(found))
    assert "8 images without an object (background)" in first
    assert second.startswith("splits from the archive: train")


def test_each_kind_of_loss_with_its_count_and_first_reason(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    picture(tmp_path / "in/images/train/bare.png", 20, 20)
    label = tmp_path / "in/labels/train/a.txt"
    label.write_text(label.read_text() + "7 0.5 0.5 0.1 0.1\n8 0.5 0.5 0.1 0.1\n")
    report = ingest(tmp_path / "in", tmp_path / "out").report
    printed = _printed(report)
    assert "unknown_category" in printed
    assert "labels/train/a.txt, line 3: class 7 is not one of the 2 named classes" in printed
    assert "unlisted_image" in printed
    assert printed.index("unknown_category") < printed.index("unlisted_image")
    assert page.lost(report).startswith("left out: 1 images and 2 annotations")


def test_a_first_reason_is_there_however_many_faults_come_before_it(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    label = tmp_path / "in/labels/train/a.txt"
    label.write_text(label.read_text() + "0 0.5 0.5 0 0\n" * 1500 + "0 0.9 0.5 0.4 0.4\n")
    assert "over the border" in _printed(ingest(tmp_path / "in", tmp_path / "out").report)


def test_nothing_found_is_no_table() -> None:
    assert page.found({"counts": {}, "kinds": []}) is None


def test_a_refusal_has_its_kinds_too(tmp_path: Path) -> None:
    yolo(tmp_path / "in")
    for file in (tmp_path / "in/labels").rglob("*.txt"):
        file.write_text("9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(Unusable) as refusal:
        ingest(tmp_path / "in", tmp_path / "out")
    assert "class 9 is not one of the 2 named classes" in _printed(refusal.value.report)
