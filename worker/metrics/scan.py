"""The passes over the features: means, scatter, cross-products, and the class blocks of the coding rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.linalg import blas

from worker.metrics.arrays import Floats, Ints
from worker.metrics.coding_rate import CodingRateOptions, coding_rate
from worker.metrics.columns import TargetColumns, no_columns
from worker.metrics.engine import Scatter
from worker.metrics.options import Options
from worker.metrics.targets import Targets

# The block costs only its factorisation, D^3 / 3, since its products are needed anyway; the kernel costs
# n^2 D + n^3 / 3 on top. They meet at this n / D.
BLOCK_PAYS = 0.53
CACHED = 1 << 17  # numbers that stay in the processor's cache


class Selected:
    """A selection of rows that is gathered block by block, never as a whole."""

    def __init__(self, x: Any, rows: Ints) -> None:
        self.x, self.rows = x, rows
        self.shape = (len(rows), x.shape[1])
        self.dtype = x.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.x[self.rows], dtype=dtype)

    def __getitem__(self, part: slice | Ints) -> Any:
        return self.x[self.rows[part]]


Table = np.ndarray | Selected


def extremes(x: Table, block: int) -> tuple[int, float]:
    """How many rows hold NaN or infinity, and the largest absolute value in the others."""
    bad, largest = 0, 0.0
    for start in range(0, len(x), block):
        rows = np.abs(x[start : start + block]).max(axis=1)
        good = np.isfinite(rows)
        bad += int((~good).sum())
        largest = max(largest, float(rows[good].max(initial=0)))
    return bad, largest


def column_means(x: Table, block: int) -> Floats:
    """(D,) float64 means of the columns of x (N, D)."""
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), block):
        total += x[start : start + block].sum(axis=0, dtype=np.float64)
    return total / len(x)


def scatter(x: Table, mean: Floats, columns: TargetColumns, options: Options) -> Scatter:
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
    x: np.ndarray, mean: Floats, columns: TargetColumns, targets: Targets, options: Options
) -> tuple[Scatter, Floats]:
    """The scatter and the coding rate (C,) of every class, from the same products where a class is large.

    A large class gives a D x D block that is also its share of the scatter; a small one its n_c x n_c kernel.
    """
    d = x.shape[1]
    large = int(np.ceil(BLOCK_PAYS * d))
    epsilon = options.of(CodingRateOptions).epsilon
    matrix, cubic, quartic = _square(d), np.zeros(d), 0.0
    cross = np.zeros((columns.count, d))
    rates = np.zeros(len(targets.counts))
    for first, last in _groups(targets.counts, large=large, block=options.block_rows):
        rows = targets.by_class[targets.offsets[first] : targets.offsets[last]]
        if targets.counts[first] >= large:
            own = scatter(Selected(x, rows), mean, columns.rows(rows), options)
            matrix += own.matrix
            cubic += own.cubic
            quartic += own.quartic
            cross += own.cross
            rates[first] = coding_rate(own.matrix, len(rows), epsilon)
            continue
        block = centred(x[rows], mean)
        lengths = _lengths(block)
        cubic += lengths @ block
        quartic += float(lengths @ lengths)
        cross += columns.rows(rows).products(block)
        matrix = _add_gram(matrix, block, options)
        for c in range(first, last):
            begin, end = targets.offsets[c : c + 2] - targets.offsets[first]
            rates[c] = coding_rate(_kernel(block[begin:end]), int(end - begin), epsilon)
    return Scatter(matrix, cubic, quartic, cross), rates


def class_rates(x: Table, mean: Floats, targets: Targets, options: Options) -> Floats:
    """(C,) coding rates of the classes, without the scatter."""
    epsilon = options.of(CodingRateOptions).epsilon
    rates = np.zeros(len(targets.counts))
    for c, count in enumerate(targets.counts):
        rows = targets.rows_of(c)
        if count >= x.shape[1]:
            gram = scatter(Selected(x, rows), mean, no_columns(len(rows)), options).matrix
        else:
            gram = _kernel(centred(x[rows], mean))
        rates[c] = coding_rate(gram, int(count), epsilon)
    return rates


def centred(x: Table, mean: Floats) -> Floats:
    """(N, D) float64 rows minus mean."""
    return np.asarray(np.subtract(x, mean, dtype=np.float64))


def centred_with_kernel(x: Table, mean: Floats) -> tuple[Floats, Floats]:
    """The centred rows (N, D) and their products (N, N), lower triangle."""
    rows = centred(x, mean)
    return rows, _kernel(rows)


def rows(x: Table, rows: Ints) -> np.ndarray:
    """Some rows as they are."""
    return np.asarray(x[rows])


def energies(x: Table, block: int) -> Floats:
    """(N,) log sum exp of every row, in float32 where the features have no more; not finite where an entry is not."""
    n, d = x.shape
    kind: Any = np.float32 if x.dtype.itemsize <= 4 and x.dtype.kind == "f" else np.float64
    ones, out = np.ones(d, dtype=kind), np.empty(n)
    step = min(block, max(1, CACHED // d))
    for start in range(0, n, step):
        part = np.asarray(x[start : start + step], dtype=kind)
        highest = part.max(axis=1)
        with np.errstate(all="ignore"):
            lost = (part @ ones) * 0  # not a number where an entry is not finite
            part = part - highest[:, None]
            np.exp(part, out=part)
            out[start : start + step] = np.log(part @ ones) + highest + lost
    return out


def row_sum(x: Table, rows: Ints) -> Floats:
    """(D,) float64 sum of some rows."""
    return np.asarray(x[rows].sum(axis=0, dtype=np.float64))


def cross_products(x: Table, mean: Floats, columns: TargetColumns, block: int) -> Floats:
    """(K, D) = columns'(x - mean)."""
    out = np.zeros((columns.count, x.shape[1]))
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        out += columns.rows(part).products(centred(x[part], mean))
    return out


def map_rows(x: Table, mean: Floats, function: Callable[[Floats], Floats], block: int) -> Floats:
    """`function` of the centred rows, block by block, its results stacked."""
    parts = [function(centred(x[start : start + block], mean)) for start in range(0, len(x), block)]
    return np.concatenate(parts)


def _groups(counts: Ints, *, large: int, block: int) -> Iterator[tuple[int, int]]:
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


def _square(d: int) -> Floats:
    return np.zeros((d, d), order="F")


def _lengths(block: Floats) -> Floats:
    """(N,) squared lengths of the rows."""
    return np.asarray(np.einsum("ij,ij->i", block, block))


def _kernel(block: Floats) -> Floats:
    kernel: Floats = blas.dsyrk(1.0, block.T, trans=1, lower=1)
    return kernel


def _add_gram(total: Floats, block: Floats, options: Options) -> Floats:
    """total + block'block in the lower triangle; `total` (Fortran order) is overwritten."""
    if options.gram_precision == "float32":
        small = block.astype(np.float32)
        total += blas.ssyrk(1.0, small.T, lower=1)
        return total
    added: Floats = blas.dsyrk(1.0, block.T, beta=1.0, c=total, lower=1, overwrite_c=1)
    return added
