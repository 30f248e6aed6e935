"""Checkpoints: payloads in every pickle there is, tensors whose shapes lie, headers, folders, cut and spoilt files."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save

from tests.security.hostile.case import Case, damaged, zip_of

MARKER = Path("/tmp/detrank-hostile-file-ran")
TOUCH = f"touch {MARKER}"
CODE = f"open({str(MARKER)!r}, 'w')"
# (module, name, arguments as pickle pushes them): what is called when a careless loader reads it
CALLS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "os.system": ("os", "system", (TOUCH,)),
    "posix.system": ("posix", "system", (TOUCH,)),
    "os.popen": ("os", "popen", (TOUCH,)),
    "subprocess.Popen": ("subprocess", "Popen", (["touch", str(MARKER)],)),
    "subprocess.check_output": ("subprocess", "check_output", (["touch", str(MARKER)],)),
    "builtins.eval": ("builtins", "eval", (CODE,)),
    "builtins.exec": ("builtins", "exec", (CODE,)),
    "__builtin__.eval": ("__builtin__", "eval", (CODE,)),
    "builtins.open": ("builtins", "open", (str(MARKER), "w")),
    "builtins.getattr": ("builtins", "getattr", ("os", "system")),
    "builtins.__import__": ("builtins", "__import__", ("os",)),
    "importlib.import_module": ("importlib", "import_module", ("os",)),
    "runpy.run_path": ("runpy", "run_path", (str(MARKER),)),
    "pickle.loads": ("pickle", "loads", (b"cos\nsystem\n.",)),
    "marshal.loads": ("marshal", "loads", (b"c",)),
    "operator.attrgetter": ("operator", "attrgetter", ("system",)),
    "functools.partial": ("functools", "partial", (print, "x")),
    "shutil.rmtree": ("shutil", "rmtree", ("/tmp/detrank-not-there",)),
    "pathlib.Path.touch": ("pathlib", "Path.touch", (str(MARKER),)),
    "torch.load": ("torch", "load", (str(MARKER),)),
    "torch.hub.load": ("torch.hub", "load", ("a/b", "c")),
    "torch.jit.load": ("torch.jit", "load", (str(MARKER),)),
    "torch.utils.cpp_extension.load": ("torch.utils.cpp_extension", "load", ("a", str(MARKER))),
    "numpy.load": ("numpy", "load", (str(MARKER),)),
    "numpy.memmap": ("numpy", "memmap", (str(MARKER), "uint8", "w+", 0, (9,))),
    "numpy.f2py.compile": ("numpy.f2py.crackfortran", "myeval", (CODE,)),
    "ctypes.CDLL": ("ctypes", "CDLL", ("libc.so.6",)),
    "webbrowser.open": ("webbrowser", "open", ("http://127.0.0.1",)),
    "socket.create_connection": ("socket", "create_connection", (("127.0.0.1", 9),)),
    "timeit.timeit": ("timeit", "timeit", (CODE,)),
    "cProfile.run": ("cProfile", "run", (CODE,)),
    "pdb.run": ("pdb", "run", (CODE,)),
    "code.interact": ("code", "interact", ()),
    "types.CodeType": ("types", "CodeType", ()),
    "logging.config.listen": ("logging.config", "listen", (0,)),
}


def _call(name: str) -> bytes:
    """Protocol 2: GLOBAL, the arguments, REDUCE."""
    module, function, arguments = CALLS[name]
    body = pickle.dumps(arguments, 2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + body + b"R."


def _in_dict(name: str) -> bytes:
    return b"\x80\x02}X\x05\0\0\0model" + _call(name)[2:-1] + b"s."


def torch_zip(data: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """A file of torch's layout with a pickle of our own."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for name, stored in (storages or {}).items():
            archive.writestr(f"archive/data/{name}", stored)
    return content.getvalue()


@cache
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None).half().state_dict()


