"""U-LogME: LogME of boxes that know their class.

Source: re-derived from descriptions of "Det-LogME" (WACV 2024, arXiv 2403.09432); no official code exists, so
its numbers may differ. Column 4c + j holds coordinate j of the boxes of class c and 0 for other objects, so that a
column is explained only by features that tell both what and where an object is.
"""

from __future__ import annotations

from worker.metrics.base import Undefined, Value
from worker.metrics.changes import OF_EVIDENCE
from worker.metrics.logme import EVIDENCE, UNITS, evidences, mean_evidence, present
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def u_logme(prepared: Prepared, targets: Targets) -> Value:
    """Mean evidence of the 4C class-aware box columns. With one class it equals LogME on boxes."""
    targets.check_boxes()
    found = evidences(prepared, targets, "unified")
    used = present(found)
    if not used:
        raise Undefined("every box coordinate is 0")
    value, notes = mean_evidence(used)
    if len(used) < len(found):
        notes += (
            f"{len(found) - len(used)} of {len(found)} target columns are 0 throughout and were left out",
        )
    return Value(value, notes + targets.box_range_note())


METRICS = (
    Metric(
        name="u_logme",
        title="U-LogME",
        needs=frozenset({"features", "labels", "boxes"}),
        summary="How well a Bayesian linear model on the features explains class and place of objects at once.",
        formula=f"mean over classes c and coordinates j of L(1[y = c] b_j); {EVIDENCE}",
        paper="after Det-LogME, WACV 2024, arXiv 2403.09432",
        null="depends on the dataset, hardly on D",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        compute=u_logme,
        rederived=True,
        statistics=True,
        reads=frozenset({"unified"}),
    ),
)
