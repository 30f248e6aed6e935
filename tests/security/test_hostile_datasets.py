"""Archives made to harm: every fault costs at most its own picture or annotation, and nothing outside is touched."""

import contextlib
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from worker.data.dataset import open_dataset
from worker.data.faults import Unusable
from worker.data.ingest import ingest
from worker.data.pictures import BadPicture, inspect


def _picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(4096)))
        + chunk(b"IEND", b"")
    )


def _coco(folder: Path, names: list, categories: list | None = None) -> None:
    content = {
        "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 1, "bbox": [1, 1, 9, 9]}
            for index in range(len(names))
        ],
        "categories": categories or [{"id": 1, "name": "thing"}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.json").write_text(json.dumps(content))


@pytest.mark.parametrize("size", [(50_000, 50_000), (20_000, 5_000), (2**31 - 1, 2**31 - 1)])
def test_huge_picture_is_a_fault_and_never_decoded(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture(tmp_path / "in/small.png")
    (tmp_path / "in/huge.png").write_bytes(_png_header(*size))
    _coco(tmp_path / "in", ["small.png", "huge.png"])
    loaded: list[tuple[int, int]] = []
    load = PIL.Image.Image.load

    def watched(self: PIL.Image.Image):
        loaded.append(self.size)
        return load(self)

    monkeypatch.setattr(PIL.Image.Image, "load", watched)
    report = ingest(tmp_path / "in", tmp_path / "out").report
    assert report["counts"] == {"image_too_large": 1}
    assert "the limit is 89,478,485 pixels" in report["faults"][0]["reason"]
    assert size not in loaded
    assert len(open_dataset(tmp_path / "out").images) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "../secret.png",
        "/etc/passwd",
        "in/../../secret.png",
        "C:\\secret.png",
        "\\\\host\\secret.png",
        "..\\secret.png",
    ],
)
def test_names_that_lead_outside_are_refused(name: str, tmp_path: Path) -> None:
    _picture(tmp_path / "secret.png", seed=9)
    _picture(tmp_path / "in/good.png")
    _coco(tmp_path / "in", ["good.png", name, f"/{tmp_path}/secret.png"])
    report = ingest(tmp_path / "in", tmp_path / "out").report
    assert report["counts"] == {"unsafe_path": 2}
    assert report["annotations_dropped"] == 2
    assert len(open_dataset(tmp_path / "out").images) == 1


@pytest.mark.parametrize("kind", ["csv", "voc", "labels"])
def test_other_formats_refuse_them_too(kind: str, tmp_path: Path) -> None:
    _picture(tmp_path / "secret.png", seed=9)
    _picture(tmp_path / "in/good.png")
    if kind == "csv":
        (tmp_path / "in/x.csv").write_text(
            "filename,class,xmin,ymin,xmax,ymax\ngood.png,a,1,1,9,9\n../secret.png,a,1,1,9,9\n"
        )
    elif kind == "labels":
        (tmp_path / "in/x.csv").write_text("filename,label\ngood.png,a\n../secret.png,a\n")
    else:
        box = "<object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        (tmp_path / "in/good.xml").write_text(f"<annotation>{box}</annotation>")
        (tmp_path / "in/bad.xml").write_text(
            f"<annotation><filename>../secret.png</filename>{box}</annotation>"
        )
    report = ingest(tmp_path / "in", tmp_path / "out").report
    assert report["counts"] == {"unsafe_path": 1}
    assert len(open_dataset(tmp_path / "out").images) == 1


def test_yolo_lists_cannot_lead_outside(tmp_path: Path) -> None:
    _picture(tmp_path / "secret.png", seed=9)
    _picture(tmp_path / "in/images/good.png")
    (tmp_path / "in/labels").mkdir()
    (tmp_path / "in/labels/good.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "in/data.yaml").write_text(
        f"path: {tmp_path}\ntrain: ../../../etc\nval: [{tmp_path}, list.txt]\ntest: /etc/passwd.txt\nnames: [a]\n"
    )
    (tmp_path / "in/list.txt").write_text("../secret.png\nimages/good.png\n")
    ingest(tmp_path / "in", tmp_path / "out")
    assert len(open_dataset(tmp_path / "out").images) == 1


def test_links_are_refused(tmp_path: Path) -> None:
    secret = _picture(tmp_path / "secret.png", seed=9)
    _picture(tmp_path / "in/good.png")
    (tmp_path / "in/link.png").symlink_to(secret)
    _coco(tmp_path / "in", ["good.png", "link.png"])
    counts = ingest(tmp_path / "in", tmp_path / "out").report["counts"]
    assert counts == {"unsafe_path": 1, "missing_image": 1}


