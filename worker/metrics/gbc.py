"""GBC: how much the classes overlap, each taken as a Gaussian.

Source: Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022,
arXiv 2111.12780: 64 principal components, and covariances that are diagonal or spherical because few objects
cannot fill a full one.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import Metric, Undefined, Value
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def gbc(prepared: Prepared, targets: Targets) -> Value:
    """Minus the sum over ordered pairs of classes of their Bhattacharyya coefficient: 0 if they never overlap.

    Undefined where a class has a single object, or no spread in some component.
    """
    labels = targets.require_labels()
    prepared.require_variance()
    small = int((targets.counts < 2).sum())
    if small:
        raise Undefined(f"{small} classes have fewer than 2 objects: their spread is unknown")
    values, scores = prepared.principal(prepared.options.gbc_dims)
    scores = scores[:, values > values[0] * prepared.dim * np.finfo(np.float64).eps]
    classes = range(len(targets.counts))
    means = np.array([scores[labels == c].mean(axis=0) for c in classes])
    variances = np.array([scores[labels == c].var(axis=0, ddof=1) for c in classes])
    if prepared.options.gbc_covariance == "spherical":
        variances = np.repeat(variances.mean(axis=1, keepdims=True), scores.shape[1], axis=1)
    if (variances <= 0).any():
        raise Undefined("the objects of a class are all alike in some principal component")
    total = 0.0
    for c in classes:
        both = (variances[c] + variances) / 2.0
        distance = np.square(means[c] - means) / (8.0 * both)
        distance += 0.5 * np.log(both / np.sqrt(variances[c] * variances))
        overlap = np.exp(-distance.sum(axis=1))
        total += overlap.sum() - overlap[c]
    rare = int((targets.counts < scores.shape[1]).sum())
    notes = (
        (f"{rare} classes have fewer objects than the {scores.shape[1]} components: a noisy value",)
        if rare
        else ()
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
        invariant="common scale, shift and rotation of the features",
        compute=gbc,
    ),
)
