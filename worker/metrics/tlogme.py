"""TLogME: LogME of the labels and LogME of the boxes, averaged.

Source: "Transferability Metrics for Object Detection", arXiv 2306.15306. Its boxes are x1 y1 x2 y2 in pixels of
images of one size; ours are divided by the image's size, which for such images adds one constant to every
candidate and leaves the order as it is.
"""

from __future__ import annotations

from worker.metrics.base import Undefined, Value
from worker.metrics.changes import OF_EVIDENCE
from worker.metrics.logme import UNITS, logme, logme_boxes
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def tlogme(prepared: Prepared, targets: Targets) -> Value:
    """Mean of the two terms; undefined with a single class, where only the box term has a value."""
    if len(targets.classes) == 1:
        raise Undefined(
            f"only one class ({targets.classes[0]}) has objects, so the label term has no value: "
            "read logme_boxes, the box term"
        )
    labels, boxes = logme(prepared, targets), logme_boxes(prepared, targets)
    return Value((labels.value + boxes.value) / 2.0, tuple(dict.fromkeys(labels.notes + boxes.notes)))


METRICS = (
    Metric(
        name="tlogme",
        title="TLogME",
        needs=frozenset({"features", "labels", "boxes"}),
        summary="LogME of labels and of boxes, averaged: classification and localisation together.",
        formula="(logme + logme_boxes) / 2",
        paper="Transferability Metrics for Object Detection, arXiv 2306.15306",
        null="the mean of the two terms' nulls",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        compute=tlogme,
        statistics=True,
    ),
)
