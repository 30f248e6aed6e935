"""The published metrics the plain way: one SVD, pseudo-inverse or log-determinant each, nothing shared.

The measure for `benchmarks/metrics.py`. Written from the papers and from what their public code computes
(LogME: SVD of X'X for N > D, of X otherwise; H-score: pinv of the covariance; regularised H-score:
scikit-learn's LedoitWolf, then pinv; TransRate: one D x D log-determinant per class). Each takes float32
features and converts them itself, as the public code does.
"""

import numpy as np
from sklearn.covariance import LedoitWolf


def logme_columns(x, columns):
    x = x.astype(np.float64)
    n, d = x.shape
    k = min(n, d)
    if n > d:
        _, s, vh = np.linalg.svd(x.T @ x, full_matrices=True)
        s = np.sqrt(s)
        k = int((s > 1e-10).sum())
        s, vh = s[:k], vh[:k]
        u = (x @ vh.T) / s
    else:
        u, s, vh = np.linalg.svd(x, full_matrices=False)
    sigma = s**2
    total = 0.0
    for y in columns:
        z2 = (u.T @ y) ** 2
        outside = (y**2).sum() - z2.sum()
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            m2 = (sigma * z2 / (t + sigma) ** 2).sum()
            res = (z2 / (1 + sigma / t) ** 2).sum() + outside
            alpha, beta = gamma / m2, (n - gamma) / res
            if abs(alpha / beta - t) / t < 0.01:
                break
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - 0.5 * np.log(alpha + beta * sigma).sum()
        evidence -= (d - k) / 2 * np.log(alpha) + beta / 2 * res + alpha / 2 * m2 + n / 2 * np.log(2 * np.pi)
        total += evidence / n
    return total / len(columns)


def logme(x, y, b):
    return logme_columns(x, [(y == c).astype(np.float64) for c in np.unique(y)])


def logme_boxes(x, y, b):
    return logme_columns(x, list(b.T))


def tlogme(x, y, b):
    return (logme(x, y, b) + logme_boxes(x, y, b)) / 2


def class_mean_rows(x, y):
    g = np.zeros_like(x)
    for c in np.unique(y):
        g[y == c] = x[y == c].mean(axis=0)
    return g


def h_score(x, y, b):
    x = x.astype(np.float64)
    inverse = np.linalg.pinv(np.cov(x, rowvar=False), rcond=1e-15)
    return float(np.trace(inverse @ np.cov(class_mean_rows(x, y), rowvar=False)))


def h_score_regularized(x, y, b):
    x = x.astype(np.float64)
    shrunk = LedoitWolf(assume_centered=False).fit(x)
    between = (1 - shrunk.shrinkage_) * np.cov(class_mean_rows(x, y), rowvar=False)
    return float(np.trace(np.linalg.pinv(shrunk.covariance_, rcond=1e-15) @ between))


def rate(z, eps=1e-4):
    n, d = z.shape
    return 0.5 * np.linalg.slogdet(np.eye(d) + z.T @ z / (n * eps))[1]


def transrate(x, y, b):
    z = x.astype(np.float64)
    z = z - z.mean(axis=0)
    classes = np.unique(y)
    return rate(z) - sum(rate(z[y == c]) for c in classes) / len(classes)


# The five published metrics and LogME on boxes. TLogME is the mean of two of them: its public notebook adds the
# two stored results, so the plain way is not charged for it twice.
PUBLISHED = {f.__name__: f for f in (logme, logme_boxes, h_score, h_score_regularized, transrate)}
