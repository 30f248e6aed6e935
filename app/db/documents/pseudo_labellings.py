"""What a pseudo-labelling found, and what a person is asked about it."""

from typing import Any

from typing_extensions import TypedDict


class PseudoLabellingResult(TypedDict, total=False):
    """Written by the jobs of a pseudo-labelling: `teach` all but `cost`.

    quality: as worker/pseudo_boxes/quality.py has it, with `measured_on`; None where no true box is known.
    """

    teacher: dict[str, Any]  # what it chose and measured on the way
    looked_at: int
    pictures: int
    boxes: int
    quality: dict[str, Any] | None
    warnings: list[str]
    cost: dict[str, float]


class Review(TypedDict):
    """What a person is asked about pseudo boxes, as worker/pseudo_boxes/review.py draws it, and what was decided.

    A decision is `decision` and `corrected` of an item, and `missed` of a picture.
    """

    items: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    strata: list[dict[str, Any]]
    all_pictures: int
    categories: list[str]
    images: list[dict[str, Any]]