@pytest.mark.parametrize(
    "xml",
    [
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
        '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]><annotation><object><name>&c;</name></object></annotation>',
        "<annotation><object><name>",
        "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>",
    ],
)
def test_hostile_xml_costs_that_file_only(xml: str, tmp_path: Path) -> None:
    _picture(tmp_path / "in/good.png")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (tmp_path / "in/good.xml").write_text(f"<annotation><object><name>a</name>{box}</object></annotation>")
    (tmp_path / "in/bad.xml").write_text(xml)
    report = ingest(tmp_path / "in", tmp_path / "out").report
    assert len(open_dataset(tmp_path / "out").boxes) == 1
    assert report["dropped"] == 1
    assert "root:" not in json.dumps(report)


@pytest.mark.parametrize(
    "yaml_text",
    [
        "names: !!python/object/apply:os.system ['touch pwned']\n",
        "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c]\nnames: [*d,*d,*d]\n",
        "names: " + "[" * 5000 + "]" * 5000,
        "nc: 999999999999\nnames: {99999999999: a}\n",
        "names: {0: {1: 2}}\ntrain: {1: [2]}\nval: 3\n",
    ],
)
def test_hostile_yaml(yaml_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _picture(tmp_path / "in/images/good.png")
    (tmp_path / "in/labels").mkdir()
    (tmp_path / "in/labels/good.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "in/data.yaml").write_text(yaml_text)
    with contextlib.suppress(Unusable):
        ingest(tmp_path / "in", tmp_path / "out")
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        '{"images": 5, "file_name": 1}',
        '{"images": [{"id": [1], "file_name": "good.png"}], "annotations": 3}',
        '{"images": [1, null, "x"], "annotations": [[]], "file_name": 0}',
        '{"images": [{"id": 1, "file_name": ["good.png"]}], "annotations": [{"image_id": {"a": 1}}]}',
        '{"images": [{"id": 1, "file_name": "good.png", "width": 1e999, "height": -5}], "annotations": [], "categories": [{"id": true}, {"id": "x", "name": 7}]}',
        '{"images": [{"id": 1, "file_name": "good.png"}], "annotations": [{"image_id": 1, "bbox": ['
        + "9" * 5000
        + ", 1, 1, 1]}]}",
    ],
)
def test_hostile_json_never_escapes_as_another_error(content: str, tmp_path: Path) -> None:
    _picture(tmp_path / "in/good.png")
    (tmp_path / "in/x.json").write_text(content)
    try:
        result = ingest(tmp_path / "in", tmp_path / "out", format="coco")
    except Unusable as refusal:
        json.dumps(refusal.report)
        return
    assert result.supervision == "none"


def test_category_names_stay_names(tmp_path: Path) -> None:
    _picture(tmp_path / "in/good.png")
    name = "../../../evil\x00\n<script>" + "x" * 5000
    _coco(tmp_path / "in", ["good.png"], [{"id": 1, "name": name}])
    ingest(tmp_path / "in", tmp_path / "out")
    (category,) = open_dataset(tmp_path / "out").categories
    assert category.startswith("../../../evil")
    assert len(category) <= 200
    assert category.isprintable()
    written = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert written == {
        "annotations.json",
        "report.json",
        "images/000001.png",
        "previews/preview.jpg",
        "previews/preview_1.jpg",
    }


@pytest.mark.parametrize(
    "name",
    [
        "日本 語.png",
        "e\u0301.png",
        " lead.png",
        "a'b\"c;$(touch x).png",
        "-rf.png",
        "%2e%2e.png",
        "x" * 200 + ".png",
    ],
)
def test_odd_file_names(name: str, tmp_path: Path) -> None:
    _picture(tmp_path / "in" / name)
    _coco(tmp_path / "in", [name])
    ingest(tmp_path / "in", tmp_path / "out")
    assert len(open_dataset(tmp_path / "out").boxes) == 1


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    _picture(folder / "good.png")
    os.rename(os.fsencode(folder / "good.png"), os.fsencode(folder) + b"/\xff\xfe.png")
    result = ingest(folder, tmp_path / "out")
    assert result.supervision == "none"
    json.loads((tmp_path / "out/annotations.json").read_text())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".bmp", ".webp"])
def test_every_cut_of_a_picture_is_refused_or_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    data = _picture(path).read_bytes()
    for length in range(0, len(data), max(len(data) // 60, 1)):
        path.write_bytes(data[:length])
        code = None
        try:
            assert inspect(path).width == 32
        except BadPicture as refusal:
            code = refusal.code
        assert code in (None, "unreadable_image")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".bmp", ".webp"])
def test_damaged_pictures_never_raise_anything_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    data = bytearray(_picture(path).read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 6):
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(BadPicture):
            inspect(path)


def test_other_decoders_stay_shut(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(BadPicture, match="not a picture of a known format"):
        inspect(tmp_path / "a.png")
