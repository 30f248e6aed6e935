"""PARC: do objects whose features differ also differ in class?

Source: Bolya, Mittapalli, Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning",
NeurIPS 2021, arXiv 2111.06977. Three things are exact here that are not in the public code: the principal
components (there a randomised approximation), and the two values that a pair of one-hot labels can have (there
rounding splits one of them and so breaks ties at random).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import Undefined, Value
from worker.metrics.changes import ALWAYS
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


@dataclass(frozen=True)
class ParcOptions:
    """Settings of PARC (2021).

    dims: principal components. objects: most objects compared. seed: of their choice where there are more.
    """

    dims: int = 32
    objects: int = 2000
    seed: int = 0


def parc(prepared: Prepared, targets: Targets) -> Value:
    """100 times the Spearman correlation of feature and label distances over all pairs of objects.

    More than `ParcOptions.objects` objects are sampled, with a note: the pairs grow with the square of N.
    """
    labels = targets.require_labels()
    prepared.require_variance()
    pairs: Pairs = prepared.memo("parc", lambda: _pairs(prepared))
    own = labels[pairs.chosen]
    alike = np.concatenate([own[i] == own[i + 1 :] for i in range(len(own))])
    share = 1.0 - float(alike.mean())
    if share in (0.0, 1.0):
        raise Undefined("the objects compared are all of one class, or all of different classes")
    if pairs.spread == 0.0:
        raise Undefined("all pairs of objects are equally far apart in the features")
    count = len(alike)
    of_alike = float(pairs.ranks(pairs.distances[alike]).sum())
    of_all = count * (count + 1) / 2.0
    alike_count = count * (1.0 - share)
    gap = (of_all - of_alike) / (count - alike_count) - of_alike / alike_count
    notes = (f"{len(own)} of {len(labels)} objects were compared",) if len(own) < len(labels) else ()
    return Value(100.0 * gap * np.sqrt(share * (1.0 - share)) / pairs.spread, notes)


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs i < j of the objects compared, row by row.

    chosen: the objects, ascending. distances (P,), sorted (P,): the same in order. spread: deviation of their ranks.
    """

    chosen: Ints
    distances: Floats
    sorted: Floats
    spread: float

    @classmethod
    def of(cls, chosen: Ints, distances: Floats) -> Pairs:
        ordered = np.sort(distances)
        count = len(ordered)
        edges = np.flatnonzero(np.r_[True, np.diff(ordered) != 0, True])
        ties = np.diff(edges).astype(np.float64)
        variance = (float(count) ** 2 - 1.0) / 12.0 - float((ties**3 - ties).sum()) / (12.0 * count)
        return cls(chosen, distances, ordered, float(np.sqrt(max(variance, 0.0))))

    def ranks(self, values: Floats) -> Floats:
        """Ranks from 1 of some of the distances; equal ones share the mean of theirs."""
        values = np.sort(values)
        first, last = (np.searchsorted(self.sorted, values, side) for side in ("left", "right"))
        return (first + last + 1) / 2.0


def _pairs(prepared: Prepared) -> Pairs:
    options = prepared.options.of(ParcOptions)
    chosen = np.arange(prepared.objects)
    if len(chosen) > options.objects:
        rng = np.random.default_rng(options.seed)
        chosen = np.sort(rng.choice(chosen, options.objects, replace=False))
    if min(options.dims, prepared.dim, prepared.objects - 1) < 2:
        raise Undefined("the correlation of two objects needs at least 2 principal components")
    values, scores = prepared.principal(options.dims)
    scores = scores[chosen][:, values > values[0] * prepared.dim * np.finfo(np.float64).eps]
    if scores.shape[1] < 2:
        raise Undefined("the features vary in a single direction: the correlation of two objects is always 1")
    scores = scores - scores.mean(axis=0)
    scores /= scores.std(axis=0)
    scores -= scores.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(scores, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise Undefined("an object has the same value in every principal component")
    scores /= lengths
    distances = 1.0 - scores @ scores.T
    return Pairs.of(chosen, np.concatenate([distances[i, i + 1 :] for i in range(len(chosen))]))


METRICS = (
    Metric(
        name="parc",
        title="PARC",
        needs=frozenset({"features", "labels"}),
        summary="Rank correlation between how far apart two objects are in the features and in their labels.",
        formula="100 Spearman( 1 - corr(f_i, f_j), 1[y_i != y_j] ) over pairs, f the 32 standardised principal components",
        paper="Bolya, Mittapalli, Hoffman: Scalable Diverse Model Selection, NeurIPS 2021, arXiv 2111.06977",
        null="0",
        unchanged=ALWAYS | {"scale", "shift", "repeated", "zeros"},
        law="of more objects than are compared, their order decides which are",
        compute=parc,
        options=ParcOptions,
    ),
)
