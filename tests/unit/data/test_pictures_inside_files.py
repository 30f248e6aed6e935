"""Parquet and TFRecord: pictures that lie inside the files are read like any others, and broken or hostile files are refused."""

import io
import json
import struct
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hand_made import CLASSES, SCENE, text

from worker.data.dataset import Dataset, open_dataset
from worker.data.faults import Unusable
from worker.data.formats import hf_parquet
from worker.data.ingest import ingest

pyarrow = pytest.importorskip("pyarrow", reason="parquet is an extra: pip install 'detrank[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")


def _png(name: str) -> bytes:
    _, width, height, _ = SCENE[name]
    pixels = np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _hf_schema(table: object) -> object:
    objects = {"feature": {"category": {"names": CLASSES, "_type": "ClassLabel"}}, "_type": "Sequence"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "objects": objects}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(features)})  # type: ignore[attr-defined]


def write_parquet(folder: Path, *, named: bool = True, path: bool = True) -> None:
    """Hugging Face's layout: data/train-00000-of-00001.parquet, data/validation-..."""
    for name, (split, width, height, boxes) in SCENE.items():
        row = {
            "image_id": 1,
            "image": {"bytes": _png(name), "path": f"{name}.png" if path else None},
            "width": width,
            "height": height,
            "objects": {
                "bbox": [
                    [float(x1), float(y1), float(x2 - x1), float(y2 - y1)] for _, x1, y1, x2, y2 in boxes
                ],
                "category": [CLASSES.index(c) for c, *_ in boxes],
            },
        }
        table = pyarrow.Table.from_pylist([row])
        place = folder / "data" / f"{'validation' if split == 'val' else split}-00000-of-00001.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(_hf_schema(table) if named else table, place)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _feature(values: list) -> bytes:
    if isinstance(values[0], bytes):
        return _field(1, b"".join(_field(1, value) for value in values))
    if isinstance(values[0], float):
        return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
    return _field(3, _field(1, b"".join(map(_varint, values))))


def write_tfrecord(folder: Path, *, texts: bool = True) -> None:
    for name, (split, width, height, boxes) in SCENE.items():
        features = {
            "image/encoded": [_png(name)],
            "image/filename": [f"{name}.png".encode()],
            "image/object/bbox/xmin": [x1 / width for _, x1, *_ in boxes],
            "image/object/bbox/ymin": [y1 / height for _, _, y1, *_ in boxes],
            "image/object/bbox/xmax": [x2 / width for *_, x2, _ in boxes],
            "image/object/bbox/ymax": [y2 / height for *_, y2 in boxes],
            "image/object/class/label": [CLASSES.index(c) + 1 for c, *_ in boxes],
        }
        if texts:
            features["image/object/class/text"] = [c.encode() for c, *_ in boxes]
        example = _field(
            1,
            b"".join(
                _field(1, _field(1, key.encode()) + _field(2, _feature(values)))
                for key, values in features.items()
            ),
        )
        record = struct.pack("<Q", len(example)) + b"\0" * 4 + example + b"\0" * 4
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.tfrecord-00000-of-00001").write_bytes(record)


def _assert_right(dataset: Dataset) -> None:
    splits = {image.id: image.split for image in dataset.images}
    columns = zip(dataset.annotation_image_ids, dataset.labels, dataset.boxes.tolist(), strict=True)
    found = sorted((splits[int(image)], dataset.categories[label], *box) for image, label, box in columns)
    wanted = sorted(
        (split, c, *map(float, box)) for split, _, _, boxes in SCENE.values() for c, *box in boxes
    )
    for one, other in zip(found, wanted, strict=True):
        assert one[:2] == other[:2]
        assert one[2:] == pytest.approx(other[2:], abs=0.01)


@pytest.mark.parametrize("path", [True, False])
def test_parquet_is_read_with_its_pictures_and_splits(path: bool, tmp_path: Path) -> None:
    write_parquet(tmp_path / "in", path=path)
    result = ingest(tmp_path / "in", tmp_path / "out")
    _assert_right(open_dataset(tmp_path / "out"))
    assert (result.format, result.report["counts"]) == ("parquet", {})
    sources = {row["source"] for row in json.loads((tmp_path / "out/annotations.json").read_text())["images"]}
    first = "a.png" if path else "000001.jpg"
    assert f"data/train-00000-of-00001.parquet/{first}" in sources
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]  # nothing is left beside them


def test_classes_of_parquet_that_nothing_names_are_numbers_and_said(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in", named=False)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert open_dataset(tmp_path / "out").categories == ("0", "1")
    assert result.report["counts"] == {"unnamed_classes": 1}


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unusable, match=r"pip install 'detrank\[parquet\]'"):
        ingest(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "no objects"])
def test_parquet_that_cannot_be_read_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "in")
    for path in (tmp_path / "in/data").iterdir():
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-200])
        else:
            parquet.write_table(pyarrow.table({"text": ["hello"]}), path)
    with pytest.raises(Unusable, match=r"unread|parquet|cannot be read") as refusal:
        ingest(tmp_path / "in", tmp_path / "out")
    faults = refusal.value.report["faults"]
    assert {fault["code"] for fault in faults} <= {"unreadable_file", "unread_file"}
    assert any("train-00000" in fault["file"] for fault in faults)


def test_parquet_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_parquet, "_MAX_GROUP", 1 << 20)
    write_parquet(tmp_path / "in")
    bomb = tmp_path / "in/data/train-00000-of-00001.parquet"
    blob = pyarrow.array([b"\0" * (1 << 20)] * 2, type=pyarrow.binary())
    rows = pyarrow.table({"image": blob, "objects": [None] * 2})
    parquet.write_table(rows, bomb, compression="zstd", use_dictionary=False)
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert len(open_dataset(tmp_path / "out").images) == 1
    assert "row group unpacks to" in result.report["faults"][0]["reason"]


@pytest.mark.parametrize("texts", [True, False])
def test_tfrecord_is_read_with_its_pictures(texts: bool, tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "in", texts=texts)
    text(tmp_path / "in/label_map.pbtxt", "item { id: 1 name: 'cat' }\nitem { id: 2 name: 'dog' }\n")
    result = ingest(tmp_path / "in", tmp_path / "out")
    _assert_right(open_dataset(tmp_path / "out"))
    assert (result.format, result.report["counts"]) == ("tfrecord", {})


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: b"\xff" * 16 + data, lambda data: data + b"x" * 7]
)
def test_broken_tfrecord_is_counted_and_the_rest_is_kept(damage: object, tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "in")
    path = tmp_path / "in/train.tfrecord-00000-of-00001"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    result = ingest(tmp_path / "in", tmp_path / "out")
    assert set(result.report["counts"]) & {"unreadable_file", "unread_file"}
    assert (
        "cat" not in open_dataset(tmp_path / "out").categories
        or len(open_dataset(tmp_path / "out").images) == 2
    )
