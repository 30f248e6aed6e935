"""Rotated boxes, which detrank reads as the upright boxes around them."""

import math
from collections.abc import Sequence

from worker.data.faults import Report
from worker.data.formats.raw import Corners


def around_rotated(center: Sequence[float], size: Sequence[float], angle: float) -> Corners:
    """The upright box around a rectangle of `size` (width, height) turned by `angle` radians about its center."""
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    half_width = (size[0] * cosine + size[1] * sine) / 2
    half_height = (size[0] * sine + size[1] * cosine) / 2
    return center[0] - half_width, center[1] - half_height, center[0] + half_width, center[1] + half_height


def about_center(corners: Corners, degrees: float) -> Corners:
    """The upright box around xyxy `corners` turned about their centre, as in CVAT."""
    x1, y1, x2, y2 = corners
    return around_rotated(((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), math.radians(degrees))


def about_corner(corners: Corners, degrees: float) -> Corners:
    """The upright box around xyxy `corners` turned clockwise (y down) about their first corner, as in Label Studio."""
    x1, y1, x2, y2 = corners
    angle = math.radians(degrees)
    width, height = x2 - x1, y2 - y1
    x = [x1 + a * math.cos(angle) - b * math.sin(angle) for a in (0, width) for b in (0, height)]
    y = [y1 + a * math.sin(angle) + b * math.cos(angle) for a in (0, width) for b in (0, height)]
    return min(x), min(y), max(x), max(y)


def say(report: Report, file: str, count: int) -> None:
    """Report that `count` boxes of a file were rotated."""
    if count:
        boxes = "one rotated box was" if count == 1 else f"{count} rotated boxes were"
        report.add("rotated_box", file, f"{boxes} read as the upright box around it: angles are not kept")
