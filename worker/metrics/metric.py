"""What a metric is: its computation, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from worker.metrics.arrays import Floats
from worker.metrics.base import Rows, Value
from worker.metrics.changes import CHANGES, Change
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets

Reading = Literal["coding_rates", "unified"]


@dataclass(frozen=True)
class Sum:
    """A sum of metrics of one candidate, of whatever rows.

    terms: each with its own rows. weights: one for each term, found in the targets of each kind of rows.
    """

    terms: tuple[Metric, ...]
    weights: Callable[[Mapping[Rows, Targets]], tuple[float, ...]]


@dataclass(frozen=True)
class Pooled:
    """A value that changes when a candidate joins the pool.

    terms: names of the metrics it combines. combine: {term: (candidates,)} to (candidates,).
    """

    terms: tuple[str, ...]
    combine: Callable[[Mapping[str, Floats]], Floats]


@dataclass(frozen=True)
class Metric:
    """A transferability metric and what a reader must know of it.

    needs: of "features", "labels", "boxes", "source_probabilities", "regions". null: what features without
    information reach. unchanged: by what the value is not; law: what else is known of that, in words. rederived: the formula follows a description, not the
    authors' code. higher_is_better: always so here; kept because readers ask. statistics: whether gathered statistics
    give it.
    compute: (Prepared, Targets) -> Value, or raises Undefined. None where `sum_of` or `pooled` says what it is made of.
    reads: what the pass over the features yields for it besides the class sums and box products that `needs` asks for:
    "coding_rates" of classes, "unified" columns (one for each class and coordinate).
    rows: what the rows of its features are; "regions" where it is a sum. options: the class of its own settings.
    """

    name: str
    title: str
    needs: frozenset[str]
    summary: str
    formula: str
    paper: str
    null: str
    unchanged: frozenset[Change]
    compute: Callable[[Prepared, Targets], Value] | None = None
    higher_is_better: bool = True
    rederived: bool = False
    statistics: bool = False
    reads: frozenset[Reading] = frozenset()
    rows: Rows = "objects"
    sum_of: Sum | None = None
    pooled: Pooled | None = None
    options: type[Any] | None = None
    law: str = ""

    @property
    def invariant(self) -> str:
        """What leaves the value as it is, in words."""
        words = "; ".join(text for change, text in CHANGES.items() if change in self.unchanged)
        return f"{words}. {self.law[:1].upper()}{self.law[1:]}" if self.law else words

    @property
    def pool_relative(self) -> bool:
        """Whether the value changes when a candidate joins the pool."""
        return self.pooled is not None

    @property
    def terms(self) -> tuple[str, ...]:
        """The metrics that one relative to the pool combines; none for any other."""
        return self.pooled.terms if self.pooled else ()
