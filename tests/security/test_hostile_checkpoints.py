"""Files that mean harm or are broken: a precise refusal, nothing run, nothing left behind, the process alive."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from models_store import Limits, Unusable, convert, isolated

FEW_SECONDS = Limits(cpu_s=60, wall_s=120)


class Payload:
    """Runs a command when a careless loader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def classifier() -> dict[str, torch.Tensor]:
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


def refused(source: Path, tmp_path: Path, **asked: object) -> Unusable:
    """The refusal; asserts that neither the target nor anything beside it was left."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(Unusable) as refusal:
        convert(source, home / "converted", limits=asked.pop("limits", FEW_SECONDS), **asked)
    assert list(home.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert refusal.value.detail
    return refusal.value


def torch_zip(path: Path, data: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A file with torch's layout and a pickle of our own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for name, content in (storages or {}).items():
            archive.writestr(f"archive/data/{name}", content)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_payload_in_a_torch_file_is_named_and_not_run(tmp_path, legacy):
    touched = tmp_path / "touched"
    source = tmp_path / "x.pth"
    torch.save(classifier() | {"extra": Payload(touched)}, source, _use_new_zipfile_serialization=not legacy)
    refusal = refused(source, tmp_path)
    assert refusal.code == "unsafe_pickle"
    assert "system" in refusal.detail
    assert not touched.exists()


def test_payload_in_a_bare_pickle_is_not_run(tmp_path):
    touched = tmp_path / "touched"
    source = tmp_path / "x.pth"
    source.write_bytes(pickle.dumps(Payload(touched)))
    refusal = refused(source, tmp_path)
    assert refusal.code == "unsafe_pickle"
    assert "system" in refusal.detail
    assert not touched.exists()


def test_payload_under_the_one_allowed_class_is_not_run(tmp_path):
    """Namespace may be built; its state may not smuggle another class in."""
    import argparse

    touched = tmp_path / "touched"
    source = tmp_path / "x.pth"
    torch.save({"model": classifier(), "args": argparse.Namespace(lr=Payload(touched))}, source)
    assert refused(source, tmp_path).code == "unsafe_pickle"
    assert not touched.exists()


def test_a_whole_model_is_refused_with_what_to_do(tmp_path):
    source = tmp_path / "x.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None), source)
    refusal = refused(source, tmp_path)
    assert refusal.code == "unsafe_pickle"
    assert "state_dict" in refusal.detail


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_truncated_zip(tmp_path, share):
    whole = io.BytesIO()
    torch.save(classifier(), whole)
    source = tmp_path / "x.pth"
    source.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
    assert refused(source, tmp_path).code == "truncated"


def test_truncated_legacy_file(tmp_path):
    whole = io.BytesIO()
    torch.save(classifier(), whole, _use_new_zipfile_serialization=False)
    source = tmp_path / "x.pth"
    source.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    assert refused(source, tmp_path).code in {"corrupt", "truncated"}


def test_truncated_safetensors(tmp_path):
    save_file(classifier(), tmp_path / "whole")
    source = tmp_path / "x.safetensors"
    source.write_bytes((tmp_path / "whole").read_bytes()[:-100])
    assert refused(source, tmp_path).code == "truncated"


def test_zero_bytes(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    assert refused(tmp_path / "x.pth", tmp_path).code == "empty"


@pytest.mark.parametrize(
    "start",
    [b"", b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", struct.pack("<Q", 9) + b'{"a":{} }'],
)
def test_ten_gigabytes_of_zeros(tmp_path, start):
    source = tmp_path / "x.pth"
    with source.open("wb") as file:
        file.write(start)
        file.truncate(10_000_000_000)
    assert refused(source, tmp_path).code == "too_large"


def test_zeros_below_the_limit(tmp_path):
    source = tmp_path / "x.pth"
    with source.open("wb") as file:
        file.truncate(3_000_000_000)
    assert refused(source, tmp_path).code == "not_a_checkpoint"


def test_shape_bomb_by_strides_of_zero(tmp_path):
    source = tmp_path / "x.pth"
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, source)
    assert source.stat().st_size < 3000
    assert refused(source, tmp_path).code == "shape_bomb"


def test_one_storage_claimed_by_many_tensors(tmp_path):
    source = tmp_path / "x.pth"
    block = torch.zeros(1 << 20)
    torch.save({f"a{i}.weight": block.view(-1) for i in range(300)}, source)
    refusal = refused(source, tmp_path, limits=Limits(tensor_bytes=1 << 30, cpu_s=60, wall_s=120))
    assert refusal.code == "too_large"


def test_storage_larger_than_the_loader_may_hold(tmp_path):
    """A legacy file announces storages before it holds them: 2**41 bytes here."""
    whole = io.BytesIO()
    torch.save({"w": torch.zeros(16)}, whole, _use_new_zipfile_serialization=False)
    announced = whole.getvalue()
    small, huge = b"K\x10Nt", b"\x8a\x06" + (1 << 39).to_bytes(6, "little") + b"Nt"
    assert announced.count(small) == 1
    source = tmp_path / "x.pth"
    source.write_bytes(announced.replace(small, huge))
    assert refused(source, tmp_path).code in {"too_large", "corrupt", "shape_bomb"}


def test_safetensors_with_a_lying_header(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 8]}}).encode()
    source = tmp_path / "x.safetensors"
    source.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    assert refused(source, tmp_path).code == "shape_bomb"
    source.write_bytes(struct.pack("<Q", 1 << 62) + header + b"\0" * 8)
    assert refused(source, tmp_path).code in {"corrupt", "truncated"}


def test_half_of_the_keys(tmp_path):
    state = classifier()
    source = tmp_path / "x.pth"
    torch.save(dict(list(state.items())[: len(state) // 2]), source)
    refusal = refused(source, tmp_path)
    assert refusal.code == "missing_keys"
    assert "squeezenet1_1" in refusal.detail


def test_half_of_the_keys_of_a_named_architecture_are_listed(tmp_path):
    state = classifier()
    source = tmp_path / "x.pth"
    torch.save(dict(list(state.items())[: len(state) // 2]), source)
    refusal = refused(source, tmp_path, architecture="torchvision/squeezenet1_1")
    assert refusal.code == "missing_keys"
    assert {"key": "features.12.expand3x3.weight", "message": "missing"} in refusal.errors


def test_unknown_architecture(tmp_path):
    source = tmp_path / "x.pth"
    torch.save({"layers.0.weight": torch.zeros(4, 4), "layers.1.weight": torch.zeros(2, 4)}, source)
    refusal = refused(source, tmp_path)
    assert refusal.code == "unknown_architecture"
    assert "layers.0.weight" in refusal.detail


def test_text_file(tmp_path):
    (tmp_path / "x.pth").write_text("weights: yes\n" * 50)
    assert refused(tmp_path / "x.pth", tmp_path).code == "not_a_checkpoint"


def nested_dict(depth: int) -> bytes:
    # {"model": {"model": ... }} as pickle opcodes: EMPTY_DICT, key, ... SETITEM from the inside out.
    return b"\x80\x02" + b"}X\x05\x00\x00\x00model" * depth + b"}" + b"s" * depth + b"."


def nested_list(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


@pytest.mark.parametrize("make", [nested_dict, nested_list])
def test_deeply_nested_pickle(tmp_path, make: Callable[[int], bytes]):
    source = torch_zip(tmp_path / "x.pth", make(300_000))
    assert refused(source, tmp_path).code in {"not_a_state_dict", "corrupt", "too_large"}


def test_deeply_nested_safetensors_header(tmp_path):
    header = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    source = tmp_path / "x.safetensors"
    source.write_bytes(struct.pack("<Q", len(header)) + header)
    assert refused(source, tmp_path).code == "corrupt"


def test_weights_that_are_not_finite(tmp_path):
    state = classifier()
    state["features.0.weight"][0, 0, 0, 0] = float("nan")
    source = tmp_path / "x.safetensors"
    save_file(state, source)
    refusal = refused(source, tmp_path)
    assert refusal.code == "not_finite"
    assert "features.0.weight" in refusal.detail


def test_a_file_that_is_too_slow_is_stopped(tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    assert refused(source, tmp_path, limits=Limits(wall_s=0)).code == "too_slow"


def test_a_file_beyond_the_memory_limit_is_refused(tmp_path):
    source = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(100 << 20)}, source, _use_new_zipfile_serialization=False)
    refusal = refused(source, tmp_path, limits=Limits(memory_bytes=1 << 30, cpu_s=60, wall_s=120))
    assert refusal.code == "too_large"


def test_cancelling_stops_the_child_and_leaves_nothing(tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    (tmp_path / "home").mkdir()

    class Cancelled(Exception):
        pass

    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        convert(source, tmp_path / "home" / "converted", check=check)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.fixture
def nursery(monkeypatch) -> Iterator[isolated.Nursery]:
    """A prepared process of this test's own, started after a secret came into the environment."""
    monkeypatch.setenv("DETRANK_DATABASE_URL", "postgresql://hunter2")
    made = isolated.Nursery()
    monkeypatch.setattr(isolated, "NURSERY", made)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def child_of(pid: int) -> int | None:
    """The first process that `pid` forked."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            return int(stat.parent.name)
    return None


def test_the_child_sees_no_secret_of_its_parent_and_no_network(nursery, tmp_path):
    """Told by a real child while it works: its environment, limits, session, descriptors and network."""
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    seen: dict[str, object] = {}

    def look() -> None:
        child = child_of(nursery.process.pid)
        if child is None or "session" in seen:
            return
        home = Path(f"/proc/{child}")
        descriptors = [os.readlink(fd) for fd in (home / "fd").iterdir()]
        if os.getsid(child) != child or any("socket" in target for target in descriptors):
            return  # it has not closed them yet
        limits = (home / "limits").read_text()
        if "max address space     unlimited" in limits.lower():
            return
        seen["environment"] = (home / "environ").read_text()
        seen["data"] = re.search(r"Max data size +(\d+)", limits)[1]
        seen["network"] = os.readlink(home / "ns/net")
        seen["session"] = os.getsid(child)

    for name in ("first", "second", "third"):
        convert(source, tmp_path / name, limits=FEW_SECONDS, check=look)
        if "session" in seen:
            break
    assert "hunter2" not in str(seen["environment"])
    assert seen["data"] == str(FEW_SECONDS.memory_bytes)
    left = subprocess.run(
        [sys.executable, "-c", "from models_store.limits import leave_network; print(leave_network())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (seen["network"] != os.readlink("/proc/self/ns/net")) == ("True" in left.stdout)


def test_the_next_conversion_is_not_touched_by_a_hostile_one(nursery, tmp_path):
    """All are forked from one process: what one of them does to itself stays in it."""
    bad = tmp_path / "bad.pth"
    torch.save(classifier() | {"extra": Payload(tmp_path / "touched")}, bad)
    good = tmp_path / "good.safetensors"
    save_file(classifier(), good)
    pids = []
    for _ in range(2):
        assert refused(bad, tmp_path).code == "unsafe_pickle"
        convert(good, tmp_path / "out", limits=FEW_SECONDS)
        pids.append(nursery.process.pid)
        shutil.rmtree(tmp_path / "out")
    assert pids[0] == pids[1]
    assert not (tmp_path / "touched").exists()


def test_a_nursery_that_died_is_started_again(nursery, tmp_path):
    good = tmp_path / "good.safetensors"
    save_file(classifier(), good)
    convert(good, tmp_path / "first", limits=FEW_SECONDS)
    first = nursery.process
    first.kill()
    first.wait()
    convert(good, tmp_path / "second", limits=FEW_SECONDS)
    assert nursery.process.pid != first.pid


def test_cancelling_ends_the_child_itself(nursery, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    seen: list[int] = []

    class Cancelled(Exception):
        pass

    def check() -> None:
        if child := child_of(nursery.process.pid):
            seen.append(child)
            raise Cancelled

    for name in ("a", "b", "c"):
        with contextlib.suppress(Cancelled):
            convert(source, tmp_path / name, check=check)
        if seen:
            break
    until = time.monotonic() + 10
    while Path(f"/proc/{seen[0]}").exists():
        assert time.monotonic() < until, "the child lives on"
        time.sleep(0.05)


@pytest.mark.parametrize("whom", ["child", "nursery"])
def test_who_is_killed_from_outside_says_nothing_about_the_file(whom, nursery, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    struck: list[int] = []

    def strike() -> None:
        if not struck and (child := child_of(nursery.process.pid)):
            struck.append(child)
            os.kill(child if whom == "child" else nursery.process.pid, 9)

    codes = []
    for name in ("a", "b", "c", "d"):
        try:
            convert(source, tmp_path / name, limits=FEW_SECONDS, check=strike)
        except Unusable as refusal:
            codes.append(refusal.code)
            break
    assert codes == ["killed"]
    convert(source, tmp_path / "after", limits=FEW_SECONDS)


def test_a_nursery_that_is_only_dying_is_not_asked_again(nursery, tmp_path, monkeypatch):
    """A killed process closes its descriptors one by one: the channel may be shut while control still takes packets."""
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    dying = (
        "import os, socket, time\n"
        "with socket.socket(fileno=0) as control:\n"
        "    for descriptor in socket.recv_fds(control, 1 << 20, 3)[1]:\n"
        "        os.close(descriptor)\n"
        "    time.sleep(300)\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr("models_store.isolated.COMMAND", (sys.executable, "-c", dying))
        assert refused(source, tmp_path).code == "killed"
    convert(source, tmp_path / "after", limits=FEW_SECONDS)


def test_a_file_that_takes_too_much_cpu_is_too_slow(tmp_path):
    source = tmp_path / "x.safetensors"
    save_file(classifier(), source)
    assert refused(source, tmp_path, limits=Limits(cpu_s=1, wall_s=60)).code == "too_slow"
