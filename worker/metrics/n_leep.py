"""N-LEEP: LEEP with the clusters of the features in place of a source head.

Source: Li et al., "Ranking Neural Checkpoints", CVPR 2021, arXiv 2011.11200: principal components with 80 % of
the variance, a Gaussian mixture with five components per class, its posterior as the source probabilities, and
the mean LOG likelihood (several public copies leave out the log). The mixture's start is seeded here.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np

from worker.metrics.base import Metric, Undefined, Value
from worker.metrics.leep import leep_of
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

FEW = 10


def n_leep(prepared: Prepared, targets: Targets) -> Value:
    """N-LEEP; needs at least two objects per Gaussian."""
    targets.require_labels()
    prepared.require_variance()
    components = prepared.options.nleep_components * len(targets.counts)
    if prepared.objects < 2 * components:
        raise Undefined(
            f"{prepared.objects} objects for {components} Gaussians ({prepared.options.nleep_components} per class): "
            f"use at least {2 * components}"
        )
    theta, converged = prepared.memo(("n_leep", components), lambda: _posterior(prepared, components))
    notes = () if converged else ("the Gaussian mixture had not converged after 100 steps",)
    if prepared.objects < FEW * components:
        notes += (f"fewer than {FEW} objects per Gaussian: objects are partly learnt by heart",)
    return Value(leep_of(theta, targets), notes)


def _posterior(prepared: Prepared, components: int) -> tuple[np.ndarray, bool]:
    """(N, components) posterior of the mixture, and whether its fit converged."""
    s = prepared.spectrum.centred.eigenvalues[::-1]
    energy = np.cumsum(s) / s.sum()
    kept = int(np.searchsorted(energy, prepared.options.nleep_energy)) + 1
    scores = prepared.principal(min(kept, len(s)))[1]
    # scikit-learn takes a second to import, which only this metric and NCTI should pay.
    mixture = importlib.import_module("sklearn.mixture").GaussianMixture(
        n_components=components, random_state=prepared.options.nleep_seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said as a note
        try:
            mixture.fit(scores)
        except ValueError as error:
            raise Undefined(f"the Gaussian mixture cannot be fitted: {error}") from error
    return mixture.predict_proba(scores), bool(mixture.converged_)


METRICS = (
    Metric(
        name="n_leep",
        title="N-LEEP",
        needs=frozenset({"features", "labels"}),
        summary="Log likelihood of the labels given the cluster of the features an object falls in.",
        formula="LEEP with theta the posterior of a mixture of 5C Gaussians on the principal components that hold 80 % of the variance",
        paper="Li et al.: Ranking Neural Checkpoints, CVPR 2021, arXiv 2011.11200",
        null="a little above minus the entropy of the labels (5C clusters can be learnt by heart)",
        invariant="common scale, shift and rotation of the features",
        compute=n_leep,
    ),
)
