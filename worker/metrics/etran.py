"""ETran: energy, classification and regression scores of the features.

Source: Gholami, Akbari et al., "ETran: Energy-Based Transferability Estimation", ICCV 2023, arXiv 2308.02027.
The public code has the energy and two linear terms but no detection part; the sum over three terms follows the
caption of the paper's figure 2, with equal weights because the code holds none for detection.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.special import logsumexp, softmax

from worker.metrics.base import Metric, Undefined, Value, scaled_over_pool
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def etran_energy(prepared: Prepared, targets: Targets) -> Value:
    """Mean over the 0.5 % of objects with the least energy of log sum exp of their features."""
    prepared.require_rows()
    chosen = prepared.options.etran_energy_per_mille * prepared.objects // 1000
    if not chosen:
        least = -(-1000 // prepared.options.etran_energy_per_mille)
        raise Undefined(f"{prepared.objects} objects: 0.5 % of them is none; use at least {least}")
    energy = prepared.map_rows(lambda block: logsumexp(block + prepared.mean, axis=1))
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


def combine(terms: Mapping[str, np.ndarray]) -> np.ndarray:
    """ETran of every candidate from the terms of all."""
    return sum(scaled_over_pool(values) for values in terms.values())


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
        invariant="order of the feature columns; nothing else",
        compute=etran_energy,
    ),
    Metric(
        name="etran_classification",
        title="ETran, classification",
        needs=frozenset({"features", "labels"}),
        summary="How well the nearest class mean tells the class.",
        formula="mean_i softmax_c( x_i' m_c - |m_c|^2/2 + log(n_c/N) )[y_i]",
        paper=PAPER,
        null="near the sum of the squared class frequencies for small features, more for large ones",
        invariant="rotation and shift of the features; not their scale",
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
        invariant="any invertible linear map of the features; not a shift",
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
        invariant="order of the feature columns",
        pool_relative=True,
        terms=("etran_energy", "etran_classification", "etran_regression"),
        combine=combine,
        rederived=True,
    ),
)
