"""One candidate's features, with every step that metrics share done once and only when first needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import blas

from worker.metrics import scan
from worker.metrics.base import Undefined
from worker.metrics.coding_rate import coding_rate
from worker.metrics.options import Options
from worker.metrics.spectrum import Spectrum, dual_spectrum, primal_spectrum
from worker.metrics.targets import Targets
from worker.metrics.whitening import Whitening


@dataclass(frozen=True, eq=False)
class Columns:
    """Target columns (K of them) seen by a Spectrum.

    raw (size, K), centred (size or N-1, K): projections. squares (K,): y'y of each column.
    """

    raw: np.ndarray
    centred: np.ndarray
    squares: np.ndarray


class Prepared:
    """Features (N, D) and what metrics share of them. Nothing here depends on the targets, so the same
    object serves every permutation of them. `first` are the targets whose class sums and box products, and
    with `rates` whose coding rates, the pass over the features yields at the same time.

    Every property raises Undefined where the features cannot support it.
    """

    def __init__(
        self, features: np.ndarray, options: Options, first: Targets | None = None, *, rates: bool = False
    ) -> None:
        self._features = features
        self.options = options
        self._first = first
        self._rates = rates and first is not None
        self._first_rates: np.ndarray | None = None
        self._projected: dict[Targets, Columns] = {}

    @property
    def objects(self) -> int:
        return self._features.shape[0]

    @property
    def dim(self) -> int:
        return self._features.shape[1]

    @property
    def dual(self) -> bool:
        return self.objects <= self.dim

    @cached_property
    def _fault(self) -> str | None:
        x = self._features
        if x.shape[1] == 0:
            return "the features have no columns"
        if x.shape[0] < 2:
            return f"{x.shape[0]} object(s): at least 2 are needed"
        block = self.options.block_rows
        bad = sum(int((~np.isfinite(x[i : i + block])).any(axis=1).sum()) for i in range(0, len(x), block))
        if bad:
            return (
                f"the features of {bad} of {len(x)} objects hold NaN or infinity: the extraction went wrong"
            )
        largest = max(float(np.abs(x[i : i + block]).max()) for i in range(0, len(x), block))
        if largest and not 1e-70 < largest < 1e70:
            return (
                f"the largest feature is {largest:.0e}: its powers are out of the range of double precision"
            )
        return None

    @property
    def x(self) -> np.ndarray:
        """(N, D) the caller's features, checked; not to be written to."""
        if self._fault:
            raise Undefined(self._fault)
        return self._features

    @cached_property
    def mean(self) -> np.ndarray:
        return scan.column_means(self.x, self.options.block_rows)

    @cached_property
    def centred(self) -> np.ndarray:
        """(N, D) float64 features minus their mean. Only where N <= D, or where a metric must hold it all."""
        out = np.subtract(self.x, self.mean, dtype=np.float64)
        out.setflags(write=False)
        return out

    @cached_property
    def kernel(self) -> np.ndarray:
        """(N, N) centred Gram matrix of the objects, lower triangle."""
        return blas.dsyrk(1.0, self.centred.T, trans=1, lower=1)

    @cached_property
    def _scatter(self) -> scan.Scatter:
        columns = self._first.columns if self._first else np.empty((self.objects, 0))
        if not self._rates:
            return scan.scatter(self.x, self.mean, columns, self.options)
        result, self._first_rates = scan.scatter_with_rates(
            self.x, self.mean, columns, self._first, self.options
        )
        return result

    @property
    def scatter(self) -> np.ndarray:
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

    def require_variance(self) -> None:
        """Raise Undefined where all objects have the same features."""
        trace = self.kernel.trace() if self.dual else self.scatter.trace()
        scale = self.objects * float(self.mean @ self.mean)
        if trace <= scale * (self.objects + self.dim) * np.finfo(np.float64).eps ** 2:
            raise Undefined("all objects have the same features: they carry no information")

    def class_cross(self, targets: Targets) -> np.ndarray:
        """(C, D) sums of the centred features of each class."""
        if not self.dual and targets is self._first:
            return self._scatter.cross[: len(targets.counts)]
        if self.dual:
            return targets.indicators().T @ self.centred
        return scan.cross_products(self.x, self.mean, targets.indicators(), self.options.block_rows)

    def project_classes(self, targets: Targets) -> Columns:
        """The C one-hot label columns in the basis of the spectrum."""
        return self._project(targets, slice(0, len(targets.counts)))

    def project_boxes(self, targets: Targets) -> Columns:
        """The four box columns in the basis of the spectrum."""
        targets.require_boxes()
        return self._project(targets, slice(len(targets.counts), None))

    def _project(self, targets: Targets, which: slice) -> Columns:
        if targets not in self._projected:
            if len(self._projected) > 1:  # keep the first targets; a permutation is used once
                self._projected.popitem()
            self._projected[targets] = self.project(
                targets.columns, self._scatter.cross if not self.dual and targets is self._first else None
            )
        columns = self._projected[targets]
        return Columns(columns.raw[:, which], columns.centred[:, which], columns.squares[which])

    def project(self, values: np.ndarray, cross: np.ndarray | None = None) -> Columns:
        """Target columns (N, K) in the basis of the spectrum; cross (K, D) = values'(X - mean) if known."""
        squares = np.einsum("ij,ij->j", values, values)
        if self.dual:
            raw, centred = self.spectrum.project(values)
        else:
            if cross is None:
                cross = scan.cross_products(self.x, self.mean, values, self.options.block_rows)
            raw, centred = self.spectrum.project(cross.T, values.sum(axis=0))
        return Columns(raw, centred, squares)

    def class_rates(self, targets: Targets) -> np.ndarray:
        """(C,) coding rate of each class around the common mean."""
        if self.dual:
            return np.array(
                [
                    coding_rate(
                        np.asfortranarray(self.kernel[np.ix_(rows, rows)]),
                        len(rows),
                        self.options.transrate_epsilon,
                    )
                    for rows in (np.sort(targets.rows_of(c)) for c in range(len(targets.counts)))
                ]
            )
        if targets is self._first and self._rates:
            self._scatter  # noqa: B018  the pass that fills _first_rates
            return self._first_rates
        return scan.class_rates(self.x, self.mean, targets, self.options)
