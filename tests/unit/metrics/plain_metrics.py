"""The formulas as the papers and their code state them, one decomposition per metric, nothing shared.

Slow on purpose: tests and the benchmark hold worker.metrics against these. Sources are named in
worker/metrics; arrays are float64 unless said otherwise.
"""

import numpy as np

from worker.metrics import FeatureSet


def one_hot(y):
    classes = np.unique(y)
    return (y[:, None] == classes).astype(np.float64)


def logme(x, columns):
    """Mean evidence over the columns of `columns` (N, K): SVD of X'X for N > D, else of X."""
    x = x.astype(np.float64)
    n, d = x.shape
    k = min(n, d)
    if n > d:
        _, s, vh = np.linalg.svd(x.T @ x, full_matrices=True)
        s, u = np.maximum(s, 0), None
        u = x @ vh.T / np.sqrt(np.where(s > 0, s, 1))
    else:
        u, sigma, vh = np.linalg.svd(x, full_matrices=False)
        s = sigma**2
    found = []
    for y in columns.T.astype(np.float64):
        z2 = (u.T @ y) ** 2
        outside = max((y**2).sum() - z2.sum(), 0.0)
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (s / (s + t)).sum()
            m2 = (s * z2 / (s + t) ** 2).sum()
            res = (z2 / (1 + s / t) ** 2).sum() + outside
            alpha, beta = gamma / m2, (n - gamma) / res
            if abs(alpha / beta - t) / t < 0.01:
                break
        found.append(
            (
                d / 2 * np.log(alpha)
                + n / 2 * np.log(beta)
                - np.log(alpha + beta * s).sum() / 2
                - (d - k) / 2 * np.log(alpha)
                - beta / 2 * res
                - alpha / 2 * m2
                - n / 2 * np.log(2 * np.pi)
            )
            / n
        )
    return float(np.mean(found))


def class_mean_rows(x, y):
    g = np.zeros(x.shape)
    for c in np.unique(y):
        g[y == c] = x[y == c].mean(axis=0)
    return g


def h_score(x, y):
    x = x.astype(np.float64)
    g = class_mean_rows(x, y)
    return float(np.trace(np.linalg.pinv(np.cov(x, rowvar=False), rcond=1e-15) @ np.cov(g, rowvar=False)))


def ledoit_wolf(x):
    """(shrunk covariance, weight), written from Ledoit and Wolf 2004 with explicit outer products as sums."""
    n, d = x.shape
    z = x - x.mean(axis=0)
    cov = z.T @ z / n
    mu = np.trace(cov) / d
    distance = ((cov - mu * np.eye(d)) ** 2).sum() / d
    spread = (((z**2).sum(axis=1) ** 2).sum() / n - (cov**2).sum()) / (n * d)
    weight = 0.0 if spread <= 0 else min(spread, distance) / distance
    return (1 - weight) * cov + weight * mu * np.eye(d), weight


def h_score_regularized(x, y):
    x = x.astype(np.float64)
    cov, weight = ledoit_wolf(x)
    between = np.cov(class_mean_rows(x, y), rowvar=False)
    return float(np.trace(np.linalg.pinv(cov) @ ((1 - weight) * between)))


def rate(z, eps=1e-4):
    n, d = z.shape
    return float(np.linalg.slogdet(np.eye(d) + z.T @ z / (n * eps))[1] / 2)


def transrate(x, y):
    z = x.astype(np.float64)
    z = z - z.mean(axis=0)
    return rate(z) - float(np.mean([rate(z[y == c]) for c in np.unique(y)]))


def leep(theta, y):
    classes = np.unique(y)
    joint = np.array([theta[y == c].sum(axis=0) for c in classes]) / len(y)
    given = joint / joint.sum(axis=0)
    position = np.searchsorted(classes, y)
    return float(np.mean([np.log((given[position[i]] * theta[i]).sum()) for i in range(len(y))]))


def nce(theta, y):
    z = theta.argmax(axis=1)
    total = 0.0
    for i in range(len(y)):
        same = z == z[i]
        total += np.log((y[same] == y[i]).mean())
    return total / len(y)


def draw(n, d, c, seed=0, offset=0.5, signal=1.0):
    """Features with a decaying spectrum and an offset, imbalanced classes that shift them, boxes they explain."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(c), rng.choice(c, n - c, p=np.arange(c, 0, -1) / (c * (c + 1) / 2))])
    centres = signal * rng.standard_normal((c, d))
    spectrum = 1.0 / np.sqrt(1 + np.arange(d))
    x = (rng.standard_normal((n, d)) + centres[labels]) * spectrum + offset
    low = rng.uniform(0, 0.5, (n, 2)) + 0.02 * x[:, :1]
    boxes = np.hstack([low, low + rng.uniform(0.05, 0.4, (n, 2))])
    theta = rng.dirichlet(np.ones(7), n)
    return FeatureSet(x, labels, boxes, theta, np.arange(n) // 3)
