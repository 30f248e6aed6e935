"""Job `ingest`: a dataset becomes ready with everything about it, or invalid with the reason."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from handler_bench import Bench, picture

from app.db.tables import Blob, Dataset


def coco(folder: Path, images: int = 6, bad_boxes: int = 1) -> Path:
    """A small COCO dataset with two categories; the first image has a box without area."""
    for index in range(images):
        picture(folder, f"images/{index}.png", seed=index)
    annotations = [
        {
            "id": 2 * i + j,
            "image_id": i,
            "category_id": 5 + j,
            "bbox": [4 + j, 5, 20, 20],
            "area": 400,
            "iscrowd": 0,
        }
        for i in range(images)
        for j in range(2)
    ]
    annotations += [
        {"id": 900 + i, "image_id": 0, "category_id": 5, "bbox": [1, 1, 0, 5], "area": 0, "iscrowd": 0}
        for i in range(bad_boxes)
    ]
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def test_archive_becomes_a_ready_dataset(bench: Bench, tmp_path: Path) -> None:
    job = bench.work(bench.dataset(zipped(coco(tmp_path / "set")), seed=3))
    assert (job.state, job.error) == ("succeeded", None)
    row = bench.get(Dataset, job.resource_id)
    assert (row.state, row.error, row.format, row.supervision) == ("ready", None, "coco", "boxes")
    assert row.summary["images"] == 6
    assert row.report["counts"] == {"degenerate_box": 1}
    assert len(row.digest) == 64
    with bench.store.open(row.archive_sha256) as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    assert "annotations.json" in names
    assert sum(name.startswith("images/") for name in names) == 6
    for preview in row.previews:
        assert bench.store.exists(preview["sha256"])
        assert bench.get(Blob, preview["sha256"]).media_type == "image/jpeg"
    assert bench.left_behind() == []


def test_same_archive_gives_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    content = zipped(coco(tmp_path / "set"))
    rows = [bench.get(Dataset, bench.work(bench.dataset(content)).resource_id) for _ in range(2)]
    assert rows[0].archive_sha256 == rows[1].archive_sha256
    assert rows[0].digest == rows[1].digest


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_path_on_this_disk_is_read_and_left_alone(bench: Bench, tmp_path: Path, as_folder: bool) -> None:
    path = coco(tmp_path / "set")
    if not as_folder:
        (tmp_path / "set.zip").write_bytes(zipped(path))
        path = tmp_path / "set.zip"
    before = sorted(p.relative_to(tmp_path) for p in (tmp_path / "set").rglob("*"))
    job = bench.work(bench.dataset(path=path))
    assert bench.get(Dataset, job.resource_id).state == "ready", job.error
    assert sorted(p.relative_to(tmp_path) for p in (tmp_path / "set").rglob("*")) == before


def test_nothing_usable_is_invalid_and_the_report_is_kept(bench: Bench, tmp_path: Path) -> None:
    folder = coco(tmp_path / "set", images=2)
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no picture")
    job = bench.work(bench.dataset(zipped(folder)))
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "unusable_dataset")
    row = bench.get(Dataset, job.resource_id)
    assert (row.state, row.error["code"]) == ("invalid", "unusable_dataset")
    assert row.report["counts"]["unreadable_image"] == 2
    assert row.archive_sha256 is None
    assert bench.left_behind() == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "archive_empty_file"),
        (b"not an archive" * 99, "archive_unknown_format"),
        (None, "unusable_dataset"),
    ],
)
def test_unusable_source_is_invalid(bench: Bench, content: bytes | None, code: str, tmp_path: Path) -> None:
    job_id = bench.dataset(content) if content is not None else bench.dataset(path=tmp_path / "nowhere")
    job = bench.work(job_id)
    row = bench.get(Dataset, job.resource_id)
    assert (job.state, row.state, row.error["code"]) == ("failed", "invalid", code)
    assert row.error["detail"]


def test_dataset_deleted_meanwhile_harms_nobody(bench: Bench, tmp_path: Path) -> None:
    job_id = bench.dataset(zipped(coco(tmp_path / "set")))
    with bench.database.unit_of_work() as session:
        session.delete(session.get(Dataset, "ds_1"))
    assert bench.work(job_id).error["code"] == "not_found"


def test_an_archive_that_takes_too_long_is_invalid_and_says_what_to_change(
    bench: Bench, tmp_path: Path
) -> None:
    """Each picture alone is quick; it is looked at between them whether the time is up."""
    bench.settings.intake_time_limit_s = 0.05
    job = bench.work(bench.dataset(zipped(coco(tmp_path / "set", images=1500))))
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "time_limit_exceeded")
    row = bench.get(Dataset, job.resource_id)
    assert (row.state, row.error["code"]) == ("invalid", "time_limit_exceeded")
    assert "send less at once, or raise DETRANK_INTAKE_TIME_LIMIT_S" in row.error["detail"]
    assert bench.left_behind() == []
