"""LEEP: the log likelihood of the labels under the source head's classes, re-read as target classes.

Source: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations",
ICML 2020, arXiv 2002.12462.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import Metric, Undefined, Value
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def leep_of(theta: np.ndarray, targets: Targets) -> float:
    """LEEP of theta (N, Z), rows that sum to one, against the labels."""
    joint = np.zeros((len(targets.counts), theta.shape[1]))
    np.add.at(joint, targets.labels, theta)
    marginal = joint.sum(axis=0)
    seen = marginal > 0
    given = np.divide(joint, marginal, out=np.zeros_like(joint), where=seen)
    likelihood = np.einsum("iz,iz->i", theta, given[targets.labels])
    return float(np.log(likelihood).mean())


def leep(prepared: Prepared, targets: Targets) -> Value:
    """LEEP with the candidate's own source head."""
    theta = targets.require_probabilities()
    targets.require_labels()
    if not theta.any(axis=1).all():
        raise Undefined("some objects have no source probability at all")
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
        invariant="renaming of target and of source classes",
        compute=leep,
    ),
)
