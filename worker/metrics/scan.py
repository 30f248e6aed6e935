"""The passes over the features: means, scatter, cross-products, and the class blocks of the coding rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas

from worker.metrics.coding_rate import coding_rate
from worker.metrics.options import Options
from worker.metrics.targets import Targets


class Scatter(NamedTuple):
    """matrix (D, D): (X-m)'(X-m), lower triangle. quartic: sum over rows of |x - m|^4.

    cross (K, D): columns'(X-m).
    """

    matrix: np.ndarray
    quartic: float
    cross: np.ndarray


def column_means(x: np.ndarray, block: int) -> np.ndarray:
    """(D,) float64 means of the columns of x (N, D)."""
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), block):
        total += x[start : start + block].sum(axis=0, dtype=np.float64)
    return total / len(x)


def scatter(x: np.ndarray, mean: np.ndarray, columns: np.ndarray, options: Options) -> Scatter:
    """Scatter of x (N, D) around mean (D,), and its products with columns (N, K)."""
    matrix, quartic = _square(x.shape[1]), 0.0
    cross = np.zeros((columns.shape[1], x.shape[1]))
    for start in range(0, len(x), options.block_rows):
        part = slice(start, start + options.block_rows)
        block = _centred(x[part], mean)
        quartic += _quartic(block)
        cross += columns[part].T @ block
        matrix = _add_gram(matrix, block, options)
    return Scatter(matrix, quartic, cross)


def scatter_with_rates(
    x: np.ndarray, mean: np.ndarray, columns: np.ndarray, targets: Targets, options: Options
) -> tuple[Scatter, np.ndarray]:
    """The scatter and the coding rate (C,) of every class, from the same products where a class is large.

    A class of at least D objects gives a D x D block that is also its share of the scatter; a smaller one
    gives its n_c x n_c kernel.
    """
    d = x.shape[1]
    matrix, quartic = _square(d), 0.0
    cross = np.zeros((columns.shape[1], d))
    rates = np.zeros(len(targets.counts))
    for first, last in _groups(targets.counts, large=d, block=options.block_rows):
        rows = targets.by_class[targets.offsets[first] : targets.offsets[last]]
        if targets.counts[first] >= d:
            own = scatter(_Rows(x, rows), mean, columns[rows], options)
            matrix += own.matrix
            quartic += own.quartic
            cross += own.cross
            rates[first] = coding_rate(own.matrix, len(rows), options.transrate_epsilon)
            continue
        block = _centred(x[rows], mean)
        quartic += _quartic(block)
        cross += columns[rows].T @ block
        matrix = _add_gram(matrix, block, options)
        for c in range(first, last):
            begin, end = targets.offsets[c : c + 2] - targets.offsets[first]
            rates[c] = coding_rate(_kernel(block[begin:end]), int(end - begin), options.transrate_epsilon)
    return Scatter(matrix, quartic, cross), rates


def class_rates(x: np.ndarray, mean: np.ndarray, targets: Targets, options: Options) -> np.ndarray:
    """(C,) coding rates of the classes, without the scatter."""
    rates = np.zeros(len(targets.counts))
    for c, count in enumerate(targets.counts):
        rows = targets.rows_of(c)
        gram = (
            scatter(_Rows(x, rows), mean, np.empty((len(rows), 0)), options).matrix
            if count >= x.shape[1]
            else _kernel(_centred(x[rows], mean))
        )
        rates[c] = coding_rate(gram, int(count), options.transrate_epsilon)
    return rates


def cross_products(x: np.ndarray, mean: np.ndarray, columns: np.ndarray, block: int) -> np.ndarray:
    """(K, D) = columns'(x - mean), for columns (N, K)."""
    out = np.zeros((columns.shape[1], x.shape[1]))
    for start in range(0, len(x), block):
        out += columns[start : start + block].T @ _centred(x[start : start + block], mean)
    return out


class _Rows:
    """A selection of rows that is gathered block by block, never as a whole."""

    def __init__(self, x: np.ndarray, rows: np.ndarray) -> None:
        self.x, self.rows = x, rows
        self.shape = (len(rows), x.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
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


def _centred(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.subtract(rows, mean, dtype=np.float64)


def _quartic(block: np.ndarray) -> float:
    return float(np.square(np.einsum("ij,ij->i", block, block)).sum())


def _kernel(block: np.ndarray) -> np.ndarray:
    return blas.dsyrk(1.0, block.T, trans=1, lower=1)


def _add_gram(total: np.ndarray, block: np.ndarray, options: Options) -> np.ndarray:
    """total + block'block in the lower triangle; `total` (Fortran order) is overwritten."""
    if options.gram_precision == "float32":
        small = block.astype(np.float32)
        total += blas.ssyrk(1.0, small.T, lower=1)
        return total
    return blas.dsyrk(1.0, block.T, beta=1.0, c=total, lower=1, overwrite_c=1)
