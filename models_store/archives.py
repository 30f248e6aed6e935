"""A folder of transformers or timm in one file: config.json beside weights, in a zip or a tar; or one checkpoint that was
packed. No torch here.

Only the members that are needed are read, each into memory or into a file of ours with a name of ours; nothing is
unpacked by the archive's own paths.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from models_store.errors import Unusable
from models_store.limits import Limits

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
# The same beside a tokenizer, as transformers writes it since version 5.
PROCESSOR = "processor_config.json"
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
WEIGHTS = "model.safetensors"
TORCH_WEIGHTS = "pytorch_model.bin"
# Of weights in parts: which file holds what.
INDEX = WEIGHTS + ".index.json"
TORCH_INDEX = TORCH_WEIGHTS + ".index.json"
TORCH_PART = re.compile(r"pytorch_model-\d+-of-\d+\.bin")
# What a checkpoint alone is called.
CHECKPOINT = re.compile(r".+\.(pth|pt|ckpt|safetensors|bin|pkl|pth\.tar)", re.IGNORECASE)
# What trainers leave beside it, and what torch's own archives hold.
NO_CHECKPOINT = re.compile(
    r"optimizer|scheduler|scaler|rng_state|training_args|(data|constants)\.pkl$"
    r"|(random_states|custom_checkpoint)_\d+\.|(sampler|dl_state_dict)(_\d+)?\."
)
PART = re.compile(r".+-\d+-of-\d+\.\w+")
# config.json may lie at the top, in a folder, or in a folder of a folder.
DEEPEST = 2
JSON_BYTES = 8 << 20
MAX_MEMBERS = 10_000
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Folder:
    """What the folder holds: two JSON objects, a tokenizer's files as they are, and the weights' files, on this disk.

    ``config`` None: it was one checkpoint alone.
    """

    config: dict[str, Any] | None
    preprocessor: dict[str, Any] | None
    tokenizer: dict[str, bytes]
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
    """Whether one of a zip's members is a config.json, at most ``DEEPEST`` folders deep."""
    return any(_is_config(name) for name in names)


def _is_config(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name == CONFIG and len(path.parts) <= DEEPEST + 1 and not _is_hidden(path)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def checkpoints_among(names: Iterable[str]) -> list[str]:
    """Those of an archive's members that are called as checkpoints are."""
    return sorted(name for name in names if _is_checkpoint(PurePosixPath(name)))


def _is_checkpoint(path: PurePosixPath) -> bool:
    named = CHECKPOINT.fullmatch(path.name) is not None and not NO_CHECKPOINT.match(path.name)
    return named and not _is_hidden(path)


def pack(folder: Path, into: Path) -> Path:
    """The files of a transformers or timm folder as an uncompressed zip whose bytes depend on their content only; of a
    folder without config.json its one checkpoint.

    Raises Unusable ``not_a_checkpoint`` where there is neither, ``ambiguous`` where there are several.
    """
    names = [p.relative_to(folder).as_posix() for depth in range(DEEPEST + 1) for p in _at(folder, depth)]
    names = names or [p.name for p in folder.iterdir() if p.is_file()]
    root = folder / _root(names, f"the folder {folder.name}")
    alone = [] if (root / CONFIG).is_file() else checkpoints_among(names)
    wanted = {CONFIG, PREPROCESSOR, PROCESSOR, *TOKENIZER, INDEX, WEIGHTS, TORCH_WEIGHTS, TORCH_INDEX}
    kept = sorted(
        p.name
        for p in root.iterdir()
        if p.is_file() and (p.name in (alone or wanted) or (not alone and _holds_weights(p.name)))
    )
    path = into / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in kept:
            with (root / name).open("rb") as source:
                _store(archive, name, source)
    return path


def _holds_weights(name: str) -> bool:
    return name.endswith(".safetensors") or TORCH_PART.fullmatch(name) is not None


def _at(folder: Path, depth: int) -> Iterator[Path]:
    return folder.glob("*/" * depth + CONFIG)


def _store(archive: zipfile.ZipFile, name: str, source: IO[bytes]) -> None:
    with archive.open(zipfile.ZipInfo(name, ZIP_TIME), "w", force_zip64=True) as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)


