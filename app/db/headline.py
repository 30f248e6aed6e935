"""The one figure of a verification that lists and tables show."""

from typing import Any


def headline(result: dict[str, Any] | None) -> tuple[float | None, float | None, str | None]:
    """(mAP@[.5:.95], AP50, where) of a verification's result: on test images, or on validation where there are no others."""
    for split in ("test", "val"):
        evaluation = (result or {}).get(split)
        if evaluation:
            return evaluation["box"]["map"], evaluation["box"].get("ap50"), split
    return None, None, None
