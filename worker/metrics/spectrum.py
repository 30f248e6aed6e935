"""One tridiagonal reduction that serves the centred and the uncentred second moments at once.

With m the mean row, S = (X-m)'(X-m) the scatter and G = X'X = S + N m m' the Gram matrix. A Householder
reflection P with P m = ±|m| e1 turns the difference into one entry, and LAPACK's reduction of the lower
triangle, Q' (P S P) Q = T, leaves e1 alone. So Q'P G P Q = T + N |m|^2 e1 e1': both are tridiagonal.
In the dual (N <= D) the reflection is H with H 1 = sqrt(N) e1: then H X X' H holds the uncentred matrix and
its trailing (N-1) block is the centred one, again for every step of the reduction.
Whatever a metric needs of (G + lam)^-1 or (S + lam)^-1 is then O(size) for each right-hand side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import blas, lapack

from worker.metrics.arrays import Floats, Ints

FEW = 16  # below this share of k, shifts are handled one by one; above, the eigenvalues pay
SWEEP = 64  # LAPACK's workspace per column of a blocked reflection


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """Symmetric positive semidefinite tridiagonal matrix: diagonal (k,), off (k-1,)."""

    diagonal: Floats
    off: Floats

    @cached_property
    def eigenvalues(self) -> Floats:
        """(k,) ascending, clipped at 0 (rounding may leave some slightly negative)."""
        if len(self.diagonal) < 2:
            return np.maximum(self.diagonal, 0.0)
        values, info = lapack.dsterf(self.diagonal, self.off)
        if info:
            raise ArithmeticError(f"dsterf did not converge ({info})")
        return np.asarray(np.maximum(values, 0.0))

    @property
    def trace(self) -> float:
        return float(self.diagonal.sum())

    @property
    def squared_norm(self) -> float:
        """Squared Frobenius norm."""
        return float(self.diagonal @ self.diagonal + 2.0 * (self.off @ self.off))

    def times(self, x: Floats) -> Floats:
        """T x[i] for every row of x (n, k)."""
        out = x * self.diagonal
        out[:, :-1] += self.off * x[:, 1:]
        out[:, 1:] += self.off * x[:, :-1]
        return out

    def logdet(self, shift: float) -> float:
        """log det(I + T / shift) for shift > 0."""
        if len(self.diagonal) < 2:
            return float(np.log1p(self.diagonal / shift).sum())
        pivots, _, info = lapack.dpttrf(self.diagonal + shift, self.off)
        if info:
            raise ArithmeticError(f"the shift {shift} is below the rounding of the matrix")
        return float(np.log(pivots / shift).sum())

    def solve(self, shift: float, b: Floats) -> Floats:
        """(T + shift I)^-1 b for shift > 0 and b (k, n)."""
        return _solve(self.diagonal + shift, self.off, b)

    def solve_each(self, shifts: Floats, b: Floats) -> Floats:
        """(T + shifts[j] I)^-1 b[j] for every row of b (n, k)."""
        return self._alone.solve(shifts, b)

    def traces(self, shifts: Floats) -> tuple[Floats, Floats]:
        """tr T (T + s)^-1 and tr (T + s)^-1 for every shift s (n,) > 0."""
        return self._alone.traces(shifts)

    def logdets(self, shifts: Floats) -> Floats:
        """log det(T + s) for every shift s (n,) > 0."""
        return self._alone.logdets(shifts)

    @property
    def _alone(self) -> Tridiagonals:
        return Tridiagonals.of([self])


@dataclass(frozen=True, eq=False)
class Tridiagonals:
    """Matrices of one size k: diagonal (m, k), off (m, k - 1), what is asked of all of them at once as one system of blocks.

    `of` (n,) in the methods: which of the matrices each of n shifts or rows belongs to; None: the only one.
    """

    diagonal: Floats
    off: Floats
    each: Sequence[Tridiagonal]

    @classmethod
    def of(cls, each: Sequence[Tridiagonal]) -> Tridiagonals:
        """Of matrices of one size, at least one."""
        return cls(np.array([t.diagonal for t in each]), np.array([t.off for t in each]), tuple(each))

    @property
    def size(self) -> int:
        return int(self.diagonal.shape[1])

    @property
    def traces_of_all(self) -> Floats:
        """(m,) traces."""
        return np.asarray(self.diagonal.sum(axis=1))

    @cached_property
    def _eigenvalues(self) -> Floats:
        return np.array([t.eigenvalues for t in self.each])

    def times(self, x: Floats, of: Ints | None = None) -> Floats:
        """T x[i] for every row of x (n, k)."""
        if of is None:
            return self.each[0].times(x)
        out, off = x * self.diagonal[of], self.off[of]
        out[:, :-1] += off * x[:, 1:]
        out[:, 1:] += off * x[:, :-1]
        return out

    def solve(self, shifts: Floats, b: Floats, of: Ints | None = None) -> Floats:
        """(T + shifts[j])^-1 b[j] for every row of b (n, k)."""
        diagonals, offs = self._blocks(shifts, of)
        return _solve(diagonals.ravel(), offs, b.ravel()).reshape(b.shape)

    def traces(self, shifts: Floats, of: Ints | None = None) -> tuple[Floats, Floats]:
        """tr T (T + s)^-1 and tr (T + s)^-1 for every shift s (n,) > 0.

        For few shifts from the pivots of the factorisations from both ends, which meet in every diagonal
        entry of the inverse: linear in k, while all eigenvalues cost k^2.
        """
        if self._are_few(shifts):
            found = self._traces_from_pivots(shifts, of)
            if found is not None:
                return found
        values = self._eigenvalues[np.zeros(1, dtype=np.int64) if of is None else of]
        inverse = 1.0 / (values + shifts[:, None])
        return (inverse * values).sum(axis=1), inverse.sum(axis=1)

    def _traces_from_pivots(self, shifts: Floats, of: Ints | None) -> tuple[Floats, Floats] | None:
        diagonals, offs = self._blocks(shifts, of)
        down, _, failed = lapack.dpttrf(diagonals.ravel(), offs)
        up, _, failed_too = lapack.dpttrf(diagonals.ravel()[::-1], offs[::-1])
        if failed or failed_too:
            return None
        down = down.reshape(diagonals.shape)
        inverse = 1.0 / (down + up[::-1].reshape(diagonals.shape) - diagonals)
        # Two forms of the same number: one loses digits where the shift is large, the other where it is small.
        trace = inverse.sum(axis=1)
        small = self.size - shifts * trace
        own = slice(None) if of is None else of
        below = np.square(self.off[own]) / down[:, :-1] * inverse[:, 1:]
        large = (inverse * self.diagonal[own]).sum(axis=1) - 2.0 * below.sum(axis=1)
        return np.where(small > 0.5 * self.size, small, large), trace

    def logdets(self, shifts: Floats, of: Ints | None = None) -> Floats:
        """log det(T + s) for every shift s (n,) > 0."""
        if self._are_few(shifts):
            diagonals, offs = self._blocks(shifts, of)
            pivots, _, failed = lapack.dpttrf(diagonals.ravel(), offs)
            if not failed:
                return np.asarray(np.log(pivots).reshape(diagonals.shape).sum(axis=1))
        values = self._eigenvalues[np.zeros(1, dtype=np.int64) if of is None else of]
        return np.asarray(np.log(values + shifts[:, None]).sum(axis=1))

    def _are_few(self, shifts: Floats) -> bool:
        return len(shifts) <= len(self.each) * (self.size // FEW)

    def _blocks(self, shifts: Floats, of: Ints | None) -> tuple[Floats, Floats]:
        """Diagonals (n, k) and the off-diagonal of all blocks in a row."""
        offs = np.zeros((len(shifts), self.size))
        offs[:, :-1] = self.off[slice(None) if of is None else of]
        return self.diagonal[slice(None) if of is None else of] + shifts[:, None], offs.ravel()[:-1]


def _solve(diagonal: Floats, off: Floats, b: Floats) -> Floats:
    if len(diagonal) < 2:
        return b / diagonal if len(diagonal) else b.copy()
    x: Floats
    _, _, x, info = lapack.dptsv(diagonal, off, b)
    if info:  # rounding made it indefinite: a shift is below the noise of the matrix
        _, _, _, x, info = lapack.dgtsv(off, diagonal, off, b)
        if info:
            raise ArithmeticError("singular tridiagonal matrix")
    return x


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The reduction of one set of features, ready for any number of target columns.

    objects N, dim D. dual: size is N and target columns are projected themselves; else size is D and the
    cross-products X'y are. raw: of X'X (or XX'). centred: of the scatter (or of the centred XX', N-1).
    """

    objects: int
    dim: int
    dual: bool
    raw: Tridiagonal
    centred: Tridiagonal
    along: float
    reflector: Floats
    factors: Floats
    scales: Floats

    def project(self, columns: Floats, sums: Floats) -> tuple[Floats, Floats]:
        """Columns in the basis of `raw` and of `centred`, as two arrays with K columns each.

        Primal: columns (D, K) = (X-m)'y and sums (K,) = 1'y. Dual: columns (N, K) = y, sums unused.
        """
        out = self._turn(self._reflect(np.array(columns, dtype=np.float64, order="F")), "T")
        if self.dual:
            return out, out[1:]
        raw = out.copy(order="F")
        raw[0] += self.along * sums
        return raw, out

    def lift(self, centred: Floats) -> Floats:
        """Vectors (k, K) in the basis of `centred` back to (D, K) columns (primal) or (N, K) (dual)."""
        if self.dual:
            centred = np.vstack([np.zeros((1, centred.shape[1])), centred])
        return self._reflect(self._turn(np.array(centred, order="F"), "N"))

    def lift_raw(self, raw: Floats) -> Floats:
        """Vectors (size, K) in the basis of `raw` back to (D, K) columns (primal) or (N, K) (dual)."""
        return self._reflect(self._turn(np.array(raw, order="F"), "N"))

    def _reflect(self, out: Floats) -> Floats:
        if self.reflector.any():
            out -= 2.0 * np.outer(self.reflector, self.reflector @ out)
        return out

    def _turn(self, out: Floats, trans: str) -> Floats:
        if len(out) > 1 and out.shape[1]:
            tail, _, info = lapack.dormqr(
                "L", trans, self.factors, self.scales, out[1:], lwork=out.shape[1] * SWEEP
            )
            if info:
                raise ArithmeticError(f"dormqr refused argument {-info}")
            out[1:] = tail
        return out


