"""Annotation files of a source far away, copied to this disk: many small transfers at once, within bounds."""

from collections.abc import Callable, Iterable
from pathlib import Path

from worker.data.lookahead import in_order
from worker.data.pictures import SUFFIXES
from worker.data.sources.base import Bounds, Check, Pin, SourceError, Tell
from worker.data.tree import Tree, is_litter, suffix

# What annotations are written in. Of other files only the small ones are fetched: a film or a checkpoint stays where it is.
ANNOTATIONS = frozenset(
    {
        ".txt",
        ".json",
        ".jsonl",
        ".ndjson",
        ".xml",
        ".csv",
        ".tsv",
        ".parquet",
        ".yaml",
        ".yml",
        ".names",
        ".data",
    }
)
_SMALL = 1 << 20


# Readers that cannot tell what a table means look at the sizes of some pictures.
LOOKED_AT = 64


class FarTree(Tree):
    """Files of which only those are on this disk that were fetched; the first pictures that are opened are fetched then."""

    fetch: Callable[[str], bytes]
    fetched = 0

    def absolute(self, file: str) -> Path:
        path = super().absolute(file)
        if self.fetched < LOOKED_AT and suffix(file) in SUFFIXES and not path.exists():
            self.fetched += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.fetch(file))
        return path


def is_usable(path: str) -> bool:
    """Whether a name in a listing is one that a file on a disk can have, and no litter of an operating system."""
    parts = path.split("/")
    if (
        "\0" in path
        or "\\" in path
        or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
    ):
        return False
    return not any(is_litter(part) for part in parts)


def is_fetched(path: str, size: int) -> bool:
    """Whether a file is one to read whole now: an annotation file, or anything small that is no picture."""
    ending = suffix(path)
    return ending not in SUFFIXES and (ending in ANNOTATIONS or size <= _SMALL)


def mirror(
    pins: dict[str, Pin],
    read: Callable[[str, Pin], bytes],
    into: Path,
    *,
    threads: int,
    bounds: Bounds,
    tell: Tell,
    check: Check,
) -> Tree:
    """The tree of all files of a listing, with the annotation files among them copied below `into`."""
    wanted = [(path, pin) for path, pin in sorted(pins.items()) if is_fetched(path, pin.size)]
    _refuse_too_large(wanted, bounds)

    def fetch(item: tuple[str, Pin]) -> None:
        path, pin = item
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read(path, pin))

    into.mkdir(parents=True, exist_ok=True)
    for done, _ in enumerate(in_order(fetch, wanted, threads=threads, ahead=4 * threads), start=1):
        check()
        tell(done, len(wanted), "fetching annotations")
    tree = FarTree(root=into.resolve(), files=tuple(sorted(pins)), scratch=into.parent)
    tree.fetch = lambda path: read(path, pins[path])
    return tree


def _refuse_too_large(wanted: Iterable[tuple[str, Pin]], bounds: Bounds) -> None:
    total = 0
    for path, pin in wanted:
        total += pin.size
        if pin.size > bounds.annotation_file_bytes:
            raise SourceError(
                "too_large", f"{path} has {pin.size:,} bytes, {bounds.annotation_file_bytes:,} are allowed"
            )
    if total > bounds.annotation_bytes:
        raise SourceError(
            "too_large",
            f"the annotation files have {total:,} bytes together, {bounds.annotation_bytes:,} are allowed",
        )
