"""IoU-LogME: how well the boxes that LogME's model predicts overlap the true ones.

Source: re-derived from descriptions of "Det-LogME" (WACV 2024, arXiv 2403.09432); no official code exists, so
its numbers may differ.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.arrays import Floats
from worker.metrics.base import Undefined, Value
from worker.metrics.changes import OF_EVIDENCE
from worker.metrics.logme import evidences, logme_boxes, present
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def iou_logme(prepared: Prepared, targets: Targets) -> Value:
    """Mean over objects of the IoU of the predicted and the true box, in [0, 1]."""
    targets.check_boxes()
    boxes = np.asarray(targets.boxes, dtype=np.float64)
    if (boxes[:, 2:] <= boxes[:, :2]).any():
        bad = int((boxes[:, 2:] <= boxes[:, :2]).any(axis=1).sum())
        raise Undefined(f"{bad} of {len(boxes)} boxes have no area: remove those objects")
    notes = logme_boxes(prepared, targets).notes
    return Value(float(iou(predicted_boxes(prepared, targets), boxes).mean()), notes)


def predicted_boxes(prepared: Prepared, targets: Targets) -> Floats:
    """(N, 4) boxes under the posterior mean of each coordinate's model."""
    spectrum, columns = prepared.spectrum, prepared.project(targets, "boxes")
    ratios = np.array([e.ratio for e in present(evidences(prepared, targets, "boxes"))])
    x = spectrum.raw.solve_each(ratios, columns.raw.T).T
    if spectrum.dual:
        return spectrum.lift_raw(columns.raw - x * ratios)
    weights = spectrum.lift_raw(x)
    return prepared.map_rows(lambda block: block @ weights) + prepared.mean @ weights


def iou(a: Floats, b: Floats) -> Floats:
    """(N,) intersection over union of paired boxes (N, 4); a box without area overlaps nothing."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    inside = np.clip(high - low, 0.0, None).prod(axis=1)
    area_a, area_b = (np.clip(box[:, 2:] - box[:, :2], 0.0, None).prod(axis=1) for box in (a, b))
    union = area_a + area_b - inside
    return np.asarray(np.divide(inside, union, out=np.zeros(len(a)), where=union > 0))


METRICS = (
    Metric(
        name="iou_logme",
        title="IoU-LogME",
        needs=frozenset({"features", "boxes"}),
        summary="Mean overlap of the true boxes with those predicted by LogME's regression on the features.",
        formula="mean_i IoU(x_i' M, b_i), M the posterior means of the four coordinates in LogME on boxes",
        paper="after Det-LogME, WACV 2024, arXiv 2403.09432",
        null="the overlap of every box with the average box where the features have an offset, else near 0",
        unchanged=OF_EVIDENCE,
        compute=iou_logme,
        rederived=True,
    ),
)