def primal_spectrum(scatter: Floats, mean: Floats, objects: int) -> Spectrum:
    """Reduce the scatter (D, D) (lower triangle is read) of `objects` rows with mean (D,)."""
    v, along = _reflector(mean)
    a = np.array(scatter, dtype=np.float64, order="F")
    if v.any():
        p = blas.dsymv(1.0, a, v, lower=1)
        a = blas.dsyr2(-2.0, v, p - (v @ p) * v, a=a, lower=1, overwrite_a=1)
    diagonal, off, factors, scales = _reduce(a)
    raw = diagonal.copy()
    raw[0] += objects * along**2
    return Spectrum(
        objects=objects,
        dim=len(mean),
        dual=False,
        raw=Tridiagonal(raw, off),
        centred=Tridiagonal(diagonal, off),
        along=along,
        reflector=v,
        factors=factors,
        scales=scales,
    )


def dual_spectrum(kernel: Floats, cross: Floats, mean: Floats, dim: int) -> Spectrum:
    """Reduce XX' given with the rows relative to any origin `mean` (D,).

    kernel (N, N) = (X-mean)(X-mean)' (lower triangle is read), cross (N,) = (X-mean) mean.
    The origin need not be the mean of these rows, so that a subset of the rows can use a slice.
    """
    n = len(kernel)
    v, along = _reflector(np.ones(n))
    a = np.array(kernel, dtype=np.float64, order="F")
    if v.any():
        p = blas.dsymv(1.0, a, v, lower=1)
        a = blas.dsyr2(-2.0, v, p - (v @ p) * v, a=a, lower=1, overwrite_a=1)
    h = cross - 2.0 * v * (v @ cross)
    a[:, 0] += along * h
    a[0, 0] += along * h[0] + along**2 * float(mean @ mean)
    diagonal, off, factors, scales = _reduce(a)
    return Spectrum(
        objects=n,
        dim=dim,
        dual=True,
        raw=Tridiagonal(diagonal, off),
        centred=Tridiagonal(diagonal[1:], off[1:]),
        along=along,
        reflector=v,
        factors=factors,
        scales=scales,
    )


