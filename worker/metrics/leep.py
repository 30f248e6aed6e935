"""LEEP: the log likelihood of the labels under the source head's classes, re-read as target classes.

Source: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations",
ICML 2020, arXiv 2002.12462.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.arrays import Floats
from worker.metrics.base import Value
from worker.metrics.changes import EVERY
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def leep_of(theta: Floats, targets: Targets) -> float:
    """LEEP of theta (N, Z), rows that sum to one, against the labels."""
    sorted_theta = theta[targets.by_class]
    joint = np.add.reduceat(sorted_theta, targets.offsets[:-1], axis=0)
    marginal = joint.sum(axis=0)
    given = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    edges = zip(targets.offsets[:-1], targets.offsets[1:], given, strict=True)
    likelihood = np.concatenate([sorted_theta[first:last] @ of_class for first, last, of_class in edges])
    return float(np.log(likelihood).mean())


def leep(prepared: Prepared, targets: Targets) -> Value:
    """LEEP with the candidate's own source head."""
    theta = targets.require_probabilities()
    targets.require_labels()
    return Value(leep_of(theta, targets))


METRICS = (
    Metric(
        name="leep",
        title="LEEP",
        needs=frozenset({"labels", "source_probabilities"}),
        summary="Log likelihood of the labels when the source head's classes stand for target classes.",
        formula="mean_i log sum_z P(y_i | z) theta_iz, with P(y, z) = 1/N sum_{i: y_i = y} theta_iz",
        paper="Nguyen et al.: LEEP, ICML 2020, arXiv 2002.12462",
        null="about minus the entropy of the labels",
        unchanged=EVERY,
        compute=leep,
    ),
)
