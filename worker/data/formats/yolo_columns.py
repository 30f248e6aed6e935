"""What the columns of YOLO rows are, where they are neither the five of a box nor a polygon: key points, confidences, tracks."""

from collections.abc import Iterable, Sequence
from statistics import median

_NO_FRACTION = 1.5  # no point of a polygon lies so far outside its picture
_NEAR = 0.02  # of the picture: how far a key point or a border may lie over
_LEAST_POINTS = (
    3  # rows that must agree before pairs of numbers are taken for key points rather than a polygon
)
_SPREAD = 0.4  # of its box, that key points usually cover: those of a polygon read so cover little


def box_at(rows: Sequence[Sequence[float]], key_points: tuple[int, int] | None) -> tuple[int | None, str]:
    """Where `cx cy w h` begins in every row of numbers, and what the other columns are.

    None where each row says by its length what it is. `key_points` is Ultralytics' kpt_shape.
    """
    lengths = {len(values) for values in rows}
    if key_points and lengths <= {5, 5 + key_points[0] * key_points[1]}:
        return (1, f"{key_points[0]} key points") if lengths != {5} else (None, "")
    if len(lengths) != 1:
        return None, ""
    rest = lengths.pop() - 5
    if rest >= 3 and rest % 3 == 0 and all(set(values[7::3]) <= {0, 1, 2} for values in rows):
        return 1, f"{rest // 3} key points"
    if rest > 4 and rest % 2 == 0 and len(rows) >= _LEAST_POINTS and _are_pairs_key_points(rows):
        return 1, f"{rest // 2} key points"
    if rest == 1:
        return _one_more(rows)
    if rest == 2 and _are_confidence_and_track(rows):
        return 1, "a confidence and a track"
    if rest >= 2 and len(rows) >= _LEAST_POINTS and _are_no_points(rows):
        return 1, f"{rest} columns that are no points of a polygon"
    return None, ""


def _are_no_points(rows: Sequence[Sequence[float]]) -> bool:
    """Whether a box stands in every row, and behind it whole numbers (flags, tracks) or such that are no fractions."""
    behind = [value for values in rows for value in values[5:]]
    return all(_is_box(values[1:5]) for values in rows) and (
        all(value == int(value) for value in behind) or any(abs(value) > _NO_FRACTION for value in behind)
    )


def _are_confidence_and_track(rows: Sequence[Sequence[float]]) -> bool:
    return all(_is_box(values[1:5]) and 0 <= values[5] <= 1 for values in rows) and _are_numbers(
        values[6] for values in rows
    )


def _one_more(rows: Sequence[Sequence[float]]) -> tuple[int | None, str]:
    behind = all(_is_box(values[1:5]) for values in rows)
    before = all(_is_box(values[2:6]) and 0 <= values[1] <= 1 for values in rows)
    if behind and _are_numbers(values[5] for values in rows):
        return 1, "a track"
    behind = behind and all(0 <= values[5] <= 1 for values in rows)
    # Where both would do nobody knows, and the rows are faults.
    return (1 if behind else 2, "a confidence") if behind != before else (None, "")


def _are_numbers(values: Iterable[float]) -> bool:
    found = list(values)
    return all(value == int(value) >= 0 for value in found) and max(found) > 1


def _is_box(values: Sequence[float]) -> bool:
    cx, cy, width, height = values
    return min(width, height) > 0 and all(
        centre - side / 2 >= -_NEAR and centre + side / 2 <= 1 + _NEAR
        for centre, side in ((cx, width), (cy, height))
    )


def _are_pairs_key_points(rows: Sequence[Sequence[float]]) -> bool:
    """Whether the pairs behind each box lie in it (0 0 is an absent one) and cover much of it."""
    spreads = []
    for values in rows:
        _, cx, cy, width, height = values[:5]
        points = [(x, y) for x, y in zip(values[5::2], values[6::2], strict=True) if x or y]
        if not _is_box(values[1:5]) or not all(
            abs(x - cx) <= width / 2 + _NEAR and abs(y - cy) <= height / 2 + _NEAR for x, y in points
        ):
            return False
        if len(points) > 1:
            xs, ys = zip(*points, strict=True)
            spreads.append(max((max(xs) - min(xs)) / width, (max(ys) - min(ys)) / height))
    return bool(spreads) and median(spreads) >= _SPREAD
