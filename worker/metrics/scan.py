"""The passes over the features: means, scatter, cross-products, and the class blocks of the coding rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas

from worker.metrics.coding_rate import coding_rate
from worker.metrics.columns import TargetColumns, no_columns
from worker.metrics.options import Options
from worker.metrics.targets import Targets

# The block costs only its factorisation, D^3 / 3, since its products are needed anyway; the kernel costs
# n^2 D + n^3 / 3 on top. They meet at this n / D.
BLOCK_PAYS = 0.53


class Scatter(NamedTuple):
    """matrix (D, D): (X-m)'(X-m), lower triangle. cubic (D,): sum over rows of |x - m|^2 (x - m).

    quartic: sum over rows of |x - m|^4. cross (K, D): columns'(X-m).
    """

    matrix: np.ndarray
    cubic: np.ndarray
    quartic: float
    cross: np.ndarray


def extremes(x: np.ndarray, block: int) -> tuple[int, float]:
    """How many rows hold NaN or infinity, and the largest absolute value in the others."""
    bad, largest = 0, 0.0
    for start in range(0, len(x), block):
        rows = np.abs(x[start : start + block]).max(axis=1)
        good = np.isfinite(rows)
        bad += int((~good).sum())
        largest = max(largest, float(rows[good].max(initial=0)))
    return bad, largest


def column_means(x: np.ndarray, block: int) -> np.ndarray:
    """(D,) float64 means of the columns of x (N, D)."""
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), block):
        total += x[start : start + block].sum(axis=0, dtype=np.float64)
    return total / len(x)


def scatter(x: np.ndarray, mean: np.ndarray, columns: TargetColumns, options: Options) -> Scatter:
    """Scatter of x (N, D) around mean (D,), and its products with target columns."""
    matrix, cubic, quartic = _square(x.shape[1]), np.zeros(x.shape[1]), 0.0
    cross = np.zeros((columns.count, x.shape[1]))
    for start in range(0, len(x), options.block_rows):
        part = slice(start, start + options.block_rows)
        block = centred(x[part], mean)
        lengths = _lengths(block)
        cubic += lengths @ block
        quartic += float(lengths @ lengths)
        cross += columns.rows(part).products(block)
        matrix = _add_gram(matrix, block, options)
    return Scatter(matrix, cubic, quartic, cross)


def scatter_with_rates(
    x: np.ndarray, mean: np.ndarray, columns: TargetColumns, targets: Targets, options: Options
) -> tuple[Scatter, np.ndarray]:
    """The scatter and the coding rate (C,) of every class, from the same products where a class is large.

    A large class gives a D x D block that is also its share of the scatter; a small one its n_c x n_c kernel.
    """
    d = x.shape[1]
    large = int(np.ceil(BLOCK_PAYS * d))
    matrix, cubic, quartic = _square(d), np.zeros(d), 0.0
    cross = np.zeros((columns.count, d))
    rates = np.zeros(len(targets.counts))
    for first, last in _groups(targets.counts, large=large, block=options.block_rows):
        rows = targets.by_class[targets.offsets[first] : targets.offsets[last]]
        if targets.counts[first] >= large:
            own = scatter(Rows(x, rows), mean, columns.rows(rows), options)
            matrix += own.matrix
            cubic += own.cubic
            quartic += own.quartic
            cross += own.cross
            rates[first] = coding_rate(own.matrix, len(rows), options.transrate_epsilon)
            continue
        block = centred(x[rows], mean)
        lengths = _lengths(block)
        cubic += lengths @ block
        quartic += float(lengths @ lengths)
        cross += columns.rows(rows).products(block)
        matrix = _add_gram(matrix, block, options)
        for c in range(first, last):
            begin, end = targets.offsets[c : c + 2] - targets.offsets[first]
            rates[c] = coding_rate(_kernel(block[begin:end]), int(end - begin), options.transrate_epsilon)
    return Scatter(matrix, cubic, quartic, cross), rates


def class_rates(x: np.ndarray, mean: np.ndarray, targets: Targets, options: Options) -> np.ndarray:
    """(C,) coding rates of the classes, without the scatter."""
    rates = np.zeros(len(targets.counts))
    for c, count in enumerate(targets.counts):
        rows = targets.rows_of(c)
        if count >= x.shape[1]:
            gram = scatter(Rows(x, rows), mean, no_columns(len(rows)), options).matrix
        else:
            gram = _kernel(centred(x[rows], mean))
        rates[c] = coding_rate(gram, int(count), options.transrate_epsilon)
    return rates


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(N, D) float64 rows minus mean."""
    return np.subtract(x, mean, dtype=np.float64)


def centred_with_kernel(x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centred rows (N, D) and their products (N, N), lower triangle."""
    rows = centred(x, mean)
    return rows, _kernel(rows)


def row_sum(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(D,) float64 sum of some rows."""
    return x[rows].sum(axis=0, dtype=np.float64)


def cross_products(x: np.ndarray, mean: np.ndarray, columns: TargetColumns, block: int) -> np.ndarray:
    """(K, D) = columns'(x - mean)."""
    out = np.zeros((columns.count, x.shape[1]))
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        out += columns.rows(part).products(centred(x[part], mean))
    return out


def map_rows(
    x: np.ndarray, mean: np.ndarray, function: Callable[[np.ndarray], np.ndarray], block: int
) -> np.ndarray:
    """`function` of the centred rows, block by block, its results stacked."""
    parts = [function(centred(x[start : start + block], mean)) for start in range(0, len(x), block)]
    return np.concatenate(parts)


class Rows:
    """A selection of rows that is gathered block by block, never as a whole."""

    def __init__(self, x: np.ndarray, rows: np.ndarray) -> None:
        self.x, self.rows = x, rows
        self.shape = (len(rows), x.shape[1])
        self.dtype = x.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.x[self.rows], dtype=dtype)

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        return self.x[self.rows[part]]


def _groups(counts: np.ndarray, *, large: int, block: int) -> Iterator[tuple[int, int]]:
    """Ranges of classes to read together: each class of `large` or more objects alone, others in blocks."""
    first, size = 0, 0
    for c, count in enumerate(counts):
        if size and (count >= large or size + count > max(block, large)):
            yield first, c
            first, size = c, 0
        size += int(count)
        if count >= large:
            yield first, c + 1
            first, size = c + 1, 0
    if size:
        yield first, len(counts)


def _square(d: int) -> np.ndarray:
    return np.zeros((d, d), order="F")


def _lengths(block: np.ndarray) -> np.ndarray:
    """(N,) squared lengths of the rows."""
    return np.einsum("ij,ij->i", block, block)


def _kernel(block: np.ndarray) -> np.ndarray:
    return blas.dsyrk(1.0, block.T, trans=1, lower=1)


def _add_gram(total: np.ndarray, block: np.ndarray, options: Options) -> np.ndarray:
    """total + block'block in the lower triangle; `total` (Fortran order) is overwritten."""
    if options.gram_precision == "float32":
        small = block.astype(np.float32)
        total += blas.ssyrk(1.0, small.T, lower=1)
        return total
    return blas.dsyrk(1.0, block.T, beta=1.0, c=total, lower=1, overwrite_c=1)
