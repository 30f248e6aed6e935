"""The passes of `scan` on a torch device: an `Engine` whose x is a tensor there.

What grows with N runs on the device in float64; the reductions of the resulting D x D (or N x N) matrix stay on
the CPU, where LAPACK's are as fast up to a few thousand dimensions. Every function gives numpy arrays, as its namesake
in `scan`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from worker.metrics.arrays import Floats, Ints
from worker.metrics.coding_rate import CodingRateOptions
from worker.metrics.columns import TargetColumns, no_columns
from worker.metrics.engine import Scatter
from worker.metrics.options import Options
from worker.metrics.scan import Selected
from worker.metrics.targets import Targets

EXACT = torch.float64


def extremes(x: torch.Tensor, block: int) -> tuple[int, float]:
    bad, largest = 0, 0.0
    for start in range(0, len(x), block):
        rows = x[start : start + block].abs().amax(dim=1)
        good = torch.isfinite(rows)
        bad += int((~good).sum())
        if good.any():
            largest = max(largest, float(rows[good].max()))
    return bad, largest


def column_means(x: torch.Tensor, block: int) -> Floats:
    total = sum(x[start : start + block].sum(dim=0, dtype=EXACT) for start in range(0, len(x), block))
    return _back(total / len(x))


def centred(x: torch.Tensor, mean: Floats) -> Floats:
    return _back(_block(x, slice(None), mean))


def centred_with_kernel(x: torch.Tensor, mean: Floats) -> tuple[Floats, Floats]:
    block = _block(x, slice(None), mean)
    return _back(block), np.asfortranarray(_back(block @ block.T))


def rows(x: torch.Tensor, rows: Ints) -> np.ndarray:
    return _back(x[rows])


def energies(x: torch.Tensor, block: int) -> Floats:
    parts = []
    for start in range(0, len(x), block):
        part = x[start : start + block]
        part = part.float() if part.element_size() < 4 else part
        parts.append((torch.logsumexp(part, dim=1) + part.sum(dim=1) * 0).to(EXACT))
    return _back(torch.cat(parts))


def row_sum(x: torch.Tensor, rows: Ints) -> Floats:
    return _back(x[rows].sum(dim=0, dtype=EXACT))


def scatter(x: torch.Tensor, mean: Floats, columns: TargetColumns, options: Options) -> Scatter:
    matrix, cubic, quartic, cross = _scatter(x, mean, columns, options)
    return Scatter(np.asfortranarray(_back(matrix)), _back(cubic), quartic, _back(cross))


def scatter_with_rates(
    x: torch.Tensor, mean: Floats, columns: TargetColumns, targets: Targets, options: Options
) -> tuple[Scatter, Floats]:
    # A device has flops to spare: reading the classes once more costs less than taking the passes apart.
    return scatter(x, mean, columns, options), class_rates(x, mean, targets, options)


def class_rates(x: torch.Tensor, mean: Floats, targets: Targets, options: Options) -> Floats:
    epsilon = options.of(CodingRateOptions).epsilon
    rates = []
    for c, count in enumerate(targets.counts):
        rows = targets.rows_of(c)
        if count >= x.shape[1]:
            gram = _scatter(Selected(x, rows), mean, no_columns(len(rows)), options)[0]
        else:
            block = _block(x, rows, mean)
            gram = block @ block.T
        gram *= 1.0 / (int(count) * epsilon)
        gram.diagonal().add_(1.0)
        factor, info = torch.linalg.cholesky_ex(gram)
        if int(info):
            raise ArithmeticError(f"the coding rate's matrix is not positive definite (minor {int(info)})")
        rates.append(factor.diagonal().log().sum())
    return _back(torch.stack(rates))


def cross_products(x: torch.Tensor, mean: Floats, columns: TargetColumns, block: int) -> Floats:
    out = 0.0
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        rows = _block(x, part, mean)
        out = out + _dense(columns.rows(part), rows).T @ rows
    return _back(out)


def map_rows(x: torch.Tensor, mean: Floats, function: Callable[[Floats], Floats], block: int) -> Floats:
    parts = [function(_back(_block(x, slice(s, s + block), mean))) for s in range(0, len(x), block)]
    return np.concatenate(parts)


def _scatter(
    x: torch.Tensor, mean: Floats, columns: TargetColumns, options: Options
) -> tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]:
    matrix = cubic = cross = 0.0
    quartic = 0.0
    for start in range(0, len(x), options.block_rows):
        part = slice(start, start + options.block_rows)
        block = _block(x, part, mean)
        lengths = torch.einsum("ij,ij->i", block, block)
        cubic = cubic + lengths @ block
        quartic += float(lengths @ lengths)
        cross = cross + _dense(columns.rows(part), block).T @ block
        if options.gram_precision == "float32":
            small = block.to(torch.float32)
            matrix = matrix + (small.T @ small).to(EXACT)
        else:
            matrix = matrix + block.T @ block
    return matrix, cubic, quartic, cross


def _block(x: torch.Tensor, part: slice | Ints, mean: Floats) -> torch.Tensor:
    rows = x[part]
    return rows.to(EXACT) - torch.as_tensor(mean, dtype=EXACT, device=rows.device)


def _dense(columns: TargetColumns, like: torch.Tensor) -> torch.Tensor:
    out = torch.zeros((len(columns.index), columns.count), dtype=EXACT, device=like.device)
    index = torch.as_tensor(np.ascontiguousarray(columns.index), device=like.device)
    return out.scatter_(1, index, torch.as_tensor(columns.weight, dtype=EXACT, device=like.device))


def _back(t: torch.Tensor) -> Floats:
    return np.asarray(t.cpu().numpy())
