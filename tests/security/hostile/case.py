"""What a hostile file is, and the sets that it is made from."""

import io
import random
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.unit.data.foreign import FOREIGN
from tests.unit.data.hand_made import BOXED

SETS: dict[str, Callable[[Path], None]] = {name: write for name, (_, write, *_) in (BOXED | FOREIGN).items()}


@dataclass(frozen=True)
class Case:
    """`route`: datasets or checkpoints. `spared`: what is left of it may be used, so `ready` is a right answer too."""

    name: str
    route: str
    make: Callable[[], bytes]
    spared: bool = False


@cache
def files_of(name: str) -> dict[str, bytes]:
    """The files of a hand-made set, by path."""
    with tempfile.TemporaryDirectory() as folder:
        SETS[name](Path(folder))
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def is_picture(path: str) -> bool:
    return path.endswith((".png", ".jpg"))


def zip_of(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data, compression)
    return content.getvalue()


def damaged(data: bytes, seed: int, places: int = 6) -> bytes:
    """Some bytes replaced, some taken out, some put in."""
    rng, spoilt = random.Random(seed), bytearray(data)
    for _ in range(places):
        at = rng.randrange(len(spoilt) or 1)
        match rng.randrange(3):
            case 0:
                spoilt[at : at + 1] = rng.randbytes(1)
            case 1:
                del spoilt[at : at + rng.randrange(1, 9)]
            case _:
                spoilt[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(spoilt)
