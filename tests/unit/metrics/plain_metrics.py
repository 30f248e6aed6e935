"""The formulas as the papers and their code state them, one decomposition per metric, nothing shared.

Slow on purpose: tests and the benchmark hold worker.metrics against these. Sources are named in
worker/metrics; arrays are float64 unless said otherwise.
"""

import numpy as np

from worker.metrics import FeatureSet, RegionSet


def one_hot(y):
    classes = np.unique(y)
    return (y[:, None] == classes).astype(np.float64)


def eigen(x):
    """Eigenvalues (k,) of X'X and the columns' directions U (N, k), k = min(N, D)."""
    u, sigma, _ = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    return sigma**2, u


def published_logme(x, columns, steps=11, tolerance=0.01):
    """Mean evidence over the columns of `columns` (N, K) by the published fixed point."""
    s, u = eigen(x)
    n, d = x.shape
    found = []
    for y in columns.T.astype(np.float64):
        z2 = (u.T @ y) ** 2
        outside = max((y**2).sum() - z2.sum(), 0.0)
        alpha = beta = 1.0
        for _ in range(steps):
            t = alpha / beta
            gamma = (s / (s + t)).sum()
            m2 = (s * z2 / (s + t) ** 2).sum()
            res = (z2 / (1 + s / t) ** 2).sum() + outside
            alpha, beta = gamma / m2, (n - gamma) / res
            if abs(alpha / beta - t) / t < tolerance:
                break
        found.append(log_evidence(n, d, s, alpha, beta, res, m2))
    return float(np.mean(found))


def log_evidence(n, d, s, alpha, beta, res, m2):
    """The published expression, per object."""
    ev = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - np.log(alpha + beta * s).sum() / 2
    ev -= (d - len(s)) / 2 * np.log(alpha) + beta / 2 * res + alpha / 2 * m2 + n / 2 * np.log(2 * np.pi)
    return ev / n


def evidence_at(x, y, ratios, known=None):
    """(G,) published evidence of y (N,) at fixed ratios alpha / beta, beta the best for each: N / (residual + ratio |m|^2).

    known: `eigen(x)` where it is at hand.
    """
    s, u = known or eigen(x)
    n, d = x.shape
    z2 = (u.T @ y) ** 2
    outside = 0.0 if len(s) == n else max((y**2).sum() - z2.sum(), 0.0)
    out = []
    for ratio in ratios:
        res = (z2 * (ratio / (ratio + s)) ** 2).sum() + outside
        m2 = (s * z2 / (s + ratio) ** 2).sum()
        beta = n / (res + ratio * m2)
        out.append(log_evidence(n, d, s, ratio * beta, beta, res, m2))
    return np.array(out)


def best_ratio(x, y):
    """The ratio of the highest evidence: a fine scan of all that double precision tells apart, then a bounded search."""
    from scipy.optimize import minimize_scalar

    known = eigen(x)
    s, _ = known
    logs = np.linspace(np.log(s.max() * 1e-12), np.log(s.max() * 1e9), 400)
    best = int(np.argmax(evidence_at(x, y, np.exp(logs), known)))
    bounds = logs[max(best - 1, 0)], logs[min(best + 1, 399)]
    found = minimize_scalar(
        lambda t: -evidence_at(x, y, [np.exp(t)], known)[0],
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(np.exp(found.x))


def logme(x, columns):
    """Mean over the columns of `columns` (N, K) of the evidence at its maximum."""
    columns = columns.T.astype(np.float64)
    return float(np.mean([evidence_at(x, y, [best_ratio(x, y)])[0] for y in columns]))


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


def unified(y, b):
    out = []
    for c in np.unique(y):
        for j in range(4):
            out.append(np.where(y == c, b[:, j], 0.0))
    return np.array(out).T


def posterior_boxes(x, b):
    """Predicted boxes of the LogME regression: the ridge solution at the best regulariser."""
    out = np.zeros(b.shape)
    for j in range(4):
        out[:, j] = x @ np.linalg.solve(x.T @ x + best_ratio(x, b[:, j]) * np.eye(x.shape[1]), x.T @ b[:, j])
    return out


def iou(a, b):
    out = []
    for p, q in zip(a, b, strict=True):
        w = min(p[2], q[2]) - max(p[0], q[0])
        h = min(p[3], q[3]) - max(p[1], q[1])
        inside = max(w, 0) * max(h, 0)
        area = max(p[2] - p[0], 0) * max(p[3] - p[1], 0)
        out.append(inside / (area + (q[2] - q[0]) * (q[3] - q[1]) - inside))
    return np.array(out)


def principal(x, k):
    """Scores of the first k components by SVD, the largest loading of each positive; and the variances."""
    z = x - x.mean(axis=0)
    u, s, vh = np.linalg.svd(z, full_matrices=False)
    k = min(k, (s > s[0] * 1e-7).sum())
    signs = np.array([np.sign(row[np.abs(row).argmax()]) for row in vh[:k]])
    return u[:, :k] * s[:k] * signs, s[:k] ** 2 / (len(x) - 1)


def softmax(a):
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sfda(x, y):
    from scipy.linalg import eigh

    classes, y = np.unique(y, return_inverse=True)
    prior = np.bincount(y) / len(y)

    def fit(x, shrinkage):
        means = np.array([x[y == c].mean(axis=0) for c in range(len(classes))])
        sw = sum(p * np.cov(x[y == c].T, bias=True) for c, p in enumerate(prior))
        if shrinkage is None:
            a = sw.sum(axis=1)
            for _ in range(3):
                b = sw @ a / np.linalg.norm(sw @ a)
                a = sw @ b / np.linalg.norm(sw @ b)
            shrinkage = max(np.exp(-5 * (a @ sw @ b)), 1e-10)
        eye = np.eye(x.shape[1])
        inner = (1 - shrinkage) * sw + shrinkage * np.trace(sw) / x.shape[1] * eye
        total = np.cov(x.T, bias=True)
        total = (1 - shrinkage) * total + shrinkage * np.trace(total) / x.shape[1] * eye
        _, w = eigh(total - inner, inner)
        coefficients = means @ w @ w.T
        p = softmax(x @ coefficients.T - 0.5 * np.diag(means @ coefficients.T) + np.log(prior))
        return p, means, shrinkage

    p, means, shrinkage = fit(x, None)
    p = softmax(p)
    mixed = np.array(
        [p[i, c] * x[i] + (1 - p[i, c]) * np.delete(means, c, axis=0).mean(axis=0) for i, c in enumerate(y)]
    )
    p, _, _ = fit(mixed, shrinkage)
    return float(p[np.arange(len(y)), y].mean())


def gbc(x, y):
    """The authors' way, with the components in the unit in which their least variance of 1e-4 is meant."""
    z, _ = principal(x, 64)
    z = z / np.sqrt(z.var(axis=0).mean())
    total = 0.0
    for i in np.unique(y):
        for j in np.unique(y):
            if i != j:
                a, b = (np.diag(np.maximum(z[y == k].var(axis=0), 1e-4)) for k in (i, j))
                s = (a + b) / 2
                d = z[y == i].mean(axis=0) - z[y == j].mean(axis=0)
                logs = [np.linalg.slogdet(m)[1] for m in (s, a, b)]
                total -= np.exp(-d @ np.linalg.inv(s) @ d / 8 - (logs[0] - (logs[1] + logs[2]) / 2) / 2)
    return float(total)


def parc(x, y):
    from scipy.stats import spearmanr

    z, _ = principal(x, 32)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    upper = np.triu_indices(len(y), 1)
    return 100 * float(spearmanr((1 - np.corrcoef(z))[upper], (y[:, None] != y[None, :])[upper])[0])


def ncti_terms(x, y):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    z, variance = principal(x, 64)
    shrinkage = max(np.exp(-variance[:32].sum()), 1e-10)
    if shrinkage == 1e-10:
        model = LinearDiscriminantAnalysis(solver="svd")
    else:
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=float(shrinkage))
    f = model.fit_transform(z, y)
    p = model.predict_proba(z)
    classes, position = np.unique(y, return_inverse=True)
    nuclear = [np.linalg.svd(p[position == c], compute_uv=False).sum() for c in range(len(classes))]
    return (
        float(np.linalg.svd(f - f.mean(axis=0), compute_uv=False).sum()),
        float(p[np.arange(len(y)), position].mean()),
        float(np.log(sum(nuclear))),
    )


