"""A transformers folder in one file: config.json beside weights, in a zip or a tar. No torch here.

Only the members that are needed are read, each into memory or into a file of ours with a name of ours; nothing is
unpacked by the archive's own paths.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from models_store.errors import Unusable
from models_store.limits import Limits

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
TORCH_WEIGHTS = "pytorch_model.bin"
JSON_BYTES = 8 << 20
MAX_MEMBERS = 10_000
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Folder:
    """What a transformers folder holds: two JSON objects and the weights' files, on this disk."""

    config: dict[str, Any]
    preprocessor: dict[str, Any] | None
    weights: tuple[Path, ...]


class _Members:
    """Regular members by path relative to the folder that holds config.json."""

    def __init__(self, names: dict[str, int], root: str, open_member: Any) -> None:
        self.sizes = {n.removeprefix(root): size for n, size in names.items() if n.startswith(root)}
        self._root, self._open = root, open_member

    def open(self, name: str) -> IO[bytes]:
        return self._open(self._root + name)


def is_tar(head: bytes) -> bool:
    """From the first 512 bytes."""
    return head.startswith(GZIP_MAGIC) or head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == TAR_MAGIC


def holds_config(names: list[str]) -> bool:
    """Whether one of a zip's members is a config.json at the top or in the one top folder."""
    return any(PurePosixPath(name).name == CONFIG and len(PurePosixPath(name).parts) <= 2 for name in names)


def pack(folder: Path, into: Path) -> Path:
    """The files of a transformers folder as an uncompressed zip whose bytes depend on their content only.

    Raises Unusable ``not_a_checkpoint`` where there is no config.json.
    """
    if not (folder / CONFIG).is_file():
        raise Unusable(
            "not_a_checkpoint",
            f"the folder {folder.name} holds no {CONFIG}: give a folder of save_pretrained",
        )
    wanted = {CONFIG, PREPROCESSOR, INDEX, WEIGHTS, TORCH_WEIGHTS}
    names = sorted(
        p.name for p in folder.iterdir() if p.is_file() and (p.name in wanted or p.suffix == ".safetensors")
    )
    path = into / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            with (folder / name).open("rb") as source:
                _store(archive, name, source)
    return path


def _store(archive: zipfile.ZipFile, name: str, source: IO[bytes]) -> None:
    with archive.open(zipfile.ZipInfo(name, ZIP_TIME), "w", force_zip64=True) as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)


def unpack(path: Path, into: Path, limits: Limits) -> Folder:
    """Read the folder inside ``path``. Raises Unusable: ``not_a_checkpoint``, ``corrupt``, ``too_large``."""
    try:
        with _opened(path, limits) as members:
            return _read(members, into, limits)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError) as error:
        raise Unusable("corrupt", f"the archive cannot be read ({str(error)[:200]}): send it whole") from None


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[_Members]:
    with path.open("rb") as file:
        head = file.read(512)
    if is_tar(head):
        with tarfile.open(path, "r:*") as archive:
            regular: dict[str, tarfile.TarInfo] = {}
            total = 0
            for info in archive:
                # Going on to the next member unpacks this one.
                total += info.size
                if total > limits.tensor_bytes + limits.header_bytes:
                    raise Unusable(
                        "too_large", f"the archive's members claim more than {limits.tensor_bytes} bytes"
                    )
                if info.isreg():
                    regular[info.name.removeprefix("./")] = info
                if len(regular) > MAX_MEMBERS:
                    raise Unusable("too_large", f"the archive holds more than {MAX_MEMBERS} members")
            sizes = {name: info.size for name, info in regular.items()}
            yield _Members(sizes, _root(sizes), lambda name: archive.extractfile(regular[name]))
    else:
        with zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir()]
            if len(infos) > MAX_MEMBERS:
                raise Unusable("too_large", f"the archive holds more than {MAX_MEMBERS} members")
            sizes = {i.filename: i.file_size for i in infos}
            yield _Members(sizes, _root(sizes), archive.open)


def _root(sizes: dict[str, int]) -> str:
    roots = sorted(
        (n.removesuffix(CONFIG) for n in sizes if PurePosixPath(n).name == CONFIG and n.count("/") <= 1),
        key=len,
    )
    if not roots:
        raise Unusable(
            "not_a_checkpoint",
            f"the archive holds no {CONFIG} at its top: pack the folder that save_pretrained wrote",
        )
    return roots[0]


def _read(members: _Members, into: Path, limits: Limits) -> Folder:
    config = _json(members, CONFIG)
    preprocessor = _json(members, PREPROCESSOR) if PREPROCESSOR in members.sizes else None
    names = _weights(members)
    if sum(members.sizes[name] for name in names) > limits.tensor_bytes + limits.header_bytes:
        raise Unusable("too_large", f"the weights claim more than {limits.tensor_bytes} bytes")
    paths = []
    for index, name in enumerate(names):
        path = into / f"part-{index}{PurePosixPath(name).suffix}"
        with members.open(name) as source, path.open("wb") as target:
            copied = 0
            while chunk := source.read(CHUNK_BYTES):
                copied += len(chunk)
                if copied > members.sizes[name]:
                    raise Unusable("corrupt", f"{name} is longer than the archive's directory says")
                target.write(chunk)
        paths.append(path)
    return Folder(config, preprocessor, tuple(paths))


def shards(index: Path) -> list[str]:
    """File names of the parts that a model.safetensors.index.json lists. Raises Unusable ``corrupt``."""
    return _parts(_object(index.read_bytes(), index.name))


def _parts(index: dict[str, Any]) -> list[str]:
    parts = index.get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(v, str) and "/" not in v for v in parts.values()):
        raise Unusable("corrupt", f"{INDEX} has no weight_map of file names")
    return sorted(set(parts.values()))


def _weights(members: _Members) -> list[str]:
    if WEIGHTS in members.sizes:
        return [WEIGHTS]
    if INDEX in members.sizes:
        names = _parts(_json(members, INDEX))
        if missing := [name for name in names if name not in members.sizes]:
            raise Unusable("missing_keys", f"the archive lacks {', '.join(missing[:5])}, named by {INDEX}")
        return names
    if TORCH_WEIGHTS in members.sizes:
        return [TORCH_WEIGHTS]
    single = [n for n in members.sizes if n.endswith(".safetensors") and "/" not in n]
    if len(single) == 1:
        return single
    raise Unusable(
        "no_tensors",
        f"there is no {WEIGHTS} beside {CONFIG}: save the model with save_pretrained and send the folder",
    )


def _json(members: _Members, name: str) -> dict[str, Any]:
    if members.sizes[name] > JSON_BYTES:
        raise Unusable("too_large", f"{name} has {members.sizes[name]} bytes, at most {JSON_BYTES}")
    with members.open(name) as file:
        raw = file.read(JSON_BYTES + 1)
    return _object(raw, name)


def _object(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise Unusable("corrupt", f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise Unusable("corrupt", f"{name} is not a JSON object")
    return value
