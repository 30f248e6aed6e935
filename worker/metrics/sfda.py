"""SFDA: how well a Fisher classifier on the features does once its doubtful objects are made harder.

Source: Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher
Space", ECCV 2022, arXiv 2207.03036. W W' of the published generalised eigenproblem is the inverse of the shrunk
within-class covariance, so a Cholesky factor replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from worker.metrics.arrays import Floats
from worker.metrics.base import Value
from worker.metrics.changes import ALWAYS
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


@dataclass(frozen=True)
class SfdaOptions:
    """Settings of SFDA (2022).

    The shrinkage is exp(-decay * largest eigenvalue), at least `floor`; `steps` power iterations estimate the eigenvalue.
    """

    decay: float = 5.0
    floor: float = 1e-10
    steps: int = 3


SATURATED = 1.0 - 1e-6


def sfda(prepared: Prepared, targets: Targets) -> Value:
    """Mean probability of the true class under the second, self-challenged Fisher classifier, in (0, 1]."""
    labels = targets.require_labels()
    prepared.require_variance()
    x = prepared.centred
    options = prepared.options.of(SfdaOptions)
    within = _within(x, targets)
    largest = _largest_eigenvalue(within, options.steps)
    shrinkage = max(float(np.exp(-options.decay * largest)), options.floor)
    doubt = softmax(_posterior(x, within, shrinkage, targets), axis=1)
    sure = doubt[np.arange(len(x)), labels][:, None]
    means = _class_means(x, targets)
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    mixed = sure * x + (1.0 - sure) * others[labels]
    p = _posterior(mixed, _within(mixed, targets), shrinkage, targets)
    value = float(p[np.arange(len(x)), labels].mean())
    notes = ("saturated: the features separate the classes perfectly and nothing is left to rank by",)
    return Value(value, notes if value > SATURATED else ())


def _class_means(x: Floats, targets: Targets) -> Floats:
    return targets.columns("classes").products(x) / targets.counts[:, None]


def _within(x: Floats, targets: Targets) -> Floats:
    """(D, D) mean over objects of the squared deviation from the class mean."""
    deviations = x - _class_means(x, targets)[targets.labels]
    return deviations.T @ deviations / len(x)


def _largest_eigenvalue(a: Floats, steps: int) -> float:
    """The published estimate: power iteration from the row sums, two products a step."""
    x = y = a.sum(axis=1)
    for _ in range(steps):
        y = a @ x
        y = y / max(np.linalg.norm(y), np.finfo(np.float64).tiny)
        x = a @ y
        x = x / max(np.linalg.norm(x), np.finfo(np.float64).tiny)
    return float(x @ a @ y)


def _posterior(x: Floats, within: Floats, shrinkage: float, targets: Targets) -> Floats:
    """(N, C) class probabilities of Gaussians with a common, shrunk covariance."""
    d = len(within)
    shrunk = (1.0 - shrinkage) * within
    shrunk[np.diag_indices(d)] += shrinkage * np.trace(within) / d
    means = _class_means(x, targets)
    weights = cho_solve(cho_factor(shrunk, lower=True, check_finite=False), means.T, check_finite=False)
    bias = np.log(targets.counts / len(x)) - 0.5 * np.einsum("cd,dc->c", means, weights)
    probabilities: Floats = softmax(x @ weights + bias, axis=1)
    return probabilities


METRICS = (
    Metric(
        name="sfda",
        title="SFDA",
        needs=frozenset({"features", "labels"}),
        summary="Mean probability of the true class in a Fisher space whose doubtful objects were pushed to other classes.",
        formula=(
            "mean_i p(y_i | x_i), p of Gaussians with means m_c and covariance (1 - s) Sw + s tr(Sw)/D I, "
            "s = max(exp(-5 l1(Sw)), 1e-10), on x mixed with the other classes' means by its first probability"
        ),
        paper="Shao et al.: Not All Models Are Equal, ECCV 2022, arXiv 2207.03036",
        null="near 1 / C for N >> D, 1 for N <= D: never compare different D",
        unchanged=ALWAYS | {"shift"},
        law="a rotation changes only the estimate of the largest eigenvalue",
        compute=sfda,
        options=SfdaOptions,
    ),
)
