"""GBC: how much the classes overlap, each taken as a Gaussian.

Source: Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022,
arXiv 2111.12780: 64 principal components, and covariances that are diagonal or spherical because few objects
cannot fill a full one. As in the authors' code, the variances of a class are those of its objects (divided by n), and none
is less than 1e-4, so that a class of one object, or of objects that are alike, has a value. Their 1e-4 is absolute, in
whatever unit the features have; here it is a share of the mean variance of the components, which is the same number for
features of unit variance and does not depend on the scale for any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker.metrics.base import Value
from worker.metrics.changes import EVERY
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


@dataclass(frozen=True)
class GbcOptions:
    """Settings of GBC (2022). dims: principal components. covariance: the shape of a class.

    floor: least variance of a class in a component, as a share of the mean variance of the components.
    """

    dims: int = 64
    covariance: Literal["diagonal", "spherical"] = "diagonal"
    floor: float = 1e-4


def gbc(prepared: Prepared, targets: Targets) -> Value:
    """Minus the sum over ordered pairs of classes of their Bhattacharyya coefficient: 0 if they never overlap."""
    labels = targets.require_labels()
    prepared.require_variance()
    options = prepared.options.of(GbcOptions)
    values, scores = prepared.principal(options.dims)
    scores = scores[:, values > values[0] * prepared.dim * np.finfo(np.float64).eps]
    classes = range(len(targets.counts))
    means = np.array([scores[labels == c].mean(axis=0) for c in classes])
    variances = np.array([scores[labels == c].var(axis=0) for c in classes])
    floor = options.floor * scores.var(axis=0).mean()
    floored = int((variances < floor).any(axis=1).sum())
    variances = np.maximum(variances, floor)
    if options.covariance == "spherical":
        variances = np.repeat(variances.mean(axis=1, keepdims=True), scores.shape[1], axis=1)
    total = 0.0
    for c in classes:
        both = (variances[c] + variances) / 2.0
        distance = np.square(means[c] - means) / (8.0 * both)
        distance += 0.5 * np.log(both / np.sqrt(variances[c] * variances))
        overlap = np.exp(-distance.sum(axis=1))
        total += overlap.sum() - overlap[c]
    rare = int((targets.counts < scores.shape[1]).sum())
    notes: tuple[str, ...] = ()
    if rare:
        notes += (f"{rare} classes have fewer objects than the {scores.shape[1]} components: a noisy value",)
    if floored:
        notes += (
            f"{floored} classes hardly vary in some component: their variance there was set to the floor",
        )
    return Value(-float(total), notes)


METRICS = (
    Metric(
        name="gbc",
        title="GBC",
        needs=frozenset({"features", "labels"}),
        summary="How little the classes overlap in the features, each seen as a Gaussian.",
        formula=(
            "- sum_{i != j} exp(-B_ij), B = 1/8 d' S^-1 d + 1/2 log( |S| / sqrt(|S_i| |S_j|) ), "
            "S = (S_i + S_j)/2 diagonal, on 64 principal components"
        ),
        paper="Pandy et al.: Transferability Estimation using Bhattacharyya Class Separability, CVPR 2022, arXiv 2111.12780",
        null="-C (C - 1) for large classes; above it where classes are small",
        unchanged=EVERY - {"linear"},
        compute=gbc,
        options=GbcOptions,
    ),
)