def unpack(path: Path, into: Path, limits: Limits) -> Folder:
    """Read the folder inside ``path``. Raises Unusable: ``not_a_checkpoint``, ``corrupt``, ``too_large``."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == GZIP_MAGIC
        if compressed and not tarfile.is_tarfile(path):
            alone = into / "part-0"
            with gzip.open(path) as source:
                _copied(source, alone, limits.file_bytes)
            return Folder(None, None, {}, (alone,))
        with _opened(path, limits) as members:
            return _read(members, into, limits)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        OSError,
        NotImplementedError,
        zlib.error,
    ) as error:
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
            # not is_dir(), which fails on an entry without a name
            infos = [i for i in archive.infolist() if not i.filename.endswith("/")]
            if len(infos) > MAX_MEMBERS:
                raise Unusable("too_large", f"the archive holds more than {MAX_MEMBERS} members")
            sizes = {i.filename: i.file_size for i in infos}
            yield _Members(sizes, _root(sizes), archive.open)


def _root(names: Iterable[str], what: str = "the archive") -> str:
    """The folder of the config.json nearest to the top, or of the one checkpoint, with its slash."""
    names = list(names)
    roots = sorted((n.removesuffix(CONFIG) for n in names if _is_config(n)), key=lambda r: (r.count("/"), r))
    if not roots:
        alone = checkpoints_among(names)
        if alone and all(PART.fullmatch(name) for name in alone):
            raise Unusable(
                "missing_config",
                f"{what} holds weights in parts, but no {CONFIG}: send the whole folder that save_pretrained wrote",
            )
        if len(alone) > 1:
            raise Unusable(
                "ambiguous",
                f"{what} holds {len(alone)} checkpoints ({', '.join(alone[:5])}) and no {CONFIG}: send one of them alone",
            )
        if not alone:
            raise Unusable(
                "not_a_checkpoint",
                f"{what} holds no {CONFIG} at its top or in a folder of it: send the folder that save_pretrained wrote, or the "
                "weights' file alone",
            )
        return alone[0].removesuffix(PurePosixPath(alone[0]).name)
    nearest = [root for root in roots if root.count("/") == roots[0].count("/")]
    if len(nearest) > 1:
        raise Unusable(
            "ambiguous",
            f"{what} holds several models ({', '.join(root.rstrip('/') for root in nearest[:5])}): send one of these folders",
        )
    return roots[0]


def _read(members: _Members, into: Path, limits: Limits) -> Folder:
    config = _json(members, CONFIG) if CONFIG in members.sizes else None
    preprocessor = _preprocessor(members)
    tokenizer = {name: _small(members, name) for name in TOKENIZER if name in members.sizes}
    names = _weights(members) if config is not None else checkpoints_among(members.sizes)
    if sum(members.sizes[name] for name in names) > limits.tensor_bytes + limits.header_bytes:
        raise Unusable("too_large", f"the weights claim more than {limits.tensor_bytes} bytes")
    paths = []
    for index, name in enumerate(names):
        path = into / f"part-{index}{PurePosixPath(name).suffix}"
        with members.open(name) as source:
            _copied(source, path, members.sizes[name])
        paths.append(path)
    return Folder(config, preprocessor, tokenizer, tuple(paths))


def _copied(source: IO[bytes] | gzip.GzipFile, path: Path, most: int) -> None:
    copied = 0
    with path.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            copied += len(chunk)
            if copied > most:
                raise Unusable(
                    "corrupt", f"what is packed is longer than {most} bytes, as it may be: send it whole"
                )
            target.write(chunk)


def object_in(path: Path) -> dict[str, Any]:
    """A JSON file's object. Raises Unusable ``corrupt``."""
    return _object(path.read_bytes(), path.name)


def shards(index: Path) -> list[str]:
    """File names of the parts that an index lists. Raises Unusable ``corrupt``."""
    return _parts(object_in(index), index.name)


def _parts(index: dict[str, Any], name: str) -> list[str]:
    parts = index.get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(v, str) and "/" not in v for v in parts.values()):
        raise Unusable("corrupt", f"{name} has no weight_map of file names")
    return sorted(set(parts.values()))


def _weights(members: _Members) -> list[str]:
    for whole, index in ((WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX)):
        if whole in members.sizes:
            return [whole]
        if index in members.sizes:
            names = _parts(_json(members, index), index)
            if missing := [name for name in names if name not in members.sizes]:
                raise Unusable(
                    "missing_keys",
                    f"the archive lacks {', '.join(missing[:5])}, named by {index}: send the folder with all its parts",
                )
            return names
    single = [n for n in members.sizes if n.endswith(".safetensors") and "/" not in n]
    if len(single) == 1:
        return single
    raise Unusable(
        "no_tensors",
        f"there is no {WEIGHTS} beside {CONFIG}: save the model with save_pretrained and send the folder",
    )


def _preprocessor(members: _Members) -> dict[str, Any] | None:
    if PREPROCESSOR in members.sizes:
        return _json(members, PREPROCESSOR)
    inside = _json(members, PROCESSOR).get("image_processor") if PROCESSOR in members.sizes else None
    return inside if isinstance(inside, dict) else None


def _json(members: _Members, name: str) -> dict[str, Any]:
    return _object(_small(members, name), name)


def _small(members: _Members, name: str) -> bytes:
    if members.sizes[name] > JSON_BYTES:
        raise Unusable("too_large", f"{name} has {members.sizes[name]} bytes, at most {JSON_BYTES} are read")
    with members.open(name) as file:
        raw = file.read(JSON_BYTES + 1)
    if len(raw) > JSON_BYTES:
        raise Unusable("corrupt", f"{name} is longer than the archive's directory says: send it whole")
    return raw


def _object(raw: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise Unusable("corrupt", f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise Unusable("corrupt", f"{name} is not a JSON object")
    return value
