"""detectron2's pickles of numpy arrays, read without running anything in them.

The unpickler knows a dozen names and answers each with a stand-in of this file: no numpy function sees a foreign value
before its type, shape and size were compared. Everything else is refused by name.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models_store.errors import Unusable, out_of_memory

PLAIN_TYPE = re.compile(r"(f[248]|[iu][1248]|b1)")
MAX_DIMENSIONS = 16
MAX_DEPTH = 8
MAX_ENTRIES = 100_000


class DType:
    """Stands for ``numpy.dtype``: its code and byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numpy(self) -> np.dtype:
        bare = self.code.lstrip("<>|=")
        if not PLAIN_TYPE.fullmatch(bare):
            raise Unusable(
                "unsupported_tensor", f"an array has the type {self.code[:50]!r}: only numbers are read"
            )
        order = self.code[0] if self.code[0] in "<>" else self.order
        return np.dtype(bare).newbyteorder({"<": "<", ">": ">"}.get(order, "="))  # type: ignore[arg-type]


class Array:
    """Stands for an array until everything about it is known."""

    def __init__(self) -> None:
        self.shape: object = ()
        self.type: object = None
        self.columns_first = False
        self.data: object = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array's state is not numpy's")
        _, self.shape, self.type, columns_first, self.data = state
        self.columns_first = bool(columns_first)

    def tensor(self) -> Tensor:
        """The values in this machine's byte order. Raises Unusable ``corrupt``, ``unsupported_tensor``, ``shape_bomb``."""
        # Written by Python 2, bytes come as latin-1 text.
        data = self.data.encode("latin-1") if isinstance(self.data, str) else self.data
        shape = self.shape
        if (
            not isinstance(self.type, DType)
            or not isinstance(data, bytes | bytearray)
            or not isinstance(shape, tuple)
            or len(shape) > MAX_DIMENSIONS
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise Unusable("corrupt", "an array in the pickle has no plain type, shape and bytes")
        kind = self.type.numpy()
        if math.prod(shape) * kind.itemsize != len(data):
            raise Unusable("shape_bomb", f"an array claims shape {list(shape)} over {len(data)} bytes")
        values = np.frombuffer(data, kind).reshape(shape, order="F" if self.columns_first else "C")
        return torch.from_numpy(np.array(values, dtype=kind.newbyteorder("="), order="C"))


class NDArray:
    """Only ever named, as the first argument of ``_reconstruct``."""


def _reconstruct(kind: object, *_: object) -> Array:
    if kind is not NDArray:
        raise pickle.UnpicklingError("only plain arrays are read")
    return Array()


def _from_buffer(data: object, kind: object, shape: object, order: object = "C") -> Array:
    array = Array()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


def _scalar(kind: object, data: object = b"") -> Array:
    return _from_buffer(data, kind, ())


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or str(encoding).replace("-", "") != "latin1":
        raise pickle.UnpicklingError("only latin-1 text is turned into bytes")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """What protocol 2 writes for an empty array's bytes."""
    return b""


NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): DType,
    ("numpy", "ndarray"): NDArray,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "deque"): deque,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = NAMES.get((module, name))
        if found is None:
            raise Unusable(
                "unsafe_pickle",
                f"the pickle asks for {module[:100]}.{name[:100]} and was not run: only numpy arrays in plain "
                "dictionaries are read; save the weights with torch.save(model.state_dict(), path), or as safetensors",
                [{"global": f"{module[:100]}.{name[:100]}", "message": "not allowed"}],
            )
        return found

    def persistent_load(self, pid: object) -> Any:
        raise Unusable("unsafe_pickle", "the pickle refers to objects outside itself and was not run")


def read(path: Path) -> object:
    """The file's dictionaries with tensors in the place of arrays. Raises Unusable."""
    try:
        with path.open("rb") as file:
            loaded = _Unpickler(file, encoding="latin1").load()
            if file.read(1):
                raise Unusable("corrupt", "the file goes on after its pickle: save it again")
        return _Plain().value(loaded, 0)
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # a broken pickle stream can end in any error of the unpickler
        if out_of_memory(error):
            raise MemoryError(str(error)) from None
        raise Unusable(
            "corrupt", f"the pickle cannot be read ({type(error).__name__}: {str(error)[:200]})"
        ) from None


class _Plain:
    """Turns stand-ins to tensors, each array once; a dictionary that holds itself many times over is refused."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.entries = 0

    def value(self, value: object, depth: int) -> object:
        if isinstance(value, Array):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = value.tensor()
            return self.tensors[id(value)]
        if isinstance(value, dict):
            self.entries += len(value)
            if depth > MAX_DEPTH or self.entries > MAX_ENTRIES:
                raise Unusable("corrupt", "the pickle's dictionaries are nested too deep, or hold too much")
            return {
                str(k)[:500]: self.value(v, depth + 1) for k, v in value.items() if isinstance(k, str | int)
            }
        return value if isinstance(value, str | int | float | bool | None) else type(value).__name__
