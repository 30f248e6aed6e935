"""What a candidate costs, to look at and to fine-tune."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class StepCost(TypedDict):
    """What a step of a training costs on one device; see worker/training/cost.py.

    step_s: seconds of a step of the optimiser; image_s: of looking at one picture in an evaluation; pixels: of the median
    picture as the network sees it. too_large: not even one picture at a time fits.
    """

    step_s: float | None
    image_s: float | None
    peak_memory_bytes: int | None
    pixels: float
    measured: Literal["step", "verification"]
    too_large: NotRequired[bool]


class TrainingAsked(TypedDict):
    """A fine-tuning whose cost is of interest, and under which `key` it is measured. memory_bytes: what the device has.

    val_looks: pictures of validation looked at in all, each evaluation on schedule counted; end_looks: at its end. unknown:
    why there can be no number, None where one step says it.
    """

    key: str | None
    recipe: str
    image_size: int | None
    batch_size: int | None
    iterations: int | None
    budget_s: float | None
    val_looks: int
    end_looks: int
    pixels: float | None
    device: str
    memory_bytes: int | None
    unknown: str | None


class InferenceCost(TypedDict):
    """Of the whole detector, one picture at a time."""

    ms_per_image: float
    peak_memory_bytes: int
    image_hw: list[int]
    device: str


class Cost(TypedDict):
    """What one image costs a candidate; see worker/features/cost.py. Beside it the whole detector, and its fine-tuning."""

    parameters: int
    ms_per_image: float
    peak_memory_bytes: int
    device: str
    image_hw: NotRequired[list[int]]
    measures: NotRequired[str]
    precision: NotRequired[str]
    inference: NotRequired[InferenceCost | None]
    training: NotRequired[TrainingAsked | None]
