"""Which format an archive is in; of several that say the same, the one that says most."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import PIL.Image

from worker.data.faults import Report, Unusable
from worker.data.formats import ALIASES, RANKS, READERS
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage
from worker.data.tree import Tree

_SAME_SHARE = 0.9  # of the boxes of the one format that the other has too
_SAME_PIXELS = 2.0  # between corners: formats count from 0 or 1 and round
_MADE_UP = re.compile(r"class \d+")


@dataclass(frozen=True)
class Reading:
    """The reader that was chosen and what it found."""

    reader: ModuleType
    raw: Raw


def accepted() -> str:
    """The names of all formats, for people."""
    return f"{', '.join(READERS)} (GET /v1/formats says what each is)"


def read_as(tree: Tree, format: str | None, report: Report) -> Reading:
    """What the reader of `format` (a name or alias; None: the one that recognises the tree) finds.

    Raises Unusable where there is none, or several that say different things.
    """
    if format is not None:
        reader = READERS.get(ALIASES.get(format, format))
        if reader is None:
            raise Unusable(f"'{format}' is no known format. Known: {accepted()}.", report.to_json())
        return Reading(reader, reader.read(tree, report))
    for rank in RANKS:
        found = {name: evidence for name in rank if (evidence := READERS[name].recognise(tree))}
        if len(found) == 1:
            reader = READERS[next(iter(found))]
            return Reading(reader, reader.read(tree, report))
        if found:
            return _richest(tree, found, report)
    raise Unusable(
        f"The archive holds no dataset in a known format. Found: {tree.inventory()}. Accepted: {accepted()}.",
        report.to_json(),
    )


def others(tree: Tree, chosen: ModuleType) -> str:
    """The other formats with annotations that recognise the tree, with their evidence."""
    found = {
        name: READERS[name].recognise(tree) for rank in RANKS[:-1] for name in rank if name != chosen.NAME
    }
    return "; or ".join(f"{name} ({evidence})" for name, evidence in found.items() if evidence)


def _richest(tree: Tree, found: dict[str, str], report: Report) -> Reading:
    """Of formats that say the same the one that says most; the report names the others."""
    reports = {name: Report() for name in found}
    raws = {name: READERS[name].read(tree, reports[name]) for name in found}
    best = max(raws, key=lambda name: _riches(raws[name]))
    sizes = _Sizes(tree, raws.values())
    differences: dict[str, tuple[int, int]] = {}
    for name, raw in raws.items():
        if name == best:
            continue
        missing, boxes = differences[name] = _missing(raw, raws[best], sizes)
        if not boxes or missing > (1 - _SAME_SHARE) * boxes:
            listed = "; ".join(f"{name} ({evidence})" for name, evidence in found.items())
            raise Unusable(
                f"The archive holds annotations in {len(found)} formats: {listed}. They differ: {missing} of {boxes} boxes of "
                f"{name} are not in {best}, or of another class there. Say which one is meant with format={' or format='.join(found)}, or take the others out.",
                report.to_json(),
            )
    report.extend(reports[best])
    chosen = raws[best]
    for name, raw in raws.items():
        if name != best:
            file = min(set(raw.used) - set(chosen.used), default=min(raw.used))
            missing, boxes = differences[name]
            but = f", but for {missing} of {boxes} boxes," if missing else ""
            said = f"{len(raw.used)} files in the format {name} say the same{but} as those in {best}, which say more: not read"
            report.add("repeated_labels", file, said, lost=0)
            chosen.used = {*chosen.used, *raw.used}
    return Reading(READERS[best], chosen)


def _riches(raw: Raw) -> tuple[int, ...]:
    boxes = [box for image in raw.images for box in image.boxes]
    return (
        sum(_MADE_UP.fullmatch(box.category) is None for box in boxes),
        len(raw.images),
        len({image.split for image in raw.images}),
        sum(box.segmentation is not None for box in boxes),
    )


class _Sizes:
    """Width and height of pictures: declared by any of the formats, else read from the file's header."""

    def __init__(self, tree: Tree, raws: Iterable[Raw]) -> None:
        self._tree = tree
        self._known: dict[str, tuple[int, int] | None] = {}
        for raw in raws:
            for image in raw.images:
                if image.declared:
                    self._known.setdefault(image.path, image.declared)

    def of(self, path: str) -> tuple[int, int] | None:
        if path not in self._known:
            try:
                with PIL.Image.open(self._tree.absolute(path)) as picture:
                    self._known[path] = picture.size
            except (OSError, ValueError, PIL.Image.DecompressionBombError):
                self._known[path] = None
        return self._known[path]


def _placed(image: RawImage, box: RawBox, sizes: _Sizes) -> Corners | None:
    if not image.relative:
        return box.corners
    size = sizes.of(image.path)
    if size is None:
        return None
    x1, y1, x2, y2 = box.corners
    return x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]


def _missing(raw: Raw, best: Raw, sizes: _Sizes) -> tuple[int, int]:
    """How many boxes of `raw` lie nowhere near one of `best` on the same picture, and how many there are.

    A class that both formats know must be the same; names that only one has may be numbers, or coarser.
    """
    there: dict[str, list[tuple[str, Corners]]] = defaultdict(list)
    for image in best.images:
        placed_boxes = ((box, _placed(image, box, sizes)) for box in image.boxes)
        there[image.path] += [(_spelled(box), placed) for box, placed in placed_boxes if placed]
    known = {name for boxes in there.values() for name, _ in boxes}
    missing = boxes = 0
    for image in raw.images:
        left = list(there[image.path])
        for box in image.boxes:
            placed = _placed(image, box, sizes)
            name = _spelled(box)
            near = [
                other
                for other in left
                if placed and _near(placed, other[1]) and (name == other[0] or name not in known)
            ]
            boxes += 1
            if near:
                left.remove(near[0])
            else:
                missing += 1
    return missing, boxes


def _spelled(box: RawBox) -> str:
    return re.sub(r"[\s_-]+", "", box.category).casefold()


def _near(one: Corners, other: Corners) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= _SAME_PIXELS
