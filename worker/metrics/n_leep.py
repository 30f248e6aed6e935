"""N-LEEP: LEEP with the clusters of the features in place of a source head.

Source: Li et al., "Ranking Neural Checkpoints", CVPR 2021, arXiv 2011.11200: principal components with 80 % of
the variance, a Gaussian mixture with five components per class, its posterior as the source probabilities, and
the mean LOG likelihood (several public copies leave out the log). The mixture's start is seeded here.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass

import numpy as np

from worker.metrics.arrays import Floats
from worker.metrics.base import Undefined, Value
from worker.metrics.changes import EVERY
from worker.metrics.leep import leep_of
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

FEW = 10


@dataclass(frozen=True)
class NLeepOptions:
    """Settings of N-LEEP (2021).

    energy: share of the variance kept. components: Gaussians per class. seed: of the mixture's start.
    """

    energy: float = 0.8
    components: int = 5
    seed: int = 0


def n_leep(prepared: Prepared, targets: Targets) -> Value:
    """N-LEEP; needs at least two objects per Gaussian."""
    targets.require_labels()
    prepared.require_variance()
    options = prepared.options.of(NLeepOptions)
    components = options.components * len(targets.counts)
    if prepared.objects < 2 * components:
        raise Undefined(
            f"{prepared.objects} objects for {components} Gaussians ({options.components} per class): "
            f"use at least {2 * components}"
        )
    theta, converged = prepared.memo(
        ("n_leep", components), lambda: _posterior(prepared, options, components)
    )
    notes: tuple[str, ...] = ()
    if not converged:
        notes += ("the Gaussian mixture had not converged after 100 steps",)
    if prepared.objects < FEW * components:
        notes += (f"fewer than {FEW} objects per Gaussian: objects are partly learnt by heart",)
    return Value(leep_of(theta, targets), notes)


def _posterior(prepared: Prepared, options: NLeepOptions, components: int) -> tuple[Floats, bool]:
    """(N, components) posterior of the mixture, and whether its fit converged."""
    s = prepared.spectrum.centred.eigenvalues[::-1]
    energy = np.cumsum(s) / s.sum()
    kept = int(np.searchsorted(energy, options.energy)) + 1
    scores = prepared.principal(min(kept, len(s)))[1]
    scores = (
        scores / scores[:, 0].std()
    )  # scikit-learn adds 1e-6 to every variance, in whatever unit it is given
    # scikit-learn takes a second to import, which only this metric and NCTI should pay.
    mixture = importlib.import_module("sklearn.mixture").GaussianMixture(
        n_components=components, random_state=options.seed
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
        unchanged=EVERY - {"objects", "linear"},
        law="the order of the objects decides where the mixture starts",
        compute=n_leep,
        options=NLeepOptions,
    ),
)
