"""Look at a checkpoint file without running anything in it: no torch, no unpickling.

Reads the first bytes, the zip directory of a torch file or the header of a safetensors file, and refuses
what cannot be a checkpoint before a single tensor is touched.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models_store.archives import checkpoints_among, holds_config, is_tar
from models_store.errors import Unusable
from models_store.limits import Limits

Container = Literal["torch_zip", "torch_legacy", "safetensors", "archive", "numpy_pickle"]

# torch's own magic number as a protocol 2 pickle, the first object of every legacy file.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# A pickle of protocol 2 to 5; what is in it only the restricted unpickler finds out.
PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
PICKLE_STOP = b"."
ZIP_MAGIC = b"PK\x03\x04"

DTYPE_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "C64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}

MAX_DIMENSIONS = 16
GRAPHS = "it holds an exported program: send the weights that it was exported from"
PACKED = "packed as bz2, xz, 7z, rar or zst (unpack it first)"
# (first bytes, where they are, what the file is)
FOREIGN = (
    (b"TFL3", 4, "a TFLite graph"),
    *((magic, 0, PACKED) for magic in (b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")),
    (b"\x93NUMPY", 0, "one numpy array without a name (.npy)"),
    (b"GGUF", 0, "a GGUF file of llama.cpp"),
    (b"ftrt", 0, "a TensorRT engine"),
    (b"ptrt", 0, "a TensorRT engine"),
)
# After the version of the format: producer, its version, domain, model version, documentation, graph, opset.
ONNX_FIELDS = tuple(bytes([tag]) for tag in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42))
EXPORTED = "a program of torch.export (.pt2)"
ZIPPED = {
    "saved_model.pb": "a zipped SavedModel of TensorFlow",
    "archive_format": EXPORTED,
    "serialized_exported_program.json": EXPORTED,
}
# Version 0.1 or 0.2, revisions 0 to 5, as three whole numbers.
DARKNET = tuple(struct.pack("<3i", 0, minor, revision) for minor in (1, 2) for revision in range(6))


@dataclass(frozen=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """What a file says about itself. ``tensors`` is filled for safetensors only."""

    container: Container
    size: int
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def inspect(path: Path, limits: Limits = Limits()) -> Inspection:
    """Container, size and, where the header tells them, tensors of ``path``.

    Raises Unusable: ``missing``, ``empty``, ``too_large``, ``not_a_checkpoint``, ``truncated``, ``corrupt``.
    """
    path = Path(path)
    if not path.is_file():
        raise Unusable("missing", f"{path.name} is not a file")
    size = path.stat().st_size
    if size == 0:
        raise Unusable("empty", "the file has 0 bytes: the upload or download did not finish; send it again")
    if size > limits.file_bytes:
        raise Unusable(
            "too_large",
            f"the file has {size} bytes, at most {limits.file_bytes} are read: save the weights alone, without "
            "optimizer state",
        )
    with path.open("rb") as file:
        first = file.read(512)
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
    head = first[:64]
    if head.startswith(ZIP_MAGIC):
        return _torch_zip(path, size, limits)
    if head.startswith(LEGACY_MAGIC):
        return Inspection("torch_legacy", size)
    if is_tar(first):
        return Inspection("archive", size)
    if _looks_like_safetensors(head, size):
        return _safetensors(path, size, limits)
    if head.startswith(PICKLE_STARTS):
        if last != PICKLE_STOP:
            raise Unusable(
                "truncated", "the file begins as a pickle but does not end as one: send the whole file"
            )
        return Inspection("numpy_pickle", size)
    raise Unusable(
        "not_a_checkpoint",
        f"{_what_it_is(head)}, not a checkpoint: send a torch file (.pth, .pt) with a state dict, .safetensors, a "
        "pickle of numpy arrays as detectron2 writes it (.pkl), or a packed transformers folder (.zip, .tar.gz)",
    )


def _what_it_is(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "the file begins with zeros"
    if head.lstrip()[:1] == b"<":
        return "the file is HTML or XML (a download page that was saved instead of the file?)"
    if head.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer (fetch the file itself with `git lfs pull`)"
    if head.startswith(b"\x89HDF"):
        return "the file is HDF5 (Keras?)"
    for magic, at, what in FOREIGN:
        if head[at : at + len(magic)] == magic:
            return f"the file is {what}" if what.endswith(")") else f"the file is {what}; {GRAPHS}"
    if head[:1] == b"\x08" and 0 < head[1] < 32 and head[2:3] in ONNX_FIELDS:
        return f"the file is an ONNX graph; {GRAPHS}"
    if head[:12] in DARKNET:
        return "the file is Darknet's .weights (YOLOv2 to v4), whose networks are not read"
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        return "the file is text"
    return "the file's first bytes are of no known container"


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] >= 2


def _torch_zip(path: Path, size: int, limits: Limits) -> Inspection:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unusable(
            "truncated",
            f"the file begins as a zip but its directory cannot be read ({error}): send the whole file",
        ) from None
    if any(member.filename.endswith("model.weights.h5") for member in members):
        raise Unusable(
            "not_a_checkpoint",
            "the file is a model of Keras, whose networks are not read: send the weights of the torch model",
        )
    if holds_config([member.filename for member in members]):
        return Inspection("archive", size)
    if len(members) > limits.tensors + 100:
        raise Unusable("too_large", f"{len(members)} members, at most {limits.tensors} tensors are read")
    names = [member.filename for member in members]
    for member, what in ZIPPED.items():
        if any(name == member or name.endswith("/" + member) for name in names):
            raise Unusable("not_a_checkpoint", f"the file is {what}; {GRAPHS}")
    if len(set(names)) != len(names):
        raise Unusable("corrupt", "the zip directory lists one name twice: save the state dict again")
    pickles = [m for m in members if m.filename.endswith("/data.pkl") and m.filename.count("/") == 1]
    if not pickles and not any("/code/" in n for n in names) and checkpoints_among(names):
        return Inspection("archive", size)
    if names and all(name.endswith(".npy") for name in names):
        raise Unusable(
            "not_a_checkpoint",
            "the file holds numpy arrays (.npz): save them as tensors, by name, with safetensors or torch.save",
        )
    if len(pickles) != 1:
        hint = "a TorchScript archive" if any("/code/" in n for n in names) else "a zip of another kind"
        raise Unusable(
            "not_a_checkpoint",
            f"{hint}: no single data.pkl inside; save the weights with torch.save(model.state_dict(), path)",
        )
    root = pickles[0].filename.split("/")[0] + "/"
    if any(name.startswith(root + "code/") or name == root + "constants.pkl" for name in names):
        raise Unusable(
            "not_a_checkpoint",
            "a TorchScript archive holds a program: save the weights with torch.save(model.state_dict(), path)",
        )
    if pickles[0].file_size > limits.header_bytes:
        raise Unusable(
            "too_large", f"data.pkl has {pickles[0].file_size} bytes, at most {limits.header_bytes}"
        )
    if sum(member.file_size for member in members) > size or any(m.compress_type for m in members):
        raise Unusable(
            "corrupt",
            "the zip holds compressed members; torch writes them uncompressed, so this is not a file of torch.save",
        )
    return Inspection("torch_zip", size)


def _safetensors(path: Path, size: int, limits: Limits) -> Inspection:
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > limits.header_bytes:
            raise Unusable(
                "corrupt", f"the safetensors header claims {length} bytes, at most {limits.header_bytes}"
            )
        if 8 + length > size:
            raise Unusable(
                "truncated",
                f"the safetensors header claims {length} bytes but the file has {size}: send it whole",
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unusable("corrupt", f"the safetensors header is not JSON ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise Unusable("corrupt", "the safetensors header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Unusable("corrupt", "the safetensors metadata is not a map of strings")
    if len(header) > limits.tensors:
        raise Unusable("too_large", f"{len(header)} tensors, at most {limits.tensors} are read")
    data = size - 8 - length
    tensors = {name: _tensor_info(name, entry, data) for name, entry in header.items()}
    if not tensors:
        raise Unusable("no_tensors", "the safetensors file holds no tensor")
    _check_ranges({name: entry["data_offsets"] for name, entry in header.items()}, data)
    return Inspection("safetensors", size, tensors, dict(metadata))


def _tensor_info(name: str, entry: object, data: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise Unusable(
            "corrupt", f"the header entry of {name[:200]!r} has no dtype, shape and two offsets"
        ) from None
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise Unusable("corrupt", f"{name[:200]!r} has the unknown dtype {str(dtype)[:50]!r}")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers)
    ):
        raise Unusable(
            "corrupt", f"{name[:200]!r} has a shape or offsets that are not small lists of whole numbers"
        )
    needed = math.prod(shape) * DTYPE_BYTES[dtype]
    if end < begin or end - begin != needed:
        raise Unusable(
            "shape_bomb",
            f"{name[:200]!r} claims shape {list(shape)} ({needed} bytes) over {end - begin} bytes",
        )
    if end > data:
        raise Unusable("truncated", f"{name[:200]!r} ends at byte {end} of {data}: send the whole file")
    return TensorInfo(dtype, tuple(shape))


def _check_ranges(ranges: dict[str, list[int]], data: int) -> None:
    position = 0
    for name, (begin, end) in sorted(ranges.items(), key=lambda item: tuple(item[1])):
        if begin != position:
            raise Unusable("corrupt", f"the bytes of {name[:200]!r} overlap others or leave a hole")
        position = end
    if position != data:
        raise Unusable("corrupt", f"{data - position} bytes at the end of the file belong to no tensor")
