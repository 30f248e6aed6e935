"""What a teacher saw in pictures, in files: written once for each part of them, read picture by picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from worker.pseudo_boxes.pseudo_boxes import Unteachable


def key_of(dataset_digest: str, teacher_key: str, part: int, parts: int) -> str:
    """SHA-256 of all that a part's file depends on: whoever looks at the same finds it."""
    text = f"looked/1/{dataset_digest}/{teacher_key}/{part}/{parts}"
    return hashlib.sha256(text.encode()).hexdigest()


def save(path: Path, seen: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    """Writes the arrays of many pictures, by image id, into one file, by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    tensors = {
        f"{id}/{name}": np.ascontiguousarray(array)
        for id, arrays in seen.items()
        for name, array in arrays.items()
    }
    ids = np.array(sorted(seen), np.int64)
    save_file({"image_ids": ids, **tensors}, beside)
    beside.replace(path)


class Looked(Mapping[int, Mapping[str, np.ndarray]]):
    """The arrays of every picture in these files by image id; read from disk each time that they are asked for.

    Raises Unteachable `broken_file`.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = []
        self._names: dict[int, tuple[int, list[str]]] = {}
        for number, path in enumerate(paths):
            try:
                file = safe_open(path, framework="numpy")
                ids = file.get_tensor("image_ids").tolist()
                found: dict[int, list[str]] = {id: [] for id in ids}
                for name in file.keys():  # noqa: SIM118  # no mapping
                    if "/" in name:
                        found[int(name.partition("/")[0])].append(name)
            except (OSError, KeyError, ValueError, SafetensorError) as error:
                raise Unteachable(
                    "broken_file", f"what was seen in the pictures cannot be read from {path.name} ({error})"
                ) from None
            self._files.append(file)
            self._names |= {id: (number, names) for id, names in found.items()}

    def __getitem__(self, image_id: int) -> dict[str, np.ndarray]:
        number, names = self._names[image_id]
        return {name.partition("/")[2]: self._files[number].get_tensor(name) for name in names}

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)
