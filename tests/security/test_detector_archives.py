"""Packed transformers folders from strangers: read without unpacking paths, running code or believing sizes."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from models_store import Unusable, archives
from models_store.conversion import Request, convert_here
from models_store.inspect import inspect
from models_store.limits import Limits
from models_store.load import digest_of

CONFIG = json.dumps({"model_type": "detr"}).encode()
SMALL = Limits(tensor_bytes=1 << 20, header_bytes=1 << 16)


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return path


def refusal(path: Path, tmp_path: Path, limits: Limits = SMALL) -> Unusable:
    beside = tmp_path / "beside"
    beside.mkdir(exist_ok=True)
    with pytest.raises(Unusable) as caught:
        archives.unpack(path, beside, limits)
    return caught.value


def test_paths_in_an_archive_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    only_outside = {"../config.json": CONFIG, "../model.safetensors": b"x" * 9}
    for path in (zipped(tmp_path / "o.zip", only_outside), tarred(tmp_path / "o.tar.gz", only_outside)):
        assert refusal(path, tmp_path).code == "not_a_checkpoint"
    members = {
        "config.json": CONFIG,
        "model.safetensors": b"z" * 9,
        "../config.json": CONFIG,
        "../model.safetensors": b"x" * 9,
        f"{outside}/model.safetensors": b"y",
    }
    for path in (zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar.gz", members)):
        beside = tmp_path / f"beside-{path.suffix}"
        beside.mkdir()
        before = {p for p in tmp_path.rglob("*") if beside not in p.parents}
        folder = archives.unpack(path, beside, SMALL)
        assert [p.parent for p in folder.weights] == [beside]
        assert {p for p in tmp_path.rglob("*") if beside not in p.parents} == before


def test_links_and_devices_are_not_read(tmp_path: Path) -> None:
    link = tarfile.TarInfo("model.safetensors")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    fifo = tarfile.TarInfo("pytorch_model.bin")
    fifo.type = tarfile.FIFOTYPE
    path = tarred(tmp_path / "a.tar.gz", {"config.json": CONFIG, "l": link, "f": fifo})
    assert refusal(path, tmp_path).code == "no_tensors"


def test_a_small_archive_of_many_zeros_is_refused_by_its_claim(tmp_path: Path) -> None:
    members = {"config.json": CONFIG, "model.safetensors": bytes(4 << 20)}
    zip_path, tar_path = zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar.gz", members)
    assert max(zip_path.stat().st_size, tar_path.stat().st_size) < 1 << 16
    assert refusal(zip_path, tmp_path).code == "too_large"
    assert refusal(tar_path, tmp_path).code == "too_large"
    big = zipped(tmp_path / "b.zip", {"config.json": bytes(9 << 20), "model.safetensors": b"x"})
    assert refusal(big, tmp_path, Limits()).code == "too_large"


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    members = {"config.json": CONFIG, "model.safetensors": bytes(1 << 18)}
    path = zipped(tmp_path / "a.zip", members)
    raw = path.read_bytes()
    claimed, lie = (1 << 18).to_bytes(4, "little"), (1 << 8).to_bytes(4, "little")
    assert raw.count(claimed) >= 2
    path.write_bytes(raw.replace(claimed, lie))
    assert refusal(path, tmp_path).code == "corrupt"


@pytest.mark.parametrize("content", [b"{", b"[1]", b"[" * 200_000, b'{"weight_map": 3}', b"\xff\xfe"])
def test_json_that_is_none(content: bytes, tmp_path: Path) -> None:
    broken = zipped(tmp_path / "a.zip", {"config.json": content, "model.safetensors": b"x"})
    if b"weight_map" not in content:
        assert refusal(broken, tmp_path).code == "corrupt"
    index = zipped(tmp_path / "b.zip", {"config.json": CONFIG, "model.safetensors.index.json": content})
    assert refusal(index, tmp_path).code == "corrupt"


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode()
    path = zipped(tmp_path / "a.zip", {"config.json": CONFIG, "model.safetensors.index.json": index})
    assert refusal(path, tmp_path).code == "corrupt"


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_half_an_archive(keep: float, tmp_path: Path) -> None:
    members = {"config.json": CONFIG, "model.safetensors": os.urandom(1 << 16)}
    for path in (zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar.gz", members)):
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * keep)])

        def read(path: Path = path) -> None:
            inspect(path, SMALL)
            archives.unpack(path, tmp_path, SMALL)

        with pytest.raises(Unusable) as caught:
            read()
        assert caught.value.code in ("truncated", "corrupt")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def test_torch_weights_inside_are_read_by_the_restricted_unpickler(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "x": Payload()}, saved)
    path = zipped(tmp_path / "a.zip", {"config.json": CONFIG, "pytorch_model.bin": saved.getvalue()})
    (tmp_path / "out").mkdir()
    with pytest.raises(Unusable) as caught:
        convert_here(Request(path, digest_of(path), "a.zip", tmp_path / "out", None, None, {}, Limits()))
    assert caught.value.code == "unsafe_pickle"
    bare = zipped(tmp_path / "b.zip", {"config.json": CONFIG, "pytorch_model.bin": pickle.dumps(Payload())})
    with pytest.raises(Unusable):
        convert_here(Request(bare, digest_of(bare), "b.zip", tmp_path / "out", None, None, {}, Limits()))
    assert not (tmp_path / "payload-ran").exists()
    assert not list((tmp_path / "out").iterdir())
