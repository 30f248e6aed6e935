import json
from pathlib import Path

import pytest
from hand_made import coco, picture, text

from worker.data.dataset import open_dataset, sample_images
from worker.data.ingest import ingest
from worker.data.object_sizes import sides_in


@pytest.fixture
def dataset(tmp_path: Path):
    for index in range(20):
        picture(tmp_path / f"in/images/{index}.png", 24, 24, index)
        text(tmp_path / f"in/labels/{index}.txt", "" if index < 4 else "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "in/data.yaml", "train: images\nnames: [thing]\n")
    ingest(tmp_path / "in", tmp_path / "out", val_fraction=0.25)
    return open_dataset(tmp_path / "out")


def test_sample_takes_only_annotated_images_of_the_split(dataset) -> None:
    annotated = set(dataset.annotation_image_ids.tolist())
    train = sample_images(dataset, None, seed=0)
    assert {image.id for image in train} == {
        image.id for image in dataset.images if image.split == "train"
    } & annotated
    assert len(sample_images(dataset, None, seed=0, split=None)) == 16
    assert sample_images(dataset, None, seed=0, split="test") == ()


def test_sample_is_seeded_and_in_order(dataset) -> None:
    first = sample_images(dataset, 5, seed=1, split=None)
    assert first == sample_images(dataset, 5, seed=1, split=None)
    assert first != sample_images(dataset, 5, seed=2, split=None)
    assert [image.id for image in first] == sorted({image.id for image in first})
    assert len(sample_images(dataset, 999, seed=1, split=None)) == 16


def test_sample_of_nothing_is_refused(dataset) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sample_images(dataset, 0, seed=0)


def test_crowds_alone_do_not_make_an_image_usable(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 20, 20, 1)
    picture(tmp_path / "in/b.png", 20, 20, 2)
    rows = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": k - 1} for k in (1, 2)
    ]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    text(
        tmp_path / "in/x.json",
        json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "x"}]}),
    )
    ingest(tmp_path / "in", tmp_path / "out")
    assert len(sample_images(open_dataset(tmp_path / "out"), None, seed=0, split=None)) == 1


def test_unlabelled_images_are_all_eligible(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"in/{index}.png", 24, 24, index)
    ingest(tmp_path / "in", tmp_path / "out")
    assert len(sample_images(open_dataset(tmp_path / "out"), None, seed=0, split=None)) == 4


def test_opening_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ingest it first"):
        open_dataset(tmp_path)
    text(tmp_path / "annotations.json", json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(ValueError, match="ingest the dataset again"):
        open_dataset(tmp_path)


def test_file_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    ingest(tmp_path / "in", tmp_path / "out")
    path = tmp_path / "out/annotations.json"
    path.write_text(path.read_text().replace("images/000001.png", "../in/train/a.png"))
    with pytest.raises(ValueError, match="leaves"):
        open_dataset(tmp_path / "out")


def test_summary_and_previews(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    result = ingest(tmp_path / "in", tmp_path / "out")
    summary = result.summary
    assert summary["categories"] == [
        {"id": 1, "name": "cat", "annotations": 1, "images": 1},
        {"id": 2, "name": "dog", "annotations": 2, "images": 2},
    ]
    assert summary["splits"] == {
        "train": {"images": 1, "annotations": 2},
        "val": {"images": 1, "annotations": 1},
    }
    # sides: sqrt(16 * 20), sqrt(30 * 10), sqrt(16 * 32)
    assert summary["objects"]["by_area"] == {"small": 3, "medium": 0, "large": 0}
    assert (
        dict(zip(summary["objects"]["side"]["edges"], summary["objects"]["side"]["counts"], strict=True))[16]
        == 3
    )
    # beside pictures, as the ingested dataset has them too
    shares = summary["objects"]["relative_sides"]
    assert len(shares) == 21
    assert shares == sides_in(open_dataset(tmp_path / "out"))
    assert shares[0] == round((30 * 10 / (40 * 30)) ** 0.5, 4)
    assert shares[-1] == round((16 * 32 / (32 * 48)) ** 0.5, 4)
    assert sum(summary["image_sizes"]["longest_side"]["counts"]) == 2
    json.dumps(summary, allow_nan=False)
    assert [path.name for path in result.previews] == ["preview.jpg", "preview_1.jpg", "preview_2.jpg"]
    assert all(path.read_bytes()[:2] == b"\xff\xd8" for path in result.previews)
