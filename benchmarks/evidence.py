"""The evidence of LogME at its maximum against the published fixed point: seconds and values, in one run.

    python benchmarks/evidence.py              every shape
    python benchmarks/evidence.py --quick      the small ones

The fixed point (You et al. 2021: alpha = beta = 1, 11 steps, 1 %) is the way of `worker.metrics` before the maximum, on
the same reduction of the features, so that only the search differs. Seconds are CPU seconds of one BLAS thread: of
the search alone, and of a whole score with its null of 20 permutations and its interval of 20 groups. `diff` is the
largest difference of the two values over logme, logme_boxes and u_logme, and over the nulls' means: noise is where the
fixed point does not arrive.
"""

import argparse
import os
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy loads
sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
# ruff: noqa: E402

import numpy as np
from metrics import features

from worker.metrics import FeatureSet, logme, score
from worker.metrics.evidence import Evidence, EvidenceSearch
from worker.metrics.options import DEFAULTS
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

NAMES = ["logme", "logme_boxes", "u_logme"]
SHAPES = [
    (1000, 256, 10),
    (1000, 256, 80),
    (5000, 256, 10),
    (5000, 256, 80),
    (1000, 1024, 10),
    (5000, 1024, 10),
    (5000, 1024, 80),
    (1000, 2048, 10),
    (5000, 2048, 80),
]


class FixedPoint(EvidenceSearch):
    def maximised(self, b, squares, of=None):
        found = [None] * len(b)
        for index, spectrum in enumerate(self.spectra):
            own = np.flatnonzero((0 if of is None else of) == np.full(len(b), index))
            for k, each in zip(own, fixed_point(spectrum, b[own], squares[own]), strict=True):
                found[k] = each
        return found


def fixed_point(spectrum, b, squares):
    """The published iteration; the residual and the norm belong to the last ratio, alpha and beta to the one after it."""
    t, n, d = spectrum.raw, spectrum.objects, len(spectrum.raw.diagonal)
    ratios, capped = np.ones(len(b)), np.zeros(len(b), dtype=bool)
    alphas, betas, norms, residuals = np.empty((4, len(b)))
    going = np.arange(len(b))
    for step in range(11):
        if step:
            ratios[going] = alphas[going] / betas[going]
        ratio, column, square = ratios[going], b[going], squares[going]
        x = t.solve_each(ratio, column)
        xx = np.einsum("ij,ij->i", x, x)
        if spectrum.dual:
            norm, residual = np.einsum("ij,ij->i", x, t.times(x)), ratio**2 * xx
        else:
            norm, residual = xx, square - np.einsum("ij,ij->i", column, x) - ratio * xx
        floor = square * n * np.finfo(np.float64).eps
        capped[going] = residual <= floor
        residual = np.maximum(residual, floor)
        used, inverse = t.traces(ratio)
        alpha, beta = used / norm, (ratio * inverse + (n - d)) / residual
        alphas[going], betas[going], norms[going], residuals[going] = alpha, beta, norm, residual
        going = going[np.abs(alpha / beta - ratio) >= 0.01 * ratio]
        if not len(going):
            break
    spread = d * np.log(alphas / betas) - t.logdets(alphas / betas)
    values = (spread + n * np.log(betas / (2.0 * np.pi)) - betas * residuals - alphas * norms) / (2.0 * n)
    return [Evidence(*e) for e in zip(values.tolist(), ratios.tolist(), capped.tolist(), strict=True)]


def seconds(call, repeats):
    """The least CPU seconds of some calls, and the last result."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def search(shape, ways):
    """CPU seconds of the search alone for every way: class, box and unified columns of one candidate."""
    x, y, boxes = features(*shape)
    prepared, targets = Prepared(x, DEFAULTS), Targets.of(FeatureSet(x, y, boxes))
    columns = [prepared.project(targets, kind) for kind in ("classes", "boxes", "unified")]
    spectrum = prepared.spectrum
    spectrum.raw.eigenvalues  # noqa: B018  kept by both
    return [
        seconds(
            lambda way=way: [
                search.maximised(c.raw.T, c.squares) for search in [way([spectrum])] for c in columns
            ],
            5,
        )[0]
        for way in ways
    ]


def whole(shape, ways, **calibration):
    """CPU seconds and scores for every way."""
    x, y, boxes = features(*shape)
    f = FeatureSet(x, y, boxes, image_ids=np.arange(len(y)) // 5)
    out = []
    for way in ways:
        logme.EvidenceSearch = way
        out.append(seconds(lambda: score(f, NAMES, **calibration), 3 if not calibration else 1))
    logme.EvidenceSearch = EvidenceSearch
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    chosen = [s for s in SHAPES if s[1] < 1024] if parser.parse_args().quick else SHAPES
    ways = (FixedPoint, EvidenceSearch)
    print(
        f"{'N':>6} {'D':>5} {'C':>3} | {'search':>15} {'ratio':>6} | {'score':>15} {'ratio':>6} {'diff':>8} |"
        f" {'with null, interval':>19} {'ratio':>6} {'of nulls':>8}"
    )
    for shape in chosen:
        old, new = search(shape, ways)
        (first, a), (second, b) = whole(shape, ways)
        (calibrated, c), (recalibrated, d) = whole(shape, ways, permutations=20, groups=20)
        difference = max(abs(a[n].value - b[n].value) for n in NAMES)
        of_nulls = max(abs(c[n].null.mean - d[n].null.mean) for n in NAMES)
        print(
            f"{shape[0]:>6} {shape[1]:>5} {shape[2]:>3} | {old:>7.4f} {new:>7.4f} {new / old:>6.2f} |"
            f" {first:>7.3f} {second:>7.3f} {second / first:>6.2f} {difference:>8.0e} |"
            f" {calibrated:>9.2f} {recalibrated:>9.2f} {recalibrated / calibrated:>6.2f} {of_nulls:>8.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
