"""The same objects in two label files: most often two versions of one set, which together count every object twice."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations

from worker.data.faults import Report
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage
from worker.data.tree import parent

_LOOKED_AT = 2000  # pictures with boxes of several files
_OVERLAP = 0.5  # over which two boxes of a class are one object, drawn twice
_LEAST, _SHARE = 3, 0.5  # objects drawn twice: so many, and this share of the smaller file's


def say_versions(raw: Raw, report: Report) -> None:
    """Warn where two files, or two folders of files, have boxes of the same objects that are not quite the same."""
    twice: Counter[tuple[str, str]] = Counter()
    boxes: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    looked = 0
    for image in raw.images:
        by_file = _by_file(image)
        looked += len(by_file) > 1
        if looked > _LOOKED_AT:
            break
        for one, other in combinations(sorted(by_file), 2):
            pair = (parent(one), parent(other)) if parent(one) != parent(other) else (one, other)
            twice[pair] += _drawn_twice(by_file[one], by_file[other])
            boxes[pair][0] += len(by_file[one])
            boxes[pair][1] += len(by_file[other])
    for (one, other), count in twice.items():
        if count >= _LEAST and count >= _SHARE * min(boxes[one, other]):
            reason = (
                f"{count} objects have a box here and another one, not quite the same, in {other or 'the top folder'}: both are "
                "kept; take one out where they are two versions of the same labels"
            )
            report.add("several_versions", one or "the top folder", reason)


def _by_file(image: RawImage) -> dict[str, list[RawBox]]:
    found: dict[str, list[RawBox]] = defaultdict(list)
    for box in image.boxes:
        if not box.crowd:
            found[box.file].append(box)
    return found


def _drawn_twice(ones: Iterable[RawBox], others: Iterable[RawBox]) -> int:
    left = list(others)
    count = 0
    for box in ones:
        same = [
            other
            for other in left
            if other.category == box.category
            and other.corners != box.corners
            and _overlap(box.corners, other.corners) >= _OVERLAP
        ]
        if same:
            left.remove(same[0])
            count += 1
    return count


def _overlap(one: Corners, other: Corners) -> float:
    """Intersection over union; 0 where one has no area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)
