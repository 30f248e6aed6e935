import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models_store.errors import Unusable
from models_store.inspect import inspect
from models_store.limits import Limits


def safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_the_three_containers_are_told_apart(tmp_path):
    state = {"w": torch.arange(6.0).view(2, 3)}
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "st", metadata={"mean": "0.5"})
    found = [inspect(tmp_path / name) for name in ("zip.pth", "legacy.pth", "st")]
    assert [f.container for f in found] == ["torch_zip", "torch_legacy", "safetensors"]
    assert found[2].tensors["w"].shape == (2, 3)
    assert found[2].metadata == {"mean": "0.5"}


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        ({}, b"", "no_tensors"),
        ([1], b"", "not_a_checkpoint"),
        (b"{" + b"[" * 200_000, b"", "corrupt"),
        (b'{"a":' + b'{"a":' * 50_000, b"", "corrupt"),
        ({"w": entry([2], 0, 8)}, b"\0" * 8, None),
        ({"w": entry([2], 0, 8)}, b"\0" * 9, "corrupt"),
        ({"w": entry([2], 0, 8)}, b"\0" * 7, "truncated"),
        ({"w": entry([10**6, 10**6], 0, 8)}, b"\0" * 8, "shape_bomb"),
        ({"w": entry([-2], 0, 8)}, b"\0" * 8, "corrupt"),
        ({"w": entry([2.0], 0, 8)}, b"\0" * 8, "corrupt"),
        ({"w": entry([True, 2], 0, 8)}, b"\0" * 8, "corrupt"),
        ({"w": entry([2], 0, 8, "F31")}, b"\0" * 8, "corrupt"),
        ({"w": entry([1] * 99 + [2], 0, 8)}, b"\0" * 8, "corrupt"),
        ({"w": entry([2], 0, 8), "v": entry([2], 4, 12)}, b"\0" * 12, "corrupt"),
        ({"w": entry([2], 0, 8), "v": entry([1], 12, 16)}, b"\0" * 16, "corrupt"),
        ({"w": {"dtype": "F32"}}, b"", "corrupt"),
        ({"__metadata__": {"a": 1}, "w": entry([2], 0, 8)}, b"\0" * 8, "corrupt"),
    ],
)
def test_safetensors_headers(tmp_path, header, data, code):
    path = safetensors(tmp_path / "x", header, data)
    if code is None:
        assert inspect(path).tensors["w"].shape == (2,)
        return
    with pytest.raises(Unusable) as refusal:
        inspect(path)
    assert refusal.value.code == code


def test_a_header_longer_than_the_file_or_the_limit(tmp_path):
    path = safetensors(tmp_path / "x", {"w": entry([2], 0, 8)}, b"\0" * 8, length=10_000)
    with pytest.raises(Unusable, match="truncated"):
        inspect(path)
    with pytest.raises(Unusable, match="corrupt"):
        inspect(path, Limits(header_bytes=100))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0" * 100, "zeros"),
        (b"<!DOCTYPE html><html>" + b" " * 50, "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 50, "LFS"),
        (b"hello, these are weights\n" * 9, "text"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "HDF5"),
        (b"x", "text"),
        (bytes(range(130, 230)), "no known container"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, said):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Unusable, match=said) as refusal:
        inspect(tmp_path / "x")
    assert refusal.value.code == "not_a_checkpoint"


def test_torchscript_and_compressed_zips_are_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(Unusable, match="TorchScript"):
        inspect(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 1_000_000)
    with pytest.raises(Unusable, match="compressed"):
        inspect(tmp_path / "bomb.pth")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", b"hello")
    with pytest.raises(Unusable, match=r"no single data\.pkl"):
        inspect(tmp_path / "other.zip")


def test_size_limit_and_absence(tmp_path):
    torch.save({"w": torch.zeros(10)}, tmp_path / "x")
    with pytest.raises(Unusable) as refusal:
        inspect(tmp_path / "x", Limits(file_bytes=10))
    assert refusal.value.code == "too_large"
    with pytest.raises(Unusable) as refusal:
        inspect(tmp_path / "absent")
    assert refusal.value.code == "missing"


def test_pickle_is_looked_at_from_both_ends(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04\x95" + b"x" * 90)
    with pytest.raises(Unusable) as refusal:
        inspect(tmp_path / "x")
    assert refusal.value.code == "truncated"
    (tmp_path / "x").write_bytes(b"\x80\x04}.")
    assert inspect(tmp_path / "x").container == "numpy_pickle"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x08\x07\x12\x07pytorch\x1a\x032.1:" + b"\0" * 90, "ONNX.*exported from"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 90, "TFLite.*exported from"),
        (b"ftrt" + b"\1" * 90, "TensorRT.*exported from"),
        (b"GGUF\3\0\0\0" + b"\0" * 90, "GGUF"),
        (struct.pack("<3i", 0, 2, 5) + b"\1" * 90, "Darknet"),
    ],
)
def test_graphs_of_other_programs_are_named(tmp_path, content, words):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Unusable, match=words) as refusal:
        inspect(tmp_path / "x")
    assert refusal.value.code == "not_a_checkpoint"


@pytest.mark.parametrize(
    ("member", "words"), [("model.weights.h5", "Keras"), ("export/saved_model.pb", "SavedModel")]
)
def test_zipped_models_of_other_programs_are_named(tmp_path, member, words):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, b"x")
        if words == "Keras":
            archive.writestr("config.json", "{}")
    with pytest.raises(Unusable, match=words) as refusal:
        inspect(tmp_path / "x.zip")
    assert refusal.value.code == "not_a_checkpoint"
