"""Small datasets by classes that occur together: who is in them, that they are what they say, and refusals."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from app.cli.main import build
from worker.data.bootstrap import choose, write_coco
from worker.data.dataset import Dataset, Image, open_dataset
from worker.data.ingest import ingest
from worker.data.subsets import Undrawable

CLASSES = ("sofa", "chair", "table", "whale", "boat", "crowded")
HOME, SEA, CROWD = (0, 1, 2), (3, 4), 5


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Dataset:
    """Images of a home (sofas, chairs and tables) and of the sea (whales, boats), never both; crowds of the last class."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    images, rows = [], []
    for image_id in range(1, 81):
        path = root / f"{image_id}.png"
        PIL.Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).save(path)
        images.append(Image(image_id, path, 24, 24, ("train", "val", "test")[image_id % 3]))
        place = HOME if image_id <= 60 else SEA
        for label in [*rng.choice(place, size=3), CROWD]:
            low = rng.integers(0, 10, size=2)
            rows.append((image_id, int(label), [*low, *(low + 9.5)], label == CROWD))
    return Dataset(
        root,
        CLASSES,
        "boxes",
        tuple(images),
        np.arange(1, len(rows) + 1),
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows], dtype=float),
        np.array([r[3] for r in rows]),
        "d",
    )


def test_classes_occur_together_and_every_split_has_all_of_them(source: Dataset) -> None:
    found = choose(source, sets=3, classes=2, train=20, test=10, class_images=5, seed=3)
    assert len({choice.labels for choice in found}) == 3
    for choice in found:
        assert set(choice.labels) <= set(HOME)  # the sea has too few images, and a crowd is no object
        train, test = (set(choice.image_ids[split]) for split in ("train", "test"))
        assert (len(train), len(test)) == (20, 10)
        assert not train & test
        for split, ids in choice.image_ids.items():
            rows = np.isin(source.annotation_image_ids, ids) & ~source.iscrowd
            counted = Counter(source.labels[rows].tolist())
            assert choice.objects[split] == tuple(counted[label] for label in choice.labels)
            assert min(choice.objects[split]) > 0
            assert set(ids) == {
                i
                for i in ids
                if np.isin(source.labels[rows & (source.annotation_image_ids == i)], choice.labels).any()
            }


def test_follows_the_seed_and_not_the_order(source: Dataset) -> None:
    asked = {"sets": 2, "classes": 2, "train": 15, "test": 5, "class_images": 5}
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(source.labels))
    mixed = replace(
        source,
        images=source.images[::-1],
        **{
            n: getattr(source, n)[rows]
            for n in ("annotation_ids", "annotation_image_ids", "labels", "boxes", "iscrowd")
        },
    )
    assert (
        choose(source, **asked, seed=7) == choose(source, **asked, seed=7) == choose(mixed, **asked, seed=7)
    )
    assert choose(source, **asked, seed=7) != choose(source, **asked, seed=8)


def test_chances_are_in_proportion_to_occurring_together() -> None:
    """With class 0, class 1 is there ten times as often as class 2."""
    images = tuple(Image(i, Path(f"{i}.png"), 9, 9, "train") for i in range(1, 111))
    rows = [(i, label) for i in range(1, 111) for label in (0, 1 if i <= 100 else 2)]
    many = Dataset(
        Path("nowhere"),
        ("a", "b", "c"),
        "boxes",
        images,
        np.arange(1, 221),
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.tile([0.0, 0, 5, 5], (220, 1)),
        np.zeros(220, dtype=bool),
        "",
    )
    first = Counter(
        choose(many, sets=1, classes=2, train=60, test=40, class_images=0, seed=s)[0].labels
        for s in range(300)
    )
    # A third of the draws begins with each class; only those that begin with 0 have a choice.
    assert set(first) <= {(0, 1), (0, 2)}
    expected = 300 * (1 / 3 + 1 / 3 * 100 / 110)
    assert abs(first[0, 1] - expected) < 4 * np.sqrt(300 * 0.64 * 0.36)


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("too_few_images", {"train": 60, "test": 10, "class_images": 5}),
        ("too_few_images", {"sets": 4, "classes": 2, "train": 30, "test": 10, "class_images": 30}),
        ("too_few_classes", {"classes": 6, "class_images": 0}),
        ("too_few_classes", {"class_images": 70}),
        ("bad_request", {"classes": 1}),
        ("bad_request", {"train": 0}),
    ],
)
def test_too_little_is_refused(code: str, asked: dict, source: Dataset) -> None:
    with pytest.raises(Undrawable) as refusal:
        choose(source, **{"sets": 1, "classes": 3, "train": 10, "test": 5} | asked)
    assert refusal.value.code == code


