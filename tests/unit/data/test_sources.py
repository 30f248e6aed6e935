"""Datasets whose pictures stay where they are: local folders, and what holds for every kind of source."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hand_made import BOXED, picture, text, yolo

from worker.data.dataset import open_dataset, sample_images
from worker.data.faults import Unusable
from worker.data.ingest import Ingested, ingest
from worker.data.sources.base import Bounds, Pin, SourceError
from worker.data.sources.kept import KeptPictures
from worker.data.sources.local import LocalSource, open_beneath
from worker.data.sources.pinned import Pinned
from worker.data.sources.pinning import Means, pin_dataset
from worker.data.sources.places import source_at
from worker.data.sources.sample import fetch_sample, look_again


class Tried:
    """A folder pinned below `at`, from which samples can be fetched again and again."""

    def __init__(
        self,
        folder: Path,
        at: Path,
        *,
        bounds: Bounds = Bounds(),
        check: Callable[[], None] = lambda: None,
        **options: object,
    ) -> None:
        self.at = at
        (at / "out").mkdir(parents=True)
        (at / "scratch").mkdir()
        self.kept = KeptPictures(at / "kept", 1 << 30)
        self.url = folder.resolve().as_uri()
        self.result: Ingested = pin_dataset(
            source_at(self.url), at / "out", at / "scratch", Means(self.kept, bounds, check=check), **options
        )
        self.pinned = Pinned.load(at / "out")

    def sample(self, ids: Sequence[int] | None = None, kept: KeptPictures | None = None) -> Path:
        out = self.at / f"sample{len(list(self.at.iterdir()))}"
        out.mkdir()
        wanted = range(1, len(self.pinned.paths) + 1) if ids is None else ids
        fetch_sample(self.pinned, source_at(self.url), wanted, out, kept=kept or self.kept)
        return out

    def look(self) -> None:
        look_again(self.pinned, source_at(self.url), range(1, len(self.pinned.paths) + 1))


def many(folder: Path, count: int = 40) -> Path:
    """YOLO: `count` pictures with a box each."""
    for number in range(count):
        picture(folder / f"images/{number:03d}.png", 32 + number, 40, number)
        text(folder / f"labels/{number:03d}.txt", f"{number % 2} 0.5 0.5 0.5 0.25\n")
    text(folder / "data.yaml", "names: [cat, dog]\n")
    return folder


def rows_of(out: Path) -> set:
    content = json.loads((out / "annotations.json").read_text())
    images = {row["id"]: row for row in content["images"]}
    names = {row["id"]: row["name"] for row in content["categories"]}
    return {
        (
            images[row["image_id"]]["sha256"],
            images[row["image_id"]]["split"],
            images[row["image_id"]]["width"],
            names[row["category_id"]],
            tuple(row["bbox"]),
        )
        for row in content["annotations"]
    }


@pytest.mark.parametrize("name", BOXED)
def test_a_sample_of_all_is_what_ingestion_makes_of_the_same_folder(name: str, tmp_path: Path) -> None:
    format, write = BOXED[name]
    write(tmp_path / "in")
    ingest(tmp_path / "in", tmp_path / "whole")
    tried = Tried(tmp_path / "in", tmp_path / "tried")
    assert (tried.result.format, tried.result.supervision) == (format, "boxes")
    assert rows_of(tried.sample()) == rows_of(tmp_path / "whole")
    assert len(tried.result.previews) == 3


def test_turned_and_16_bit_pictures_and_masks_are_treated_as_those_of_an_archive(tmp_path: Path) -> None:
    exif = picture(tmp_path / "x.jpg", 8, 8)  # only to have Pillow's EXIF class
    import PIL.Image

    with PIL.Image.open(exif) as opened:
        turned = opened.getexif()
    exif.unlink()
    turned[0x0112] = 6
    folder = tmp_path / "in"
    picture(folder / "images/turned.jpg", 40, 30, exif=turned.tobytes())
    deep = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20
    PIL.Image.fromarray(deep).save(folder / "images/deep.png")
    content = {
        "images": [
            {"id": 1, "file_name": "turned.jpg", "width": 40, "height": 30},
            {"id": 2, "file_name": "deep.png", "width": 64, "height": 48},
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [2, 3, 10, 8], "iscrowd": 0, "area": 80}
            | {"segmentation": [[2, 3, 12, 3, 12, 11, 2, 11]]}
            for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    text(folder / "annotations.json", json.dumps(content))
    ingest(folder, tmp_path / "whole")
    tried = Tried(folder, tmp_path / "tried")
    assert tried.result.supervision == "masks"
    sample = tried.sample()
    assert rows_of(sample) == rows_of(tmp_path / "whole")
    assert open_dataset(sample).segmentations is not None
    shown = json.loads((sample / "report.json").read_text())
    assert shown["counts"] == {"converted_image": 1, "exif_rotation": 1}
    assert sorted(path.name for path in (sample / "images").iterdir()) == ["0000001.png", "0000002.jpg"]


def test_image_labels_and_bare_pictures_can_stay_too(tmp_path: Path) -> None:
    for number, name in enumerate(["cat", "dog"] * 3):
        picture(tmp_path / f"classes/{name}/{number}.png", 20, 20, number)
        picture(tmp_path / f"bare/{number}.png", 20, 20, number)
    labelled = Tried(tmp_path / "classes", tmp_path / "1")
    assert labelled.result.supervision == "image_labels"
    opened = open_dataset(labelled.sample())
    assert (len(opened.boxes), opened.boxes[0].tolist()) == (6, [0, 0, 20, 20])
    assert opened.annotation_ids.tolist() == [1, 2, 3, 4, 5, 6]
    bare = Tried(tmp_path / "bare", tmp_path / "2", format="unlabelled")
    assert bare.result.supervision == "none"
    assert len(open_dataset(bare.sample([2, 3])).images) == 2


def test_only_the_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(many(tmp_path / "in"), tmp_path / "tried", val_fraction=0.25)
    read: list[str] = []
    original = LocalSource.read
    monkeypatch.setattr(
        LocalSource, "read", lambda self, path, pin: (read.append(path), original(self, path, pin))[1]
    )
    drawn = sample_images(tried.pinned.as_dataset(tmp_path), 5, seed=3)
    nothing = KeptPictures(tmp_path / "empty", 1 << 30)
    out = tried.sample([image.id for image in drawn], nothing)
    assert len(read) == len(set(read)) == 5
    # what is drawn of the sample is the sample, by the same ids
    opened = open_dataset(out)
    assert [image.id for image in sample_images(opened, 5, seed=3)] == [image.id for image in drawn]
    assert opened.digest == tried.result.digest == tried.pinned.digest
    # and nothing is fetched that this host has
    tried.sample([image.id for image in drawn], nothing)
    assert len(read) == 5


def test_ids_do_not_depend_on_the_sample(tmp_path: Path) -> None:
    tried = Tried(many(tmp_path / "in"), tmp_path / "tried")

    def rows(out: Path) -> dict:
        opened = open_dataset(out)
        places = zip(opened.annotation_ids.tolist(), opened.annotation_image_ids.tolist(), strict=True)
        return dict(zip(places, opened.boxes.tolist(), strict=True))

    whole, part = rows(tried.sample()), rows(tried.sample([7, 30]))
    assert len(part) == 2
    assert part.items() <= whole.items()


def test_the_summary_counts_what_the_annotations_say(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 10)
    (folder / "labels/009.txt").write_text("")
    tried = Tried(folder, tmp_path / "tried", val_fraction=0.2)
    summary = tried.result.summary
    assert (summary["images"], summary["annotations"], summary["images_without_boxes"]) == (10, 9, 1)
    assert summary["categories"] == [
        {"id": 1, "name": "cat", "annotations": 5, "images": 5},
        {"id": 2, "name": "dog", "annotations": 4, "images": 4},
    ]
    assert {name: split["images"] for name, split in summary["splits"].items()} == {"train": 8, "val": 2}
    total = sum(path.stat().st_size for path in (folder / "images").iterdir())
    assert summary["pictures"] == {"at": tried.url, "bytes": total}


def test_the_digest_follows_labels_sizes_and_times(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 4)
    first = Tried(folder, tmp_path / "1").result.digest
    assert Tried(folder, tmp_path / "2").result.digest == first
    (folder / "labels/000.txt").write_text("1 0.5 0.5 0.5 0.25\n")
    second = Tried(folder, tmp_path / "3").result.digest
    os.utime(folder / "images/000.png", ns=(1, 1))
    third = Tried(folder, tmp_path / "4").result.digest
    assert len({first, second, third}) == 3


def _overwritten(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _same_size_later(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(5, 5))


def _a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _in_a_linked_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")


@pytest.mark.parametrize(
    "change", [_overwritten, _same_size_later, Path.unlink, _a_link, _a_pipe, _in_a_linked_folder]
)
def test_a_picture_that_changed_is_refused(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 3)
    tried = Tried(folder, tmp_path / "tried")
    tried.look()
    change(folder / "images/001.png")
    with pytest.raises(SourceError) as refusal:
        tried.sample(kept=KeptPictures(tmp_path / "empty", 1 << 30))
    assert refusal.value.code == "changed"
    assert "images/00" in refusal.value.detail
    assert "make the dataset anew" in refusal.value.detail
    if change is not _in_a_linked_folder:  # which is found out where the picture is opened
        with pytest.raises(SourceError, match=r"001\.png"):
            tried.look()


def test_pictures_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 30)
    (folder / "images/002.png").write_bytes(b"no picture")
    (folder / "images/003.png").write_bytes((folder / "images/004.png").read_bytes())
    (folder / "labels/005.txt").write_text("0 5.0 5.0 0.1 0.1\n")
    tried = Tried(folder, tmp_path / "tried")
    sample = tried.sample()
    left = {row["source"] for row in json.loads((sample / "annotations.json").read_text())["images"]}
    assert {f"images/00{n}.png" for n in range(10)} - left == {
        "images/002.png",
        "images/004.png",
        "images/005.png",
    }
    report = json.loads((sample / "report.json").read_text())
    assert report["counts"] == {
        "unreadable_image": 1,
        "duplicate_image": 1,
        "box_outside": 1,
        "emptied_image": 1,
    }
    assert tried.result.summary["images"] == 30


def test_a_source_without_a_readable_picture_is_no_dataset(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 5)
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(Unusable, match=r"None of the 5 pictures.*not a picture of a known format"):
        Tried(folder, tmp_path / "tried")
    with pytest.raises(Unusable):
        Tried(folder / "labels", tmp_path / "labels")


def test_links_are_named_and_not_followed(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 4)
    picture(tmp_path / "secret.png", 20, 20)
    (folder / "images/900.png").symlink_to(tmp_path / "secret.png")
    text(folder / "labels/900.txt", "0 0.5 0.5 0.5 0.5\n")
    (folder / "more").symlink_to(tmp_path)
    tried = Tried(folder, tmp_path / "tried")
    assert tried.result.summary["images"] == 4
    assert tried.result.report["counts"]["unsafe_path"] == 2


def test_a_root_that_became_a_link_is_refused(tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 3)
    tried = Tried(folder, tmp_path / "tried")
    folder.rename(tmp_path / "moved")
    folder.symlink_to("moved")
    with pytest.raises(SourceError) as refusal:
        source_at(tried.url)
    assert refusal.value.code == "denied"
    folder.unlink()
    with pytest.raises(SourceError) as refusal:
        source_at(tried.url)
    assert refusal.value.code == "not_found"


def test_nothing_outside_the_root_is_opened(tmp_path: Path) -> None:
    (tmp_path / "root/folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root/link").symlink_to("../secret")
    (tmp_path / "root/out").symlink_to("..")
    for path in ("link", "out/secret"):
        with pytest.raises(OSError, match=r"link|Not a directory"):
            open_beneath(tmp_path / "root", path)


def test_more_files_than_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="DETRANK_MAX_SOURCE_FILES") as refusal:
        Tried(many(tmp_path / "in", 3), tmp_path / "tried", bounds=Bounds(files=6))
    assert refusal.value.code == "too_large"


def test_what_is_kept_stays_within_its_bound_and_what_is_held_stays(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path / "kept", 25)
    fetched: list[str] = []

    def hold(name: str) -> Path:
        at = tmp_path / f"{name}{len(fetched)}"
        kept.hold("s", name, Pin(10, "1"), lambda: (fetched.append(name), b"0123456789")[1], at)
        return at

    held = [hold(name) for name in "abc"]
    for age, path in enumerate(held):
        os.utime(path, (age, age))
    kept.make_room()
    assert len([path for path in kept.folder.rglob("*") if path.is_file()]) == 2
    assert [path.read_bytes() for path in held] == [b"0123456789"] * 3
    hold("c")
    assert fetched == ["a", "b", "c"]
    hold("a")
    assert fetched == ["a", "b", "c", "a"]


def test_stopping_between_pictures(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    yolo(tmp_path / "in")
    with pytest.raises(Stop):
        Tried(tmp_path / "in", tmp_path / "tried", check=check)


@pytest.mark.parametrize("url", ["/a/folder", "ftp://x/y", "http://127.0.0.1/x", "s3:/x"])
def test_other_urls_are_no_sources(url: str) -> None:
    with pytest.raises(SourceError) as refusal:
        source_at(url)
    assert refusal.value.code == "bad_source"
