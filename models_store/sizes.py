"""How an image size is asked for: the shorter side in pixels, or that and a limit of the longer one."""

from __future__ import annotations

LONG_SIDE_LIMIT = 2
Size = int | tuple[int, int]


def size_limits(image_size: Size) -> tuple[int, int]:
    """Shorter side and limit of the longer, which is twice the shorter where none is given."""
    return (image_size, LONG_SIDE_LIMIT * image_size) if isinstance(image_size, int) else image_size
