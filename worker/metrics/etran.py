"""ETran: energy, classification and regression scores of the features.

Source: Gholami, Akbari et al., "ETran: Energy-Based Transferability Estimation", ICCV 2023, arXiv 2308.02027.
The public code has the energy and two linear terms but no detection part; the sum over three terms follows the
caption of the paper's figure 2, with equal weights because the code holds none for detection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.special import softmax

from worker.metrics.arrays import Floats
from worker.metrics.base import Undefined, Value, scaled_over_pool
from worker.metrics.changes import ALWAYS, EVERY
from worker.metrics.metric import Metric, Pooled
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

ROUGH = 1e-5  # more than the error of an energy in single precision, relative to the largest


@dataclass(frozen=True)
class EtranOptions:
    """Settings of ETran (2023). energy_per_mille: share of the objects, lowest energy first, that the energy averages."""

    energy_per_mille: int = 5


def etran_energy(prepared: Prepared, targets: Targets) -> Value:
    """Mean over the 0.5 % of objects with the least energy of log sum exp of their features."""
    x = prepared.at_hand()
    per_mille = prepared.options.of(EtranOptions).energy_per_mille
    chosen = per_mille * prepared.objects // 1000
    if not chosen:
        prepared.check()
        least = -(-1000 // per_mille)
        raise Undefined(f"{prepared.objects} objects: 0.5 % of them is none; use at least {least}")
    rough = prepared.engine.energies(x, prepared.options.block_rows)
    if not np.isfinite(rough).all():
        prepared.check()
    # told apart in single precision, the few that may be the least are then taken in double
    limit = np.partition(rough, chosen - 1)[chosen - 1]
    near = np.flatnonzero(rough <= limit + ROUGH * max(1.0, float(np.abs(rough).max())))
    rows = np.asarray(prepared.engine.rows(x, near), np.float64)
    highest = rows.max(axis=1)
    energy = np.log(np.exp(rows - highest[:, None]).sum(axis=1)) + highest
    return Value(float(np.sort(energy)[:chosen].mean()))


def etran_classification(prepared: Prepared, targets: Targets) -> Value:
    """Mean probability of the true class under Gaussians of unit covariance at the class means.

    The public code reaches the same numbers through a discriminant analysis whose eigenvectors cancel.
    """
    labels = targets.require_labels()
    prepared.require_rows()
    means = prepared.cross(targets, "classes") / targets.counts[:, None]
    bias = np.log(targets.counts / prepared.objects) - 0.5 * np.einsum("cd,cd->c", means, means)
    p = prepared.map_rows(lambda block: softmax(block @ means.T + bias, axis=1))
    return Value(float(p[np.arange(len(labels)), labels].mean()))


def etran_regression(prepared: Prepared, targets: Targets) -> Value:
    """Minus the mean squared residual of the boxes on the features, without an intercept."""
    targets.check_boxes()
    prepared.require_signal()
    n, d = prepared.objects, prepared.dim
    if n <= d:
        raise Undefined(
            f"{n} objects for {d} dimensions: a linear model fits any boxes exactly; use more than {d}"
        )
    t, columns = prepared.spectrum.raw, prepared.project(targets, "boxes")
    limit = prepared.options.rank_tolerance or max(n, d) * np.finfo(np.float64).eps
    values, vectors = prepared.memo("raw_eigen", lambda: eigh_tridiagonal(t.diagonal, t.off))
    good = values > limit * values[-1]
    explained = np.square(vectors[:, good].T @ columns.raw) / values[good][:, None]
    residual = np.maximum(columns.squares - explained.sum(axis=0), 0.0)
    dropped = int((~good).sum())
    notes = (f"{dropped} directions without any features were left out",) if dropped else ()
    return Value(-float(residual.sum()) / (4 * n), notes)


def combine(terms: Mapping[str, Floats]) -> Floats:
    """ETran of every candidate from the terms of all."""
    return np.asarray(np.sum([scaled_over_pool(values) for values in terms.values()], axis=0))


PAPER = "Gholami, Akbari et al.: ETran, ICCV 2023, arXiv 2308.02027"

METRICS = (
    Metric(
        name="etran_energy",
        title="ETran, energy",
        needs=frozenset({"features"}),
        summary="How typical even the least typical objects are of what the features were trained on.",
        formula="mean of log sum_d exp(x_id) over the 0.5 % of objects where it is least",
        paper=PAPER,
        null="none: it does not look at the targets, so permuting them changes nothing",
        unchanged=ALWAYS,
        compute=etran_energy,
        options=EtranOptions,
    ),
    Metric(
        name="etran_classification",
        title="ETran, classification",
        needs=frozenset({"features", "labels"}),
        summary="How well the nearest class mean tells the class.",
        formula="mean_i softmax_c( x_i' m_c - |m_c|^2/2 + log(n_c/N) )[y_i]",
        paper=PAPER,
        null="near the sum of the squared class frequencies for small features, more for large ones",
        unchanged=ALWAYS | {"shift", "rotation", "zeros"},
        compute=etran_classification,
    ),
    Metric(
        name="etran_regression",
        title="ETran, regression",
        needs=frozenset({"features", "boxes"}),
        summary="How well a linear model on the features places the boxes, by least squares.",
        formula="- mean over objects and coordinates of ( b - X X^+ b )^2",
        paper=PAPER,
        null="minus (1 - D/N) times the mean square of the boxes: grows with D",
        unchanged=EVERY - {"shift"},
        compute=etran_regression,
        statistics=True,
    ),
    Metric(
        name="etran",
        title="ETran",
        needs=frozenset({"features", "labels", "boxes"}),
        summary="Energy, classification and regression together, relative to the other candidates.",
        formula="etran_energy + etran_classification + etran_regression, each scaled to [0, 1] over the pool",
        paper=PAPER,
        null="none: relative to the pool",
        unchanged=ALWAYS,
        pooled=Pooled(("etran_energy", "etran_classification", "etran_regression"), combine),
        rederived=True,
    ),
)
