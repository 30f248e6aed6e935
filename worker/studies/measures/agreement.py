"""How well scores agree with the truth, for many resamples at once.

Every function takes scores and truth (B, n) float64, one resample per row, and returns (B,); NaN where the measure has
no value: the caller turns it into a reason. Definitions are scipy's (the tests hold them to it); scipy itself takes one
sample per call, and a bootstrap asks thousands of times.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def pearson(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Linear correlation; undefined where scores or truth are constant."""
    a, b = _centred(scores), _centred(truth)
    # the mean of equal numbers leaves rounding, which must not become a correlation
    constant = (np.ptp(scores, axis=1) == 0) | (np.ptp(truth, axis=1) == 0)
    return np.where(constant, np.nan, np.clip(_ratio((a * b).sum(1), (a * a).sum(1), (b * b).sum(1)), -1, 1))


def spearman(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson of the ranks; ties share their mean rank."""
    return pearson(rankdata(scores, axis=1), rankdata(truth, axis=1))


def kendall(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Kendall's tau-b."""
    return _tau(scores, truth, None)


def weighted_tau(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weighted Kendall tau (Vigna, WWW 2015) as `scipy.stats.weightedtau` has it by default.

    Additive hyperbolic weights: a pair counts 1/(1+r) + 1/(1+s) with the ranks r, s of its members from 0, so that
    errors at the top weigh most. Symmetric: the mean over ranking by decreasing truth and by decreasing score.
    """
    by_truth = _tau(scores, truth, _descending(truth, scores))
    by_score = _tau(scores, truth, _descending(scores, truth))
    return (by_truth + by_score) / 2


def rel_at(k: int, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rel@k: the best truth among the k highest scores, divided by the best truth.

    Equal scores are taken worst truth first, so a score earns nothing by not deciding. Undefined where nothing in
    the truth is positive, and where n <= k.
    """
    best = truth.max(axis=1)
    with np.errstate(all="ignore"):
        return np.where(best > 0, _best_of(k, scores, truth) / best, np.nan)


def regret_at(k: int, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Regret@k = 1 - Rel@k: the share of the best truth that is lost by looking at the k highest scores only."""
    return 1 - rel_at(k, scores, truth)


def lost_at(k: int, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Regret@k in the truth's own unit, so that nobody's 0.01 mAP counts as much as another's 0.5: the best truth less the
    best among the k highest scores. Undefined where n <= k."""
    return truth.max(axis=1) - _best_of(k, scores, truth)


def _best_of(k: int, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B,) the best truth among the k highest scores, of equal scores the worst first; NaN where n <= k."""
    if truth.shape[1] <= k:
        return np.full(len(truth), np.nan)
    order = np.lexsort((truth, -scores), axis=1)[:, :k]
    return np.take_along_axis(truth, order, axis=1).max(axis=1)


def _centred(values: np.ndarray) -> np.ndarray:
    # scaled first: squares of very small or large scores must neither vanish nor overflow
    peak = np.abs(values).max(axis=1, keepdims=True)
    scaled = values / np.where(peak > 0, peak, 1)
    centred = scaled - scaled.mean(axis=1, keepdims=True)
    spread = np.abs(centred).max(axis=1, keepdims=True)
    return centred / np.where(spread > 0, spread, 1)


def _tau(scores: np.ndarray, truth: np.ndarray, ranks: np.ndarray | None) -> np.ndarray:
    """sum of w sign(score difference) sign(truth difference) over pairs, normalised as a cosine (ties count 0)."""
    first, second = np.triu_indices(scores.shape[1], k=1)
    a = np.sign(scores[:, first] - scores[:, second])
    b = np.sign(truth[:, first] - truth[:, second])
    if ranks is None:
        weights = np.ones((1, len(first)))
    else:
        single = 1 / (1 + ranks)
        weights = single[:, first] + single[:, second]
    return np.clip(
        _ratio((weights * a * b).sum(1), (weights * a * a).sum(1), (weights * b * b).sum(1)), -1, 1
    )


def _descending(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(B, n) rank from 0 by decreasing `first`, its ties by decreasing `then`."""
    order = np.lexsort((-then, -first), axis=1)
    ranks = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None, :], axis=1)
    return ranks


def _ratio(both: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where((a > 0) & (b > 0), both / (np.sqrt(a) * np.sqrt(b)), np.nan)