def _reflector(x: Floats) -> tuple[Floats, float]:
    """Unit v and r with (I - 2 v v') x = r e1; v is zero where nothing needs turning."""
    norm = float(np.linalg.norm(x))
    if norm == 0.0 or len(x) < 2:
        return np.zeros(len(x)), float(x[0]) if len(x) else 0.0
    r = -norm if x[0] > 0 else norm
    v = np.array(x, dtype=np.float64)
    v[0] -= r
    return v / np.linalg.norm(v), r


def _reduce(a: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Tridiagonal form of the lower triangle of `a` (overwritten): diagonal, off, reflectors, scales."""
    n = len(a)
    if n < 2:
        return a.diagonal().copy(), np.empty(0), np.empty((0, 0)), np.empty(0)
    lwork, _ = lapack.dsytrd_lwork(n, lower=1)
    a, diagonal, off, scales, info = lapack.dsytrd(a, lower=1, lwork=int(lwork), overwrite_a=1)
    if info:
        raise ArithmeticError(f"dsytrd refused argument {-info}")
    # The reflectors lie below the diagonal. Seen from the second entry on, the same memory holds them without a
    # copy; the last row of that view belongs to the next column and is never read.
    factors = a.ravel(order="K")[1 : 1 + n * (n - 1)].reshape((n, n - 1), order="F")
    return diagonal, off, factors, scales
