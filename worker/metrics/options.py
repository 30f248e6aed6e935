"""Every knob of the metrics, in one place. The defaults are the published values where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """Parameters of the metrics.

    logme_iterations, logme_tolerance: the fixed point of LogME (You et al. 2021) stops after this many
        steps, or when alpha/beta moves by less than this share.
    transrate_epsilon: the squared distortion of the coding rate (Huang et al. 2022).
    gram_precision: float64, or float32 products summed in float64 (faster; the error is in docs/metrics.md).
    block_rows: rows converted to float64 at a time; bounds the working memory.
    rank_tolerance: eigenvalues below this share of the largest count as zero; None: max(N, D) * 2.2e-16.
    """

    logme_iterations: int = 11
    logme_tolerance: float = 0.01
    transrate_epsilon: float = 1e-4
    gram_precision: Literal["float64", "float32"] = "float64"
    block_rows: int = 2048
    rank_tolerance: float | None = None


DEFAULTS = Options()
