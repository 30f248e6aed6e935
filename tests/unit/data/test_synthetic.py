import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from worker.data.dataset import open_dataset
from worker.data.glyphs import Glyphs
from worker.data.ingest import ingest
from worker.data.synthetic import Scenes, pack, synth

NAMES = ("bar", "dot", "ring")


@pytest.fixture(scope="module")
def glyphs() -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((30, 28, 28), dtype=np.uint8)
    labels = np.arange(30) % 3
    for index, label in enumerate(labels):
        shade = 120 + 4 * index
        match label:
            case 0:
                images[index, 4:24, 12:16] = shade
            case 1:
                images[index, 10:18, 10:18] = shade
            case 2:
                images[index, 4:24, 4:24] = shade
                images[index, 8:20, 8:20] = 0
    return images, labels


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def _synth(out: Path, glyphs: tuple, **changes: object) -> Path:
    options = {"images_train": 12, "images_test": 4, "seed": 1, **changes}
    look = {"image_size": 96, "max_size": 40}
    look |= {field.name: options.pop(field.name) for field in fields(Scenes) if field.name in options}
    return synth(out, Glyphs(*glyphs, NAMES), Scenes(**look), **options)


@pytest.mark.parametrize("style", ["published", "scenes"])
@pytest.mark.parametrize("layout", ["coco", "mnist"])
def test_same_seed_same_bytes(layout: str, style: str, glyphs: tuple, tmp_path: Path) -> None:
    first = _tree(_synth(tmp_path / "a", glyphs, layout=layout, style=style))
    assert first == _tree(_synth(tmp_path / "b", glyphs, layout=layout, style=style))
    assert first != _tree(_synth(tmp_path / "c", glyphs, layout=layout, style=style, seed=2))
    assert (
        pack(tmp_path / "a", tmp_path / "a.zip").read_bytes()
        == pack(tmp_path / "b", tmp_path / "b.zip").read_bytes()
    )


def test_both_layouts_are_the_same_dataset(glyphs: tuple, tmp_path: Path) -> None:
    digests = set()
    for layout in ("coco", "mnist"):
        result = ingest(_synth(tmp_path / layout, glyphs, layout=layout), tmp_path / f"{layout}-out")
        assert (result.format, result.report["counts"]) == (layout, {})
        digests.add(result.digest)
    assert len(digests) == 1
    dataset = open_dataset(tmp_path / "coco-out")
    assert dataset.categories == NAMES
    assert {image.split for image in dataset.images} == {"train", "val", "test"}
    assert len(dataset.images) == 16


def test_boxes_are_tight_and_labels_count_from_one(glyphs: tuple, tmp_path: Path) -> None:
    out = _synth(tmp_path / "a", glyphs, max_objects=1, images_train=20)
    content = json.loads((out / "annotations/instances_train.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    assert len(content["annotations"]) == 20
    assert {row["category_id"] for row in content["annotations"]} <= {1, 2, 3}
    for row in content["annotations"]:
        rows, columns = np.nonzero(np.asarray(PIL.Image.open(out / "train" / names[row["image_id"]])))
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("style", ["published", "scenes"])
def test_objects_keep_their_distance_and_size(style: str, glyphs: tuple, tmp_path: Path) -> None:
    out = _synth(tmp_path / "a", glyphs, style=style, min_size=20, max_size=40)
    content = json.loads((out / "annotations/instances_train.json").read_text())
    boxes = np.array([row["bbox"] for row in content["annotations"]])
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, 2:] < 40).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 96).all()
    per_image = np.bincount([row["image_id"] for row in content["annotations"]])[1:]
    assert per_image.min() >= 1
    assert per_image.max() <= 5
    assert per_image.max() > 1


def test_crowded_canvas_ends(glyphs: tuple, tmp_path: Path) -> None:
    out = _synth(
        tmp_path / "a",
        glyphs,
        image_size=40,
        min_size=38,
        max_size=40,
        max_objects=50,
        images_train=2,
        images_test=0,
    )
    content = json.loads((out / "annotations/instances_train.json").read_text())
    assert len(content["annotations"]) == 2
    assert not (out / "annotations/instances_test.json").exists()


def test_test_glyphs_are_never_seen_in_training(tmp_path: Path) -> None:
    # Every glyph has a grey value of its own, and nothing else in a picture has it.
    images = np.stack([np.full((20, 20), 5 * index + 5, dtype=np.uint8) for index in range(40)])
    out = synth(
        tmp_path,
        Glyphs(images, np.arange(40) % 2, ("a", "b")),
        Scenes(max_objects=1),
        images_train=60,
        images_test=20,
        seed=3,
    )
    seen = {
        split: {int(np.asarray(PIL.Image.open(path)).max()) for path in (out / split).glob("*.png")}
        for split in ("train", "test")
    }
    assert len(seen["train"]) > 10
    assert len(seen["test"]) > 3
    assert not seen["train"] & seen["test"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_size": 0}, "min_size"),
        ({"min_size": 40}, "min_size"),
        ({"max_size": 99}, "image_size"),
        ({"max_objects": 0}, "max_objects"),
        ({"layout": "voc"}, "layout"),
        ({"style": "oil"}, "style"),
    ],
)
def test_senseless_requests(changes: dict, words: str, glyphs: tuple, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        _synth(tmp_path / "a", glyphs, **changes)
    assert not (tmp_path / "a").exists()


def test_senseless_glyphs(glyphs: tuple, tmp_path: Path) -> None:
    images, labels = glyphs
    for bad in (
        (images[:0], labels[:0]),
        (images, labels[:3]),
        (images.astype(float), labels),
        (images, labels + 1),
    ):
        with pytest.raises(ValueError, match=r"glyphs must be|labels run"):
            synth(tmp_path / "a", Glyphs(*bad, NAMES), images_train=1, images_test=1)