def test_labels_without_boxes_are_refused(source: Dataset) -> None:
    with pytest.raises(Undrawable, match="image_labels"):
        choose(replace(source, supervision="image_labels"))


def test_what_is_written_holds_the_matching_annotations_alone(source: Dataset, tmp_path: Path) -> None:
    choice = choose(source, sets=1, classes=2, train=12, test=6, class_images=5, seed=0)[0]
    masked = replace(source, segmentations=tuple([[0.0, 0.0, 5.0, 0.0, 5.0, 5.0]] for _ in source.labels))
    write_coco(masked, replace(choice, labels=(*choice.labels, CROWD)), tmp_path / "coco")
    found = ingest(tmp_path / "coco", tmp_path / "canonical", val_fraction=0)
    assert found.supervision == "masks"
    dataset = open_dataset(tmp_path / "canonical")
    assert dataset.categories == (*(CLASSES[label] for label in choice.labels), "crowded")
    assert [sum(image.split == split for image in dataset.images) for split in ("train", "test")] == [12, 6]
    used = [image_id for ids in choice.image_ids.values() for image_id in ids]
    kept = np.isin(source.annotation_image_ids, used) & np.isin(source.labels, (*choice.labels, CROWD))
    assert len(dataset.labels) == kept.sum()
    assert dataset.iscrowd.sum() == 18
    assert sorted(map(tuple, dataset.boxes.tolist())) == sorted(map(tuple, source.boxes[kept].tolist()))


def test_the_command_writes_archives_that_the_service_takes(
    source: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    whole = choose(source, sets=1, classes=2, train=40, test=15, class_images=5)[0]
    write_coco(source, replace(whole, labels=HOME), tmp_path / "given")
    words = ["datasets", "bootstrap", str(tmp_path / "given"), str(tmp_path / "out")]
    words += ["--sets", "2", "--classes", "2", "--train", "16", "--test", "8", "--seed", "4"]
    result = CliRunner().invoke(build(), words)
    assert result.exit_code == 0, result.output
    listed = json.loads((tmp_path / "out" / "sets.json").read_text())["sets"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["set_01.zip", "set_02.zip", "sets.json"]
    assert listed[0]["classes"] != listed[1]["classes"]
    import zipfile

    with zipfile.ZipFile(tmp_path / "out" / "set_01.zip") as archive:
        archive.extractall(tmp_path / "again")
    ingest(tmp_path / "again", tmp_path / "form")
    assert sorted(open_dataset(tmp_path / "form").categories) == sorted(listed[0]["classes"])
    canonical = CliRunner().invoke(build(), [*words[:3], str(tmp_path / "two"), *words[4:], "--canonical"])
    assert canonical.exit_code == 0, canonical.output
    assert open_dataset(tmp_path / "two" / "set_01").digest == open_dataset(tmp_path / "form").digest
    refused = CliRunner().invoke(build(), [*words[:3], str(tmp_path / "three"), "--train", "900"])
    assert refused.exit_code == 2
    assert "classes" in refused.output
    assert not (tmp_path / "three").exists()
