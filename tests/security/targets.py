"""What is fuzzed: each target takes bytes and raises nothing but what says that they cannot be used."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch

from app.errors import UnusableArchive
from app.storage.archives import ArchiveLimits, unpack
from models_store import conversion, formats
from models_store.errors import Unusable
from models_store.formats.state import StateDict
from models_store.limits import Limits
from tests.security.hostile import archives, checkpoints, pictures
from tests.security.hostile.case import SETS, files_of, is_picture
from worker.data import faults
from worker.data.encodings import encoding_of_names
from worker.data.ingest import ingest
from worker.data.pictures import BadPicture, inspect, read_rgb

NAMES = sorted(SETS)
SMALL = ArchiveLimits(files=200, total_bytes=16 << 20, file_bytes=8 << 20, ratio=200)
SMALL_FILE = Limits(file_bytes=8 << 20, tensor_bytes=64 << 20, header_bytes=1 << 20, tensors=2000)
MOST_ELEMENTS = 1 << 20


@cache
def _folder() -> Path:
    """In memory where there is such a place: files are written for every input."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="detrank-fuzz-", dir=shm if shm.is_dir() else None))


def _fresh(name: str) -> Path:
    path = _folder() / name
    shutil.rmtree(path, ignore_errors=True)
    return path


def readers(data: bytes) -> None:
    """The first byte chooses the set, the second one of its label files, the rest is what that holds."""
    if len(data) < 2:
        return
    files = dict(files_of(NAMES[data[0] % len(NAMES)]))
    labels = [path for path in files if not is_picture(path)]
    files[labels[data[1] % len(labels)]] = data[2:]
    source, out = _fresh("in"), _fresh("out")
    for path, content in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    out.mkdir()
    try:
        ingest(source, out)
    except faults.Unusable:
        assert not list(out.iterdir()), "something is left of what was refused"


def a_picture(data: bytes) -> None:
    path = _folder() / "picture"
    path.write_bytes(data)
    try:
        told = inspect(path)
    except BadPicture:
        return
    # what was found sound must be sound to everybody
    assert read_rgb(path).shape == (told.height, told.width, 3)


def an_archive(data: bytes) -> None:
    path, into = _folder() / "archive", _fresh("into")
    path.write_bytes(data)
    try:
        unpack(path, into, SMALL, lambda: None, encoding_of_names)
    except UnusableArchive:
        assert not into.exists()
    inside = {
        _folder() / "in",
        _folder() / "out",
        into,
        path,
        _folder() / "picture",
        _folder() / "checkpoint",
    }
    assert set(_folder().iterdir()) <= inside, "it wrote elsewhere"


def a_checkpoint(data: bytes) -> None:
    path = _folder() / "checkpoint"
    path.write_bytes(data)
    try:
        state = conversion.read(path, SMALL_FILE)
        conversion.check_tensors(state, SMALL_FILE)
        formats.recognise(state)
    except (Unusable, MemoryError, RecursionError):  # the child makes `too_large` of the last two
        return


def recognisers(data: bytes) -> None:
    """A line is the name of a tensor and its sizes."""
    tensors: dict[str, torch.Tensor] = {}
    for line in data.decode("utf-8", "replace").splitlines()[:2000]:
        name, *sizes = line.split(" ")
        shape = [min(int(size), 65536) for size in sizes[:6] if size.isascii() and size.isdigit()]
        # one element, whatever its shape says
        tensors[name] = torch.zeros(1).expand(shape) if shape and 0 not in shape else torch.zeros(shape)
    try:
        formats.recognise(StateDict(tensors, True))
    except Unusable:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "readers": readers,
    "pictures": a_picture,
    "archives": an_archive,
    "checkpoints": a_checkpoint,
    "recognisers": recognisers,
}


def seeds(target: str) -> Iterator[bytes]:
    """Sound inputs to begin with."""
    match target:
        case "readers":
            for number, name in enumerate(NAMES):
                labels = [path for path in files_of(name) if not is_picture(path)]
                for place, path in enumerate(labels):
                    yield bytes([number, place]) + files_of(name)[path]
        case "pictures":
            yield from (pictures.sound(kind) for kind in pictures.KINDS)
        case "archives":
            yield from (archives._base(), archives._zips(1), archives._tar(files_of("coco"), "w:gz"))
        case "checkpoints":
            for name in tuple(checkpoints.CALLS)[:3]:
                yield checkpoints._zipped(name)
            yield from (checkpoints.tensor(*what) for what in checkpoints.LYING.values())
            yield from (make() for make in tuple(checkpoints.HEADERS.values())[:9])
        case "recognisers":
            lines = [f"{name} {' '.join(map(str, each.shape))}" for name, each in checkpoints.state().items()]
            yield "\n".join(lines).encode()
            yield "\n".join(f"model.backbone.{line}" for line in lines).encode()
            yield "\n".join(f"module.{line}" for line in lines[:20]).encode()


warnings.simplefilter("ignore")