def etran_energy(x):
    energy = np.sort(np.log(np.exp(x).sum(axis=1)))
    return float(energy[: 5 * len(x) // 1000].mean())


def etran_classification(x, y):
    classes, position, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.array([x[y == c].mean(axis=0) for c in classes])
    p = softmax(x @ means.T - 0.5 * (means**2).sum(axis=1) + np.log(counts / len(y)))
    return float(p[np.arange(len(y)), position].mean())


def etran_regression(x, b):
    return -float(np.mean((b - x @ np.linalg.lstsq(x, b)[0]) ** 2))


def deltas_of(regions):
    """The deltas of the jittered regions, told by their not being NaN."""
    return regions.deltas[~np.isnan(regions.deltas[:, 0])]


def h_score_continuous(x, t):
    """The regularised H-score with E[X|y] replaced by the projection of X on the targets: the N x N hat matrix."""
    x, t = x.astype(np.float64), t.astype(np.float64)
    cov, weight = ledoit_wolf(x)
    z, y = x - x.mean(axis=0), t - t.mean(axis=0)
    predicted = y @ np.linalg.pinv(y, rcond=1e-9) @ z
    return float(np.trace(np.linalg.pinv(cov) @ ((1 - weight) * np.cov(predicted, rowvar=False))))


def draw_regions(r, d, c, seed=0, offset=0.5, signal=1.0, per_object=4):
    """Objects and regions: half jittered, `per_object` of each object, and half background; features that know all."""
    rng = np.random.default_rng(seed)
    jittered = np.arange(r) % (2 * per_object) < per_object
    owner = np.arange(r) // (2 * per_object)
    objects = int(owner.max()) + 1
    classes = np.concatenate([np.arange(c), rng.integers(0, c, objects)])[:objects]
    labels = np.where(jittered, classes[owner], c)
    deltas = np.where(jittered[:, None], rng.normal(0, 0.2, (r, 4)), np.nan)
    ious = np.where(jittered, rng.uniform(0.5, 1, r), rng.uniform(0, 0.3, r))
    centres, readout = signal * rng.standard_normal((c + 1, d)), 4 * signal * rng.standard_normal((4, d))
    spectrum = 1.0 / np.sqrt(1 + np.arange(d))
    known = centres[labels] + np.nan_to_num(deltas) @ readout + signal * ious[:, None]
    x = (rng.standard_normal((r, d)) + known) * spectrum + offset
    regions = RegionSet(x, labels, deltas, ious, owner // 2, owner)
    own = rng.standard_normal((objects, d)) + centres[classes]
    boxes = np.hstack([np.full((objects, 2), 0.1), rng.uniform(0.3, 0.9, (objects, 2))])
    return FeatureSet(own, classes, boxes, None, np.arange(objects) // 2, regions)
