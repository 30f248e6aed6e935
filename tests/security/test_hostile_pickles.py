"""Numpy pickles that mean harm: nothing in them is run, each is refused with a precise reason."""

import contextlib
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from models_store import Limits, Unusable, convert, numpy_pickle


class Payload:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def refused(path: Path, content: bytes) -> Unusable:
    path.write_bytes(content)
    with pytest.raises(Unusable) as refusal:
        numpy_pickle.read(path)
    assert refusal.value.detail
    return refusal.value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_payload_among_arrays_is_named_and_not_run(tmp_path, protocol):
    touched = tmp_path / "touched"
    model = {"stem.conv1.weight": np.zeros(3), "x": Payload(os.system, f"touch {touched}")}
    refusal = refused(tmp_path / "x.pkl", pickle.dumps({"model": model}, protocol=protocol))
    assert refusal.code == "unsafe_pickle"
    assert "system" in refusal.detail
    assert not touched.exists()


@pytest.mark.parametrize(
    "function",
    [
        (eval, "1"),
        (getattr, "x", "upper"),
        (__import__, "os"),
        (np.load, "x"),
        (np.memmap, "/etc/hostname"),
        (np.fromfile, "/etc/hostname"),
        (np.zeros, 10**12),
        (bytearray, 10**12),
        (pickle.loads, b"."),
    ],
)
def test_every_other_function_is_refused(tmp_path, function):
    refusal = refused(tmp_path / "x.pkl", pickle.dumps({"model": Payload(*function)}))
    assert refusal.code == "unsafe_pickle"


def test_protocol_0_and_references_outside_are_refused(tmp_path):
    with pytest.raises(Unusable):
        convert(_written(tmp_path / "x.pkl", pickle.dumps({}, protocol=0)), tmp_path / "out")
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream)
    pickler.persistent_id = lambda value: "storage" if isinstance(value, set) else None
    pickler.dump({"x": {1}})
    assert refused(tmp_path / "y.pkl", stream.getvalue()).code == "unsafe_pickle"


def test_arrays_of_objects_are_refused(tmp_path):
    array = np.array([{}, None], dtype=object)
    assert refused(tmp_path / "x.pkl", pickle.dumps({"model": {"w": array}}, protocol=4)).code in {
        "unsupported_tensor",
        "corrupt",
    }


@pytest.mark.parametrize("kind", ["U5", "S5", "M8[s]", "c16", [("a", "f4"), ("b", "O")]])
def test_arrays_of_no_plain_number_are_refused(tmp_path, kind):
    content = pickle.dumps({"model": {"w": np.zeros(2, dtype=kind)}}, protocol=4)
    assert refused(tmp_path / "x.pkl", content).code in {"unsupported_tensor", "corrupt"}


def test_claimed_shape_over_few_bytes_is_refused(tmp_path):
    content = pickle.dumps({"model": {"w": np.zeros(7, dtype=np.float32)}}, protocol=2)
    # BININT1 7 of the shape becomes a BININT of two thousand millions.
    small, large = b"K\x07\x85", b"J" + struct.pack("<i", 2_000_000_000) + b"\x85"
    assert content.count(small) == 1
    assert refused(tmp_path / "x.pkl", content.replace(small, large)).code == "shape_bomb"


def test_dictionary_that_holds_itself_is_refused(tmp_path):
    loop: dict = {"w": np.zeros(2)}
    loop["model"] = loop
    assert refused(tmp_path / "x.pkl", pickle.dumps(loop)).code == "corrupt"
    layers: dict = {"w": np.zeros(2)}
    for _ in range(7):
        layers = {str(i): layers for i in range(100)}
    assert refused(tmp_path / "y.pkl", pickle.dumps(layers)).code == "corrupt"


@pytest.mark.parametrize("keep", [10, 0.5, -2])
def test_truncated_pickles_are_refused(tmp_path, keep):
    whole = pickle.dumps({"model": {"w": np.zeros(100)}})
    cut = whole[: int(len(whole) * keep)] if isinstance(keep, float) else whole[:keep]
    assert refused(tmp_path / "x.pkl", cut).code == "corrupt"


def test_pickle_with_a_tail_is_refused(tmp_path):
    assert refused(tmp_path / "x.pkl", pickle.dumps({"w": np.zeros(2)}) + b"more.").code == "corrupt"


def test_state_set_on_the_stand_ins_runs_nothing(tmp_path):
    """BUILD may set attributes of what the pickle names; nothing that it can reach is code."""
    frozen = b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93N}\x8c\x05numpyK\x01s\x86b."
    with contextlib.suppress(Unusable):
        numpy_pickle.read(_written(tmp_path / "x.pkl", frozen))
    healthy = {"model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    read = numpy_pickle.read(_written(tmp_path / "y.pkl", pickle.dumps(healthy)))
    assert read["model"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.slow
def test_hostile_pickle_through_the_limited_child(tmp_path):
    touched = tmp_path / "touched"
    source = _written(tmp_path / "x.pkl", pickle.dumps({"model": Payload(os.system, f"touch {touched}")}))
    with pytest.raises(Unusable) as refusal:
        convert(source, tmp_path / "out", limits=Limits(cpu_s=60, wall_s=120))
    assert refusal.value.code == "unsafe_pickle"
    assert not touched.exists()
    assert not (tmp_path / "out").exists()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