@cache
def saved(form: str) -> bytes:
    content = io.BytesIO()
    match form:
        case "zip":
            torch.save(state(), content)
        case "legacy":
            torch.save(state(), content, _use_new_zipfile_serialization=False)
        case "safetensors":
            return save(state())
        case "numpy":
            pickle.dump({"model": {k: v.numpy() for k, v in state().items()}}, content, 2)
        case "folder":
            files = {"config.json": b'{"model_type": "detr"}', "model.safetensors": saved("safetensors")}
            return zip_of(files, zipfile.ZIP_STORED)
    return content.getvalue()


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], offset: int, count: int, held: bytes) -> bytes:
    """A torch file with one tensor that says this of itself and a storage of `held`."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", count)
            return None

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, (Storage(), offset, shape, stride, False, {})

    data = io.BytesIO()
    Pickler(data, 2).dump({"features.0.weight": Tensor()})
    return torch_zip(data.getvalue(), {"0": held})


LYING: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int, bytes]] = {
    "4 TB of strides of 0": ((10**6, 10**6), (0, 0), 0, 1, bytes(4)),
    "a shape beyond its storage": ((100, 100), (100, 1), 0, 4, bytes(16)),
    "a storage that holds less than it says": ((1000,), (1,), 0, 1000, bytes(16)),
    "a negative size": ((-5, 4), (4, 1), 0, 20, bytes(80)),
    "a negative stride": ((4, 4), (-4, 1), 0, 16, bytes(64)),
    "an offset beyond its storage": ((4,), (1,), 10**9, 4, bytes(16)),
    "a negative offset": ((4,), (1,), -100, 4, bytes(16)),
    "sizes that overflow": ((2**40, 2**40), (2**40, 1), 0, 4, bytes(16)),
    "2**62 elements": ((4,), (1,), 0, 2**62, bytes(16)),
    "200 dimensions": ((1,) * 200, (1,) * 200, 0, 1, bytes(4)),
    "more strides than sizes": ((4,), (1, 1, 1), 0, 4, bytes(16)),
}


def _header(header: Any, data: bytes = bytes(64), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def _one(dtype: Any = "F32", shape: Any = (4, 4), offsets: Any = (0, 64)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HEADERS: dict[str, Callable[[], bytes]] = {
    "an unknown number format": lambda: _header(_one("F1000")),
    "a number format that is a list": lambda: _header(_one(["F32"])),
    "a negative size": lambda: _header(_one(shape=(-4, -4))),
    "a size of 10**30": lambda: _header(_one(shape=(10**30,))),
    "a size that is text": lambda: _header(_one(shape="44")),
    "a size that is a fraction": lambda: _header(_one(shape=(4.5, 4))),
    "offsets that run backwards": lambda: _header(_one(offsets=(64, 0))),
    "offsets beyond the file": lambda: _header(_one(offsets=(0, 10**12))),
    "offsets before the file": lambda: _header(_one(offsets=(-64, 0))),
    "one offset": lambda: _header(_one(offsets=(0,))),
    "tensors that overlap": lambda: _header({"a": _one()["w"], "b": _one()["w"]}),
    "a hole": lambda: _header({"a": _one()["w"], "b": _one(offsets=(128, 192))["w"]}, bytes(192)),
    "no entries": lambda: _header({}),
    "a list": lambda: _header([1, 2]),
    "NaN": lambda: _header(b'{"w": NaN}'),
    "an entry that is null": lambda: _header({"w": None}),
    "metadata that is deep": lambda: _header(b'{"__metadata__":' + b'{"a":' * 50_000),
    "metadata of numbers": lambda: _header({"__metadata__": {"a": 1}, **_one()}),
    "a name twice": lambda: _header(b'{"w":1,"w":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}'),
    "100,000 tensors": lambda: _header({f"t{n}": _one()["w"] for n in range(100_000)}),
    "a length of 2**63": lambda: _header(_one(), length=2**63),
    "a length of 0": lambda: _header(_one(), length=0),
    "a name of 1 MB": lambda: _header({"w" * (1 << 20): _one()["w"]}),
}


def _deep(depth: int) -> bytes:
    return torch_zip(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")


def _memo_bomb() -> bytes:
    """Lists of ten references each, thirty deep: few bytes, 10**30 entries for whoever walks them."""
    body = b"\x80\x02]q\0"
    for n in range(30):
        body += b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
    return torch_zip(body + b".")


def _folder(**files: bytes) -> bytes:
    return zip_of({name.replace("__", "."): data for name, data in files.items()}, zipfile.ZIP_STORED)


def _not_finite() -> bytes:
    return save({**state(), "features.0.weight": torch.full_like(state()["features.0.weight"], float("nan"))})


OTHERS: dict[str, Callable[[], bytes]] = {
    "weights of NaN": _not_finite,
    "lists 300,000 deep": lambda: _deep(300_000),
    "references of references": _memo_bomb,
    "numpy of objects": lambda: pickle.dumps(np.array([object], dtype=object), 2),
    "a scalar": lambda: pickle.dumps(5, 2),
    "a set of text": lambda: pickle.dumps({"a", "b"}, 2),
    "text": lambda: b"hello " * 1000,
    "HTML": lambda: b"<!DOCTYPE html><title>404</title>",
    "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "ONNX": lambda: b"\x08\x07\x12\x07pytorch" + bytes(2000),
    "GGUF": lambda: b"GGUF" + bytes(2000),
    "a Git LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "TorchScript": lambda: zip_of(
        {"archive/data.pkl": b"", "archive/code/a.py": b"", "archive/version": b"3"}
    ),
    "a folder without weights": lambda: _folder(config__json=b'{"model_type": "detr"}'),
    "a folder whose configuration is deep": lambda: _folder(
        config__json=b'{"a":' * 100_000, model__safetensors=saved("safetensors")
    ),
    "a folder with a payload": lambda: _folder(
        config__json=b'{"model_type": "detr"}', pytorch_model__bin=torch_zip(_call("os.system"))
    ),
    "a folder with code": lambda: _folder(
        config__json=b'{"model_type": "detr", "auto_map": {"AutoModel": "evil.Model"}}',
        evil__py=CODE.encode(),
        model__safetensors=saved("safetensors"),
    ),
    "a folder whose index leads out": lambda: _folder(
        config__json=b'{"model_type": "detr"}',
        model__safetensors__index__json=b'{"weight_map": {"a": "../../etc/passwd"}}',
    ),
}


def _cut(form: str, share: float) -> bytes:
    return saved(form)[: int(len(saved(form)) * share)]


def _spoilt(form: str, seed: int) -> bytes:
    # in the first and last kilobytes, where headers and directories are: pixels of weights say nothing
    whole = saved(form)
    if seed % 2:
        return damaged(whole[:4096], seed) + whole[4096:]
    return whole[:-4096] + damaged(whole[-4096:], seed)


def cases() -> Iterator[Case]:
    for name in CALLS:
        yield Case(f"torch file that calls {name}", "checkpoints", partial(_zipped, name))
    for name in tuple(CALLS)[::4]:
        yield Case(f"pickle that calls {name}", "checkpoints", partial(_call, name))
    for name, what in LYING.items():
        yield Case(f"tensor with {name}", "checkpoints", partial(tensor, *what))
    for name, make in HEADERS.items():
        yield Case(f"safetensors with {name}", "checkpoints", make)
    for name, make in OTHERS.items():
        yield Case(name, "checkpoints", make)
    for form in ("zip", "legacy", "safetensors", "numpy", "folder"):
        for share in (0.01, 0.6, 0.999):
            yield Case(f"{form} file cut at {share:g}", "checkpoints", partial(_cut, form, share))
        for seed in range(4):
            make = partial(_spoilt, form, seed)
            yield Case(f"{form} file spoilt, seed {seed}", "checkpoints", make, spared=True)


def _zipped(name: str) -> bytes:
    return torch_zip(_in_dict(name))
