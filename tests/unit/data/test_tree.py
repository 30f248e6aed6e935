import unicodedata
from pathlib import Path

import pytest
from hand_made import text

from worker.data.tree import NoSuchPicture, walk, written_parts


@pytest.fixture
def tree(tmp_path: Path):
    for name in (
        "train/a.jpg",
        "val/a.jpg",
        "deep/down/b.png",
        "ÜBER.jpg",
        "one image.jpeg",
        "notes.md",
        "__MACOSX/train/a.jpg",
        "train/._a.jpg",
    ):
        text(tmp_path / unicodedata.normalize("NFD", name), name)
    return walk(tmp_path)


def test_empty_folder(tmp_path: Path) -> None:
    assert walk(tmp_path).files == ()
    assert walk(tmp_path).inventory() == "no files at all"


def test_litter_is_left_out(tree) -> None:
    assert len(tree.files) == 6
    assert len(tree.images) == 5


@pytest.mark.parametrize(
    ("name", "near", "split", "found"),
    [
        ("a.jpg", ["train"], None, "train/a.jpg"),
        ("./a.jpg", ["train"], None, "train/a.jpg"),
        ("val/a.jpg", [], None, "val/a.jpg"),
        ("val\\a.jpg", [], None, "val/a.jpg"),
        ("a.jpg", [], "val", "val/a.jpg"),
        ("A.JPG", ["train"], None, "train/a.jpg"),
        ("somewhere/else/b.png", [], None, "deep/down/b.png"),
        ("über.jpg", [], None, "ÜBER.jpg"),
        ("one image.jpeg", [], None, "one image.jpeg"),
    ],
)
def test_lookup(tree, name: str, near: list, split: str | None, found: str) -> None:
    assert unicodedata.normalize("NFC", tree.image_named(name, near, split)) == found


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "missing_image"),
        ("nothing.jpg", "missing_image"),
        ("a.jpg", "missing_image"),  # two of them
        ("../gone/c.jpg", "unsafe_path"),
        ("../../etc/passwd", "unsafe_path"),
        ("/etc/passwd", "unsafe_path"),
        ("C:\\Windows\\win.ini", "unsafe_path"),
        ("\\\\host\\share\\a.jpg", "unsafe_path"),
        ("train/../a.jpg", "unsafe_path"),
        ("a\0.jpg", "unsafe_path"),
    ],
)
def test_refusals(tree, name: str, code: str) -> None:
    with pytest.raises(NoSuchPicture) as refusal:
        tree.image_named(name)
    assert refusal.value.code == code


def test_links_are_listed_not_followed(tmp_path: Path) -> None:
    outside = text(tmp_path / "outside/secret.jpg", "x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file.jpg").symlink_to(outside)
    (tmp_path / "in/folder").symlink_to(outside.parent)
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    tree = walk(tmp_path / "in")
    assert (tree.files, tree.links) == ((), ("file.jpg", "folder", "loop"))


def test_written_parts() -> None:
    assert written_parts(" ./a//b/./c.jpg") == ["a", "b", "c.jpg"]
