"""NCE: minus the entropy of the label given the source head's top class.

Source: Tran, Nguyen, Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import Value
from worker.metrics.changes import EVERY
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def nce(prepared: Prepared, targets: Targets) -> Value:
    """Negative conditional entropy -H(Y | Z), Z the most probable source class (the first of equals)."""
    theta = targets.require_probabilities()
    targets.require_labels()
    sources = theta.shape[1]
    cells = np.bincount(
        targets.labels * sources + theta.argmax(axis=1), minlength=len(targets.counts) * sources
    )
    joint = cells.reshape(-1, sources) / len(theta)
    marginal = np.broadcast_to(joint.sum(axis=0), joint.shape)
    full = joint > 0
    return Value(float((joint[full] * np.log(joint[full] / marginal[full])).sum()))


METRICS = (
    Metric(
        name="nce",
        title="NCE",
        needs=frozenset({"labels", "source_probabilities"}),
        summary="How certain the class is once the source head's top class is known.",
        formula="-H(Y | Z), Z = argmax_z theta_iz",
        paper="Tran, Nguyen, Hassner: Transferability and Hardness of Supervised Classification Tasks, ICCV 2019",
        null="about minus the entropy of the labels",
        unchanged=EVERY,
        compute=nce,
    ),
)
