"""The real datasets come out with the counts that their SOURCE.txt gives, dirt included."""

from pathlib import Path

import pytest

from worker.data.batches import decoded
from worker.data.dataset import open_dataset
from worker.data.ingest import ingest

# name -> (format, images, train images, boxes per class, faults)
EXPECTED = {
    # 257 + 3495 + 305 boxes, of which the two thinner than a pixel (both RBC) are dropped
    "bccd": ("voc", 300, 225, {"Platelets": 257, "RBC": 3493, "WBC": 305}, {"degenerate_box": 2}),
    "cards": ("csv", 220, 165, {"ace": 81, "jack": 58, "king": 75, "nine": 73, "queen": 54, "ten": 41}, {}),
    "craters": ("coco", 220, 165, {"crater": 5027}, {}),
    "deeppcb": (
        "coco",
        220,
        165,
        {"copper": 92, "mousebite": 296, "open": 269, "pin-hole": 173, "short": 224, "spur": 253},
        {},
    ),
    "pennfudan": ("coco", 170, 128, {"person": 423}, {}),
    "plates_ro": ("voc", 260, 195, {"license-plate": 316}, {}),
    # 317 images with 472 boxes, of which three are byte for byte another one (two of them of train, again in val)
    "ships": ("yolo", 314, 237, {"ship": 467}, {"duplicate_image": 3}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_counts(name: str, shared_data: Path, tmp_path: Path) -> None:
    format, images, train, boxes, faults = EXPECTED[name]
    result = ingest(shared_data / "datasets" / name, tmp_path)
    dataset = open_dataset(tmp_path)
    assert (result.format, result.supervision) == (format, "boxes")
    assert result.report["counts"] == faults
    assert {row["name"]: row["annotations"] for row in result.summary["categories"]} == boxes
    assert len(dataset.images) == images
    assert sum(image.split == "train" for image in dataset.images) == train
    assert {image.split for image in dataset.images} == {"train", "val"}
    assert result.summary["splits_from"] == "from the archive"
    assert len(dataset.boxes) == sum(boxes.values())
    sizes = {image.id: (image.width, image.height) for image in dataset.images}
    for image_id, (x1, y1, x2, y2) in zip(
        dataset.annotation_image_ids.tolist(), dataset.boxes.tolist(), strict=True
    ):
        assert 0 <= x1 < x2 <= sizes[image_id][0]
        assert 0 <= y1 < y2 <= sizes[image_id][1]
    assert max(max(size) for size in sizes.values()) <= 640
    assert len(result.previews) == 9
    assert [image.id for image, _ in decoded(dataset.images[:5])] == [1, 2, 3, 4, 5]


def test_ships_lose_only_the_boxes_of_repeated_pictures(shared_data: Path, tmp_path: Path) -> None:
    report = ingest(shared_data / "datasets/ships", tmp_path).report
    assert report["annotations_dropped"] == 472 - 467
    assert report["images_dropped"] == 3
