"""Was it worth it? What fine-tuning from pretrained weights gains over fine-tuning from others, on the same subsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

COVERAGE = 0.95


@dataclass(frozen=True)
class Gain:
    """Mean of the differences, seed by seed, with its 95 % interval (Student's t over `n` paired seeds).

    `undefined`: why there is no interval, or no mean.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    undefined: str | None

    @property
    def says(self) -> str:
        """`helped`, `hurt`, or `not_shown` where the interval reaches zero or there is none."""
        if self.low is not None and self.low > 0:
            return "helped"
        if self.high is not None and self.high < 0:
            return "hurt"
        return "not_shown"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"says": self.says}


def gain_of(pretrained: Mapping[int, float], other: Mapping[int, float]) -> Gain:
    """Both by seed, where a seed decides the subset, the order and every draw of a fine-tuning; only common seeds count."""
    seeds = sorted(pretrained.keys() & other.keys())
    differences = np.array([pretrained[seed] - other[seed] for seed in seeds])
    if not len(seeds):
        return Gain(0, None, None, None, "no seed was fine-tuned from both")
    mean = float(differences.mean())
    if len(seeds) < 2:
        return Gain(1, mean, None, None, "one seed has no interval: ask for three or more")
    error = float(differences.std(ddof=1)) / np.sqrt(len(seeds))
    half = float(stats.t.ppf((1 + COVERAGE) / 2, len(seeds) - 1)) * error
    return Gain(len(seeds), mean, mean - half, mean + half, None)


def sentence(fraction: float, against: str, gain: Gain) -> str:
    """What the gain says, in words; `gain` of AP50."""
    of = f"with {fraction:.3g} of the labels" if fraction < 1 else "with all labels"
    if gain.mean is None:
        return f"{of}: not known against {against}, {gain.undefined}"
    value = f"{100 * gain.mean:+.1f} AP50 against {against}"
    if gain.low is None or gain.high is None:
        return f"{of}: {value} ({gain.undefined})"
    interval = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}, {gain.n} seeds"
    verdict = {
        "helped": "it helped",
        "hurt": "it hurt",
        "not_shown": "that it helped is not shown",
    }[gain.says]
    return f"{of}: {verdict}, {value} ({interval})"
