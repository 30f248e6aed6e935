"""Archives as people have them: names in other encodings or differing in case only, zips beside and inside, linked folders."""

import gzip
import io
import os
import zipfile
from pathlib import Path

import pytest

from app.errors import UnusableArchive
from app.storage.archives import ArchiveLimits, unpack
from detrank.files import open_for_upload
from worker.data.encodings import encoding_of_names

LIMITS = ArchiveLimits(files=50, total_bytes=60 << 20, file_bytes=40 << 20, ratio=200)


def zip_with(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def zip_named(names: list[bytes]) -> bytes:
    """A zip whose names are these bytes, without the flag that says UTF-8."""
    whole = zip_with(
        {
            name.decode("latin-1").translate(
                str.maketrans(dict.fromkeys(map(chr, range(128, 256)), "x"))
            ): b"x"
            for name in names
        }
    )
    for name in names:
        plain = bytes(byte if byte < 128 else ord("x") for byte in name)
        whole = whole.replace(plain, name)
    return whole


def files_of(content: bytes, folder: Path) -> dict[str, bytes]:
    (folder / "source").write_bytes(content)
    root = unpack(folder / "source", folder / "into", LIMITS, encoding_of=encoding_of_names).root
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "gb18030"])
@pytest.mark.parametrize("word", ["\u56fe\u7247", "\u6807\u6ce8/\u8bad\u7ec3\u96c6 1"])
def test_names_without_the_flag(encoding: str, word: str, tmp_path: Path) -> None:
    names = [f"{word}{place}.jpg" for place in range(3)]
    found = files_of(zip_named([name.encode(encoding) for name in names]), tmp_path)
    assert set(found) == set(names)


def test_names_of_the_zips_own_encoding(tmp_path: Path) -> None:
    assert set(files_of(zip_named(["B\u00e4r 1.jpg".encode("cp437")]), tmp_path)) == {"B\u00e4r 1.jpg"}


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    found = files_of(zip_with({"a/x.jpg": b"1", "a/X.JPG": b"2", "A/x.jpg": b"3"}), tmp_path)
    assert found == {"a/x.jpg": b"1", "a/X.JPG": b"2", "A/x.jpg": b"3"}


@pytest.mark.parametrize(
    ("inner", "at", "found"),
    [
        ("images.zip", {"a.jpg": b"a"}, {"images/a.jpg"}),
        ("images.zip", {"images/a.jpg": b"a", "images/b/c.jpg": b"c"}, {"images/a.jpg", "images/b/c.jpg"}),
        ("set/Train.ZIP", {"a.jpg": b"a"}, {"set/Train/a.jpg"}),
    ],
)
def test_a_zip_inside_is_opened_into_the_folder_of_its_name(
    inner: str, at: dict, found: set, tmp_path: Path
) -> None:
    assert set(files_of(zip_with({"x.json": b"{}", inner: zip_with(at)}), tmp_path)) == {"x.json", *found}


def test_a_zip_alone_in_a_zip_is_opened(tmp_path: Path) -> None:
    assert files_of(zip_with({"set.zip": zip_with({"set/a.jpg": b"a"})}), tmp_path) == {"set/a.jpg": b"a"}


def test_a_zip_beside_its_folder_stays_a_file(tmp_path: Path) -> None:
    inner = zip_with({"a.jpg": b"a"})
    assert files_of(zip_with({"images/a.jpg": b"a", "images.zip": inner}), tmp_path) == {
        "images/a.jpg": b"a",
        "images.zip": inner,
    }


def test_other_archives_inside_stay_files(tmp_path: Path) -> None:
    packed = gzip.compress(b"words")
    files = {"a.jpg": b"a", "more.tar.gz": packed, "no.zip": b"none"}
    assert files_of(zip_with(files), tmp_path) == files


def test_two_levels_are_opened_once(tmp_path: Path) -> None:
    deep = zip_with({"a.jpg": b"a"})
    found = files_of(
        zip_with({"x.txt": b"x", "one.zip": zip_with({"two.zip": deep, "b.jpg": b"b"})}), tmp_path
    )
    assert found == {"x.txt": b"x", "one/b.jpg": b"b", "one/two.zip": deep}


def test_linked_folders_and_files_are_packed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a.jpg").write_bytes(b"a")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "far", tmp_path / "set/images")
    os.symlink(tmp_path / "far/a.jpg", tmp_path / "set/b.jpg")
    os.symlink(tmp_path / "set", tmp_path / "set/loop")
    with open_for_upload(tmp_path / "set") as packed, zipfile.ZipFile(packed) as archive:
        assert sorted(archive.namelist()) == ["b.jpg", "images/a.jpg"]


def test_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone", tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a.jpg: a link to nothing"), open_for_upload(tmp_path):
        pass


def test_an_archive_of_archives_that_are_not_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableArchive, match="only another archive"):
        files_of(zip_with({"a.tar": b"x", "b.7z": b"y"}), tmp_path)
