"""One candidate's features, with every step that metrics share done once and only when first needed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from worker.metrics import scan
from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import Undefined
from worker.metrics.coding_rate import CodingRateOptions, coding_rate
from worker.metrics.columns import beside, no_columns
from worker.metrics.engine import Engine, Scatter
from worker.metrics.options import Options
from worker.metrics.scan import Table
from worker.metrics.spectrum import Spectrum, dual_spectrum, primal_spectrum
from worker.metrics.targets import Kind, Targets
from worker.metrics.whitening import Whitening

# of all that are looked at together: 32 MB
NUMBERS = 1 << 22


@dataclass(frozen=True, eq=False)
class Columns:
    """Target columns (K of them) seen by a Spectrum.

    raw (size, K), centred (size or N-1, K): projections. squares (K,): y'y of each column.
    """

    raw: Floats
    centred: Floats
    squares: Floats


class Prepared:
    """Features (N, D) and what metrics share of them. Nothing kept here depends on the targets, so the same
    object serves every permutation of them. `first` are the targets whose class sums and box products, and
    with `rates` whose coding rates, the pass over the features yields at the same time. `engine` does the work
    that grows with N: the module `scan`, or another with its functions. `row` says what a row is, in messages.

    Every property raises Undefined where the features cannot support it.
    """

    def __init__(
        self,
        features: Table,
        options: Options,
        first: Targets | None = None,
        *,
        rates: bool = False,
        engine: Engine = scan,
        row: str = "object",
    ) -> None:
        self.engine = engine
        self.row = row
        self.features = features
        self.options = options
        self.objects, self.dim = features.shape
        self.dual = self.objects <= self.dim
        self._first = first
        self._rates_of = first if rates else None
        self._cross: dict[tuple[Targets, Kind], Floats] = {}
        self._memo: dict[Hashable, Any] = {}
        self._kept: dict[Targets, dict[Hashable, Any]] = {}
        self._asked_together: dict[Targets, list[Asked]] = {}

    @cached_property
    def fault(self) -> str | None:
        """What makes the features unusable, in words."""
        x = self.features
        if x.shape[1] == 0:
            return "the features have no columns"
        if x.shape[0] < 2:
            return f"{x.shape[0]} {self.row}(s): at least 2 are needed"
        if x.dtype.itemsize <= 4 and np.isfinite(self._column_means).all():
            return None  # what fits four bytes can neither overflow a sum nor be too large
        bad, largest = self.engine.extremes(x, self.options.block_rows)
        return feature_fault(x.shape[0], bad, largest, self.row)

    def check(self) -> None:
        """Raise Undefined where the features are unusable."""
        if self.fault:
            raise Undefined(self.fault)

    def require_rows(self) -> None:
        """Raise Undefined where the features are unusable or not at hand."""
        self.check()

    def at_hand(self) -> Table:
        """(N, D) the caller's features as they are; raises Undefined where there are too few or not even they."""
        if self.dim == 0 or self.objects < 2:
            self.check()
        return self.features

    @property
    def x(self) -> Table:
        """(N, D) the caller's features, checked; not to be written to."""
        self.require_rows()
        return self.features

    @cached_property
    def _column_means(self) -> Floats:
        with np.errstate(all="ignore"):  # NaN and infinity are looked for afterwards
            return self.engine.column_means(self.features, self.options.block_rows)

    @cached_property
    def mean(self) -> Floats:
        """(D,) mean of the features."""
        self.require_rows()
        return self._column_means

    @cached_property
    def centred(self) -> Floats:
        """(N, D) float64 features minus their mean. Only where N <= D, or where a metric must hold it all."""
        return self._pair[0] if self.dual else self.engine.centred(self.x, self.mean)

    @cached_property
    def kernel(self) -> Floats:
        """(N, N) centred Gram matrix of the objects, lower triangle."""
        return self._pair[1]

    @cached_property
    def _pair(self) -> tuple[Floats, Floats]:
        return self.engine.centred_with_kernel(self.x, self.mean)

    @cached_property
    def _scatter(self) -> Scatter:
        columns = self._first.main_columns if self._first else no_columns(self.objects)
        if self._rates_of is None:
            return self.engine.scatter(self.x, self.mean, columns, self.options)
        result, rates = self.engine.scatter_with_rates(
            self.x, self.mean, columns, self._rates_of, self.options
        )
        self.kept(self._rates_of, "rates of the pass", lambda: rates)
        return result

    def adopt(self, found: Scatter) -> None:
        """Take the result of the pass over the features from elsewhere; `mean` must be set too."""
        self._scatter = found

    def totals(self, targets: Targets) -> Scatter:
        """The result of the pass, with the products of these targets' main columns."""
        if targets is self._first:
            return self._scatter
        kinds: list[Kind] = ["classes", "boxes"] if targets.has_boxes else ["classes"]
        return self._scatter._replace(cross=np.vstack([self.cross(targets, kind) for kind in kinds]))

    def sum_of_centred(self, rows: Ints) -> Floats:
        """(D,) sum of the centred features of some objects."""
        return self.engine.row_sum(self.x, rows) - len(rows) * self.mean

    @property
    def scatter(self) -> Floats:
        """(D, D) centred scatter, lower triangle."""
        return self._scatter.matrix

    @cached_property
    def quartic(self) -> float:
        """Sum over objects of |x - mean|^4."""
        if self.dual:
            return float(np.square(self.kernel.diagonal()).sum())
        return self._scatter.quartic

    @cached_property
    def spectrum(self) -> Spectrum:
        if self.dual:
            return dual_spectrum(self.kernel, self.centred @ self.mean, self.mean, self.dim)
        return primal_spectrum(self.scatter, self.mean, self.objects)

    @cached_property
    def whitening(self) -> Whitening:
        """Inverse square root of the scatter; only for N > D."""
        return Whitening.of(self.scatter, self.mean, self.objects, self.options.rank_tolerance)

    @cached_property
    def variance(self) -> float:
        """Trace of the scatter."""
        self.check()
        return float((self.kernel if self.dual else self.scatter).trace())

    def require_variance(self) -> None:
        """Raise Undefined where all objects have the same features."""
        scale = self.objects * float(self.mean @ self.mean)
        if self.variance <= scale * (self.objects + self.dim) * np.finfo(np.float64).eps ** 2:
            raise Undefined(f"all {self.row}s have the same features: they carry no information")

    def require_signal(self) -> None:
        """Raise Undefined where every feature is zero."""
        if self.variance == 0.0 and not self.mean.any():
            raise Undefined("all features are zero: they carry no information")

    def principal(self, count: int) -> tuple[Floats, Floats]:
        """The `count` largest principal components: eigenvalues of the scatter (k,), descending, and the
        objects' scores (N, k). The largest loading of each component is positive. k <= count.
        """
        t = self.spectrum.centred
        k = min(count, len(t.diagonal))
        found: tuple[Floats, Floats] = self.memo(("principal", k), lambda: self._principal(k))
        return found

    def _principal(self, k: int) -> tuple[Floats, Floats]:
        t = self.spectrum.centred
        size = len(t.diagonal)
        values, vectors = eigh_tridiagonal(t.diagonal, t.off, select="i", select_range=(size - k, size - 1))
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        lifted = self.spectrum.lift(vectors)
        loadings = self.centred.T @ lifted if self.dual else lifted
        signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(k)])
        signs[signs == 0] = 1.0
        if self.dual:
            return values, lifted * (signs * np.sqrt(values))
        return values, self.map_rows(lambda block: block @ (lifted * signs))

    def map_rows(self, function: Callable[[Floats], Floats]) -> Floats:
        """Rows of `function` applied to the centred float64 features, block by block."""
        return self.engine.map_rows(self.x, self.mean, function, self.options.block_rows)

    def memo(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """A result that depends on the features alone, computed once."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def preload(self, targets: Sequence[Targets], kinds: Sequence[Kind]) -> None:
        """Form the cross-products of several targets in one pass over the features (primal only)."""
        wanted = [(t, kind) for t in targets for kind in kinds]
        if self.dual or not wanted:
            return
        columns = [t.columns(kind) for t, kind in wanted]
        products = self.engine.cross_products(self.x, self.mean, beside(columns), self.options.block_rows)
        parts = np.split(products, np.cumsum([c.count for c in columns])[:-1])
        self._cross.update(zip(wanted, parts, strict=True))

    def kept(self, targets: Targets, key: Hashable, compute: Callable[[], Any]) -> Any:
        """A result that depends on these targets too, computed once until they are forgotten."""
        own = self._kept.setdefault(targets, {})
        if key not in own:
            own[key] = compute()
        return own[key]

    def kept_together(
        self, targets: Targets, key: Hashable, compute: Callable[[Sequence[Asked]], Sequence[Any]]
    ) -> Any:
        """`kept`, computed at once for everybody who was named with these targets in `ask_together`."""
        if key not in self._kept.get(targets, {}):
            alone: list[Asked] = [(self, targets)]
            together = self._asked_together.get(targets, alone)
            wanted = [(each, its) for each, its in together if key not in each._kept.get(its, {})]
            try:
                found = compute(wanted)
            except (Undefined, ArithmeticError, np.linalg.LinAlgError):
                wanted, found = alone, compute(alone)
            for (each, its), result in zip(wanted, found, strict=True):
                each._kept.setdefault(its, {})[key] = result
        return self._kept[targets][key]

    def forget(self, targets: Targets) -> None:
        """Drop what was kept for these targets."""
        self._kept.pop(targets, None)
        if together := self._asked_together.pop(targets, None):
            together[:] = [(each, its) for each, its in together if its is not targets]
        for key in [key for key in self._cross if key[0] is targets]:
            del self._cross[key]

    def cross(self, targets: Targets, kind: Kind) -> Floats:
        """(K, D) products of the target columns with the centred features."""
        if not self.dual and targets is self._first and kind != "unified":
            split = len(targets.counts)
            return self._scatter.cross[:split] if kind == "classes" else self._scatter.cross[split:]
        if self.dual:
            return targets.columns(kind).products(self.centred)
        if (targets, kind) not in self._cross:
            self.preload([targets], [kind])
        return self._cross[targets, kind]

    def project(self, targets: Targets, kind: Kind) -> Columns:
        """Target columns in the basis of the spectrum. Boxes must have been checked."""
        columns = targets.columns(kind)
        if self.dual:
            raw, centred = self.spectrum.project(columns.dense(), columns.sums)
        else:
            raw, centred = self.spectrum.project(self.cross(targets, kind).T, columns.sums)
        return Columns(raw, centred, columns.squares)

    def class_rates(self, targets: Targets) -> Floats:
        """(C,) coding rate of each class around the common mean."""
        epsilon = self.options.of(CodingRateOptions).epsilon
        if self.dual:
            groups = [np.sort(targets.rows_of(c)) for c in range(len(targets.counts))]
            return np.array([coding_rate(self._subkernel(rows), len(rows), epsilon) for rows in groups])
        if targets is self._rates_of:
            self._scatter  # noqa: B018  the pass that finds them too
        if "rates of the pass" in self._kept.get(targets, {}):
            return np.asarray(self._kept[targets]["rates of the pass"])
        return self.engine.class_rates(self.x, self.mean, targets, self.options)

    def _subkernel(self, rows: Ints) -> Floats:
        """Lower triangle of the kernel of some objects; `rows` ascending keeps it lower."""
        return np.asfortranarray(self.kernel[np.ix_(rows, rows)])


Asked = tuple[Prepared, Targets]


def ask_together(asked: Sequence[Asked]) -> None:
    """What is kept of one of these targets with its features is computed for all of them, where that is cheaper at once."""
    together = list(asked)
    for prepared, targets in asked:
        prepared._asked_together[targets] = together


def together_of(numbers: int) -> int:
    """How many are worth looking at together, each of which holds so many numbers."""
    return max(1, NUMBERS // max(numbers, 1))


def feature_fault(objects: int, bad: int, largest: float, row: str) -> str | None:
    """What is wrong with features of which `bad` rows are not finite, the others at most `largest`."""
    if bad:
        return f"the features of {bad} of {objects} {row}s hold NaN or infinity: the extraction went wrong"
    if largest and not 1e-70 < largest < 1e70:
        return f"the largest feature is {largest:.0e}: its powers are out of the range of double precision"
    return None
