"""Orders that need no features: a metric that does not beat them is not worth its seconds.

Source of the warning: "How NOT to benchmark your SITE metric", arXiv 2510.06448: a list in order of size
correlated better with accuracy than LogME did on the standard benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from worker.metrics.base import Score


@dataclass(frozen=True)
class Baseline:
    """An order by a published figure. field: the key of the figure. rare: few have it, so nobody is told that it lacks."""

    name: str
    title: str
    field: str
    summary: str
    higher_is_better: bool = True
    rare: bool = False


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        b.name: b
        for b in (
            Baseline(
                "static_parameters", "Size", "parameters", "Number of parameters: the larger, the better."
            ),
            Baseline("static_coco_map", "Published COCO mAP", "coco_box_map", "Box mAP published for COCO."),
            Baseline(
                "static_imagenet_top1",
                "Published ImageNet accuracy",
                "imagenet_top1",
                "Top-1 accuracy on ImageNet-1k, where it was published of a body that came as a classifier.",
                rare=True,
            ),
            Baseline(
                "static_rf100_vl_map",
                "Published RF100-VL mAP",
                "rf100_vl_ap",
                "Mean box mAP after fine-tuning on the 100 datasets of RF100-VL, where a family published it.",
                rare=True,
            ),
        )
    }
)


def static_scores(figures: Mapping[str, float | None]) -> dict[str, Score]:
    """{baseline: Score} from a candidate's published figures, such as {"parameters": 4.1e7}."""
    out = {}
    for baseline in BASELINES.values():
        value = figures.get(baseline.field)
        if value is None and baseline.rare:
            continue
        reason = None if value is not None else f"no {baseline.field} is known for this candidate"
        out[baseline.name] = Score(None if value is None else float(value), reason, 0.0)
    return out
