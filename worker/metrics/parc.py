"""PARC: do objects whose features differ also differ in class?

Source: Bolya, Mittapalli, Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning",
NeurIPS 2021, arXiv 2111.06977. Three things are exact here that are not in the public code: the principal
components (there a randomised approximation), and the two values that a pair of one-hot labels can have (there
rounding splits one of them and so breaks ties at random).
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import Metric, Undefined, Value
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def parc(prepared: Prepared, targets: Targets) -> Value:
    """100 times the Spearman correlation of feature and label distances over all pairs of objects.

    More than `parc_objects` objects are sampled, with a note: the pairs grow with the square of N.
    """
    labels = targets.require_labels()
    prepared.require_variance()
    chosen, ranks = prepared.memo("parc", lambda: _pair_ranks(prepared))
    own = labels[chosen]
    first, second = np.triu_indices(len(own), 1)
    differ = own[first] != own[second]
    share = float(differ.mean())
    spread = float(ranks.std())
    if share in (0.0, 1.0):
        raise Undefined("the objects compared are all of one class, or all of different classes")
    if spread == 0.0:
        raise Undefined("all pairs of objects are equally far apart in the features")
    gap = float(ranks[differ].mean() - ranks[~differ].mean())
    notes = (f"{len(own)} of {len(labels)} objects were compared",) if len(own) < len(labels) else ()
    return Value(100.0 * gap * np.sqrt(share * (1.0 - share)) / spread, notes)


def _pair_ranks(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """The objects compared, ascending, and the rank of the feature distance of every pair of them."""
    options = prepared.options
    chosen = np.arange(prepared.objects)
    if len(chosen) > options.parc_objects:
        rng = np.random.default_rng(options.parc_seed)
        chosen = np.sort(rng.choice(chosen, options.parc_objects, replace=False))
    if min(options.parc_dims, prepared.dim, prepared.objects - 1) < 2:
        raise Undefined("the correlation of two objects needs at least 2 principal components")
    values, scores = prepared.principal(options.parc_dims)
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
    return chosen, mean_ranks(distances[np.triu_indices(len(chosen), 1)])


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """(n,) ranks from 1; equal values share the mean of theirs. (scipy.stats takes a second to import.)"""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    ends = np.r_[starts[1:], len(values)]
    out = np.empty(len(values))
    out[order] = np.repeat((starts + 1 + ends) / 2.0, ends - starts)
    return out


METRICS = (
    Metric(
        name="parc",
        title="PARC",
        needs=frozenset({"features", "labels"}),
        summary="Rank correlation between how far apart two objects are in the features and in their labels.",
        formula="100 Spearman( 1 - corr(f_i, f_j), 1[y_i != y_j] ) over pairs, f the 32 standardised principal components",
        paper="Bolya, Mittapalli, Hoffman: Scalable Diverse Model Selection, NeurIPS 2021, arXiv 2111.06977",
        null="0",
        invariant="common scale and shift of the features, order of their columns; not a rotation (signs of components)",
        compute=parc,
    ),
)
