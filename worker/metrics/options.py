"""What all metrics share of settings, and the one way to the settings of a single method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Options:
    """How the metrics compute, and where a method departs from its published settings.

    gram_precision: float64, or float32 products summed in float64 (faster; the error is in docs/metrics.md).
    block_rows: rows converted to float64 at a time; bounds the working memory.
    rank_tolerance: eigenvalues below this share of the largest count as zero; None: max(N, D) * 2.2e-16.
    methods: settings of single methods, at most one of each class, such as `ParcOptions(objects=500)`. The class stands
        beside its method and has the published values as defaults. Raises ValueError for two of one class.
    """

    gram_precision: Literal["float64", "float32"] = "float64"
    block_rows: int = 1024
    rank_tolerance: float | None = None
    methods: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        kinds = [type(own).__name__ for own in self.methods]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"two settings of one method: {', '.join(twice)}; pass one")

    def of(self, kind: type[Kind]) -> Kind:
        """The settings of one method: those passed, or the published ones."""
        return next((own for own in self.methods if isinstance(own, kind)), kind())


DEFAULTS = Options()
