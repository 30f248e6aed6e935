"""The log evidence of a Bayesian linear model at its maximum over both precisions.

y = X w + e with w ~ N(0, I / alpha) and e ~ N(0, I / beta). For a given ratio r = alpha / beta the best beta is known in
closed form, N / Q(r) with Q = |y - X m|^2 + r |m|^2 and m = (X'X + r I)^-1 X'y, so the evidence is a function of r alone:

    2 N L(r) = - logdet(I + X'X / r) + N log(N / Q(r)) - N - N log(2 pi)
    its slope in log r = used - held, used = tr X'X (X'X + r I)^-1, held = N r |m|^2 / Q(r)

All terms are made of logistic curves in log r, so that nothing hides within a decade. L is looked at once a decade, from
where it can only fall for every larger r to where it can only rise from every smaller one, for all columns at once; the
slope's root is then found by interpolation wherever it changes its sign to falling. The limit for r -> infinity, where all weights are zero, is
known too. The columns may be of several features of one size, as those without one group of images each: what a step costs
hardly depends on how many columns it is done for. Every bound is relative to the features' own eigenvalues, so their scale does not matter. Ratios that the rounding
of X'X reaches are not told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from worker.metrics.arrays import Floats, Ints
from worker.metrics.spectrum import Spectrum, Tridiagonal, Tridiagonals

EPS = float(np.finfo(np.float64).eps)
DECADE = float(np.log(10.0))
LOG_TAU = float(np.log(2.0 * np.pi))
ABOVE = 8  # decades above the largest eigenvalue: the evidence is then its limit to rounding
RISING = float(
    np.log(4.0)
)  # tilt that keeps its sign for all smaller ratios, once no eigenvalue lies among them
GAIN = 1e-13  # nats per object that another step would add: none is made
NARROW = 1e-9  # width in log r of a bracket that is a point
STEEP = 1e3  # largest tilt that is told apart
SINGULAR = 1e-10  # least ratio, as a share of the features' variance, where X'X has directions that hold rounding alone
LIMITLESS = -0.5  # slope at the least ratio: minus a rank where the evidence has no upper limit, else near 0


@dataclass(frozen=True)
class Evidence:
    """Maximised log evidence per object of one target column, and the ratio alpha/beta that gives it.

    ratio: the regulariser of the posterior mean (X'X + ratio)^-1 X'y; infinity where the best weights are zero.
    capped: the features fit the target exactly, so that the evidence rises until rounding ends it.
    """

    value: float
    ratio: float
    capped: bool


class Base(NamedTuple):
    """Of K columns at the least ratio r0: Q (K,), and (X'X + r0)^-1 X'y as rows (K, size); what Q is counted from."""

    misfit: Floats
    x: Floats

    def of(self, columns: Ints) -> Base:
        """Of some of the columns."""
        return Base(self.misfit[columns], self.x[columns])


class Slope(NamedTuple):
    """Of K columns: Q, the slope used - held, and the tilt log(used / held), which is nearly straight in log r."""

    misfit: Floats
    slope: Floats
    tilt: Floats


@dataclass(frozen=True, eq=False)
class Rung:
    """What all columns of a spectrum share at one decade, for m spectra.

    ratios (m,). factor: of the matrix + ratio, as `dpttrf` gives it; None where rounding made it indefinite, or for several
    spectra. used (m,): see above. spread (m,): logdet(I + X'X / r).
    """

    ratios: Floats
    factor: tuple[Floats, Floats] | None
    used: Floats
    spread: Floats


@dataclass(frozen=True, eq=False)
class EvidenceSearch:
    """The evidences of target columns on reductions of features; what does not depend on targets is kept.

    spectra: of one size and kind, whose least ratios lie in one decade (`lowest_decade`). In the methods `of` (K,) tells which of
    them each column belongs to; None: the only one.
    """

    spectra: Sequence[Spectrum]
    _rungs: dict[int, Rung] = field(default_factory=dict)

    def maximised(self, b: Floats, squares: Floats, of: Ints | None = None) -> list[Evidence]:
        """Evidence of every column, given as rows b (K, size) of projections and their y'y (K,) > 0.

        Raises ArithmeticError where the numbers leave double precision.
        """
        of = None if len(self.spectra) == 1 else of
        base = self._base(b, squares, of)
        grid, seen = self._look(b, squares, base, of)
        value = 0.5 * (np.log(self._objects(of) / squares) - 1.0 - LOG_TAU)  # no weights
        ratio, capped = np.full(len(b), np.inf), np.zeros(len(b), dtype=bool)
        lowest = self._rung(self._lowest)
        falling = self._value(_of(lowest.spread, of), base.misfit, of)
        least = (seen.tilt[0] <= 0.0) & (falling > value)
        value[least], ratio[least] = falling[least], np.broadcast_to(_of(lowest.ratios, of), len(b))[least]
        capped[least] = seen.slope[0, least] < LIMITLESS
        below, column = np.nonzero((seen.tilt[:-1] > 0.0) & (seen.tilt[1:] <= 0.0))
        if len(column):
            place, height = self._climb(
                b[column],
                base.of(column),
                _brackets(grid, seen.tilt, below, column),
                None if of is None else of[column],
            )
            for k, at, top in zip(column.tolist(), place.tolist(), height.tolist(), strict=True):
                if top > value[k]:
                    value[k], ratio[k], capped[k] = top, np.exp(at), False
        return [Evidence(*e) for e in zip(value.tolist(), ratio.tolist(), capped.tolist(), strict=True)]

    def _base(self, b: Floats, squares: Floats, of: Ints | None) -> Base:
        """Where the columns stand at the least ratio; a residual that is rounding is none."""
        rung = self._rung(self._lowest)
        x, ratios = self._solved(rung, b, of), _of(rung.ratios, of)
        if self._dual:
            return Base(ratios * np.einsum("ij,ij->i", b, x), x)
        held = ratios * np.einsum("ij,ij->i", x, x)
        residual = squares - np.einsum("ij,ij->i", b, x) - held
        rounding = squares * self._objects(of) * 8.0 * EPS
        return Base(held + np.where(residual > rounding, residual, 0.0), x)

    def _look(self, b: Floats, squares: Floats, base: Base, of: Ints | None) -> tuple[Floats, Slope]:
        """Log ratios (G, K or 1) ascending, a decade apart, and (G, K) what all columns are there."""
        t, n = self._matrices, self._objects(of)
        sums = np.einsum("ij,ij->i", b, t.times(b, of) if self._dual else b)
        with np.errstate(divide="ignore"):
            # its limit for r -> infinity
            tilt = np.abs(np.log(_of(t.traces_of_all, of) / n) - np.log(sums / squares)).min()
            if np.isnan(tilt):
                raise ArithmeticError("the products of features and targets are not finite")
            # above this many decades the tilt differs from its limit by less than the limit itself
            top = int(np.clip(np.ceil(np.log10(8.0 / tilt)), 1, ABOVE))
        rank = self._rung(self._lowest).used
        decades, found = [], []
        for decade in range(top, self._lowest - 1, -1):
            rung = self._rung(decade)
            decades.append(decade)
            x = self._solved(rung, b, of)
            found.append(self._slope(_of(rung.used, of), _of(rung.ratios, of), x, b, base, of))
            if (rung.used >= rank - 0.5).all() and (found[-1].tilt >= RISING).all():
                break
        grid = np.log(_of(self._largest, of)) + DECADE * np.array(decades[::-1])[:, None]
        return grid, Slope(*(np.array(p[::-1]) for p in zip(*found, strict=True)))

    def _climb(self, b: Floats, base: Base, bracket: Floats, of: Ints | None) -> tuple[Floats, Floats]:
        """Log ratios of the maxima of columns, each in its `bracket` (6, K), and the values there.

        The tilt is brought to zero by inverse quadratic interpolation where that is safe, else by bisection
        (Chandrupatla, Advances in Engineering Software 28, 1997).
        """
        t, n = self._matrices, np.broadcast_to(self._objects(of), len(b))
        place, step, misfit = np.empty((3, len(b)))
        going = np.arange(len(b))
        while len(going):
            x1, f1, x2, f2, _, _ = bracket
            x = x1 + _share(bracket) * (x2 - x1)
            ratios, own, low = np.exp(x), b[going], base.of(going)
            whose = None if of is None else of[going]
            used, _ = t.traces(ratios, whose)
            misfit[going], slope, f = self._slope(used, ratios, t.solve(ratios, own, whose), own, low, whose)
            same = np.sign(f) == np.sign(f1)
            near, far = np.where(same, [x2, f2], [x1, f1]), np.where(same, [x1, f1], [x2, f2])
            bracket = np.array([x, f, *near, *far])
            place[going], step[going] = x, np.where(f == 0.0, 0.0, f * (near[0] - x) / (f - near[1]))
            on = (np.abs(slope * step[going]) > 4.0 * n[going] * GAIN) & (np.abs(x - near[0]) > NARROW)
            going, bracket = going[on], bracket[:, on]
        spread = t.logdets(np.exp(place), of) - t.size * place
        return place + step, self._value(spread, misfit, of)

    def _slope(
        self, used: Floats, ratios: Floats, x: Floats, b: Floats, base: Base, of: Ints | None
    ) -> Slope:
        """x: (X'X + r)^-1 X'y, or in the dual (XX' + r)^-1 y, of the columns b.

        In the dual Q = r b'x; else Q(r) = Q(r0) + (r - r0) x(r)'x(r0), where nothing large is subtracted.
        """
        if self._dual:
            norm = np.einsum("ij,ij->i", x, self._matrices.times(x, of))
            misfit = ratios * np.einsum("ij,ij->i", b, x)
        else:
            norm = np.einsum("ij,ij->i", x, x)
            above = np.maximum(ratios - _of(self._rung(self._lowest).ratios, of), 0.0)
            misfit = base.misfit + above * np.einsum("ij,ij->i", x, base.x)
        held = self._objects(of) * ratios * norm / misfit
        with np.errstate(all="ignore"):
            tilt = np.clip(np.log(np.maximum(used, 0.0)) - np.log(held), -STEEP, STEEP)
        return Slope(misfit, used - held, tilt)

    def _value(self, spread: Floats, misfit: Floats, of: Ints | None) -> Floats:
        n = self._objects(of)
        return np.asarray(0.5 * (np.log(n / misfit) - 1.0 - LOG_TAU - spread / n))

    def _rung(self, decade: int) -> Rung:
        if decade not in self._rungs:
            t, ratios = self._matrices, self._largest * 10.0**decade
            own = np.arange(len(self.spectra))
            used, _ = t.traces(ratios, own)
            spread = t.logdets(ratios, own) - t.size * np.log(ratios)
            factor = _factored(t.each[0], ratios[0]) if len(own) == 1 else None
            self._rungs[decade] = Rung(ratios, factor, used, spread)
        return self._rungs[decade]

    def _solved(self, rung: Rung, b: Floats, of: Ints | None) -> Floats:
        """(K, size): (matrix + ratio)^-1 of every column."""
        if of is not None:
            return self._matrices.solve(rung.ratios[of], b, of)
        columns = np.asfortranarray(b.T)
        if rung.factor is None:
            return self.spectra[0].raw.solve(float(rung.ratios[0]), columns).T
        x: Floats
        x, _ = lapack.dpttrs(*rung.factor, columns)
        return x.T

    def _objects(self, of: Ints | None) -> Floats:
        """N of the spectrum of every column, as one number for all where there is one."""
        return _of(np.array([s.objects for s in self.spectra], dtype=np.float64), of)

    @property
    def _dual(self) -> bool:
        return self.spectra[0].dual

    @cached_property
    def _matrices(self) -> Tridiagonals:
        return Tridiagonals.of([s.raw for s in self.spectra])

    @cached_property
    def _largest(self) -> Floats:
        return np.array([_bound(s.raw) for s in self.spectra])

    @cached_property
    def _lowest(self) -> int:
        return lowest_decade(self.spectra[0])


def lowest_decade(spectrum: Spectrum) -> int:
    """The decade of the least ratio, counted from a bound of the largest eigenvalue."""
    t = spectrum.raw
    largest = _bound(t)
    # the first row holds the mean, which may be far larger than what varies around it
    varying = _bound(Tridiagonal(t.diagonal[1:], t.off[1:])) if len(t.diagonal) > 1 else largest
    n, d = spectrum.objects, spectrum.dim
    least = SINGULAR if n <= d and not spectrum.dual else 4.0 * max(n, d) * EPS
    return int(np.floor(np.log10(least * max(varying / largest, EPS))))


def _of(values: Floats, of: Ints | None) -> Floats:
    """(K,) the value of every column's spectrum; (1,) where there is one spectrum."""
    return values if of is None else values[of]


def _factored(t: Tridiagonal, ratio: float) -> tuple[Floats, Floats] | None:
    if len(t.diagonal) < 2:
        return None
    pivots, below, info = lapack.dpttrf(t.diagonal + ratio, t.off)
    return None if info else (pivots, below)


def _bound(t: Tridiagonal) -> float:
    """At least the largest eigenvalue, at most three times it (Gershgorin)."""
    rows = np.abs(t.diagonal)
    rows[:-1] += np.abs(t.off)
    rows[1:] += np.abs(t.off)
    return float(rows.max())


def _brackets(grid: Floats, tilts: Floats, below: Ints, column: Ints) -> Floats:
    """(6, P): place and tilt of the grid's points at both ends of every peak, and of the next one above or below."""
    tilt, above = tilts[below, column], below + 1
    third = np.where(above + 1 < len(grid), above + 1, np.maximum(below - 1, 0))
    at = column if grid.shape[1] > 1 else np.zeros_like(column)
    return np.array(
        [grid[below, at], tilt, grid[above, at], tilts[above, column], grid[third, at], tilts[third, column]]
    )


def _share(bracket: Floats) -> Floats:
    """(K,) how far from its first to its second place each next one lies, in (0, 1)."""
    x1, f1, x2, f2, x3, f3 = bracket
    with np.errstate(all="ignore"):
        xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        smooth = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        curved = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    least = 0.5 * NARROW / np.abs(x2 - x1)
    return np.clip(np.where(smooth & np.isfinite(curved), curved, 0.5), least, 1.0 - least)
