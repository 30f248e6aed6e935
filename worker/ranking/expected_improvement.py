"""How a budget of seconds is spent on training many candidates: where a second is expected to raise the best mAP most.

Training is frozen and thawed: each candidate stands at some iteration, and a stretch takes it to one of a few others, where
its validation mAP is looked at. All looks, and all that was known before, make one joint Gaussian belief about what every
candidate would reach in the end (worker/ranking/belief). A stretch is worth what its look is expected to add to the mAP of
the candidate that would then be named: the knowledge gradient (Frazier, Powell & Dayanik 2009, INFORMS J. Computing 21, eq.
3.4) of a belief with correlations, on the curves of freeze-thaw optimisation (Swersky, Snoek & Adams 2014, arXiv
1406.3896). The stretch with the highest worth for a second goes first. Nobody is ever cut: who lost ground is only less
likely to be looked at again.

Pure arithmetic: no clock, no chance, no database.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtri

from worker.ranking.belief.learned import Curve
from worker.ranking.belief.posterior import JITTER, Joint, Reading, reading_at
from worker.ranking.belief.records import AT_THE_END
from worker.ranking.halving import LEAST_ITERATIONS, Entrant, Pace, Part, Round, largest

# mAP that as many seconds as a whole training takes must be expected to bring
LEAST_IMPROVEMENT = 0.001
# whole trainings that the budget has to carry, or they are made shorter
WHOLE_TRAININGS = 3
# of the standard normal, in the middle of equal shares of it
_NODES = ndtri((np.arange(128) + 0.5) / 128)


@dataclass(frozen=True)
class Outlook:
    """What is believed of n candidates before a search has trained any: mean (n,) and covariance (n, n) float64 of
    sqrt(mAP) at the end, over trainings. curves: what a look on the way says of the end; seed: standard deviation of one
    training."""

    mean: np.ndarray
    covariance: np.ndarray
    curves: tuple[Curve, ...]
    seed: float

    @classmethod
    def of(cls, found: Joint, curves: Sequence[Curve], seed: float) -> Outlook:
        return cls(found.mean, found.covariance, tuple(curves), seed)

    def after(self, looks: Sequence[Reading | None]) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and covariance (n, n) with one look at each candidate, the last; None where there is none."""
        at = [place for place, look in enumerate(looks) if look is not None]
        if not at:
            return self.mean, self.covariance
        known = [look for look in looks if look is not None]
        shared = np.sqrt([look.shared for look in known])
        own = np.array([self.seed**2 + look.variance + JITTER for look in known])
        crossed = self.covariance[:, at]
        factor = cho_factor(crossed[at] + np.diag(own) + np.outer(shared, shared), lower=True)
        off = np.array([look.value for look in known]) - self.mean[at]
        mean = self.mean + crossed @ cho_solve(factor, off)
        return mean, self.covariance - crossed @ cho_solve(factor, crossed.T)


def whole_training(
    paces: Sequence[Pace], *, longest: int, budget_s: float, least: int = LEAST_ITERATIONS
) -> int | None:
    """Iterations of a whole training for candidates of these paces, in the order of their scores.

    At most `longest`, and as many as let the first WHOLE_TRAININGS come to their end; fewer of them, and last the fastest
    alone, where that would be below `least` iterations. None where nobody gets so far.
    """
    least = min(least, longest)
    tries = [list(paces[:count]) for count in range(min(WHOLE_TRAININGS, len(paces)), 0, -1)]
    if paces:
        tries.append([min(paces, key=lambda pace: pace.seconds(0, least, least))])
    for own in tries:
        length = largest(longest, partial(_carries, own, budget_s))
        if length >= least:
            return length
    return None


def stops_of(whole: int, curves: Sequence[Curve], least: int = LEAST_ITERATIONS) -> tuple[int, ...]:
    """Iterations at which a look says something of the end: where a curve was learned, and the end."""
    looked = {math.ceil(curve.share * whole - 1e-9) for curve in curves if curve.share < AT_THE_END}
    return (*sorted(stop for stop in looked if least <= stop < whole), whole)


def expected_map(entrants: Sequence[Entrant], outlook: Outlook, whole: int) -> np.ndarray:
    """(n,) mAP that each is expected to reach at its end, after all looks; entrants as the outlook has them."""
    mean, covariance = outlook.after(_looks(entrants, outlook, whole))
    return _expected(mean, np.diag(covariance))


def next_stretches(
    entrants: Sequence[Entrant],
    outlook: Outlook,
    stops: Sequence[int],
    left_s: float,
    *,
    parts: int = 1,
    least: int = LEAST_ITERATIONS,
    least_improvement: float = LEAST_IMPROVEMENT,
    puts_aside: bool = True,
) -> Round | None:
    """What to train next for at most `left_s` seconds, at most `parts` at once; None where the search is over.

    `entrants` in the order of their scores, which decides between equals, and as the outlook has them. Of several at once
    each is chosen as if the looks of those before it had come as expected. puts_aside: what the candidate that is named
    now needs to come to its end is spent on nobody else. Where nothing is worth its seconds, the named one is trained to
    its end, or for as long as the rest lasts if that is `least` iterations.
    """
    whole = stops[-1]
    looks = _looks(entrants, outlook, whole)
    mean, covariance = outlook.after(looks)
    going = [place for place, each in enumerate(entrants) if not each.lost]
    pool = going
    if puts_aside:
        # who cannot come to the end any more is no answer, as long as anybody can
        pool = [place for place in going if _seconds(entrants[place], whole, whole) <= left_s] or going
    if not pool:
        return None
    expected = _expected(mean, np.diag(covariance))
    named = max(pool, key=lambda place: expected[place])
    stand = _Stand(entrants, outlook, stops, mean, looks, pool)
    chosen: list[Part] = []
    free = list(pool)
    while free and len(chosen) < parts:
        best = _best(stand, free, left_s, named if puts_aside else None)
        if best is None or _a_training_of(best[1], entrants, going, whole) < least_improvement:
            break
        place, part = best
        chosen.append(part)
        free.remove(place)
        left_s -= part.predicted_s
        # it comes as expected, so it changes no mean, only how much is known: of a covariance its value is no part
        looks[place] = _look_at(outlook, part.stop / whole) or looks[place]
    if chosen:
        return Round(max(part.rung or 0 for part in chosen), tuple(chosen))
    return _to_its_end(entrants[named], stops, left_s, least)


def prospects(entrants: Sequence[Entrant], outlook: Outlook, stops: Sequence[int]) -> dict[str, Part]:
    """Of each candidate that is not at its end the stretch that is worth most for a second, whatever is left."""
    looks = _looks(entrants, outlook, stops[-1])
    pool = [place for place, each in enumerate(entrants) if not each.lost]
    stand = _Stand(entrants, outlook, stops, outlook.after(looks)[0], looks, pool)
    best = {place: _best(stand, [place], math.inf, None) for place in pool}
    return {entrants[place].id: each[1] for place, each in best.items() if each is not None}


@dataclass(frozen=True)
class _Stand:
    """What a choice is made from. mean: after the looks that there are, while `looks` may hold some to come; pool: places
    of those who may be named."""

    entrants: Sequence[Entrant]
    outlook: Outlook
    stops: Sequence[int]
    mean: np.ndarray
    looks: Sequence[Reading | None]
    pool: Sequence[int]


def _best(stand: _Stand, free: Sequence[int], left_s: float, named: int | None) -> tuple[int, Part] | None:
    """Of `free` the stretch that is worth most for a second, with the candidate's place. named: whose end, and its own end,
    must still fit after it."""
    whole = stand.stops[-1]
    covariance = stand.outlook.after(stand.looks)[1]
    found: list[tuple[float, int, Part]] = []
    for place in free:
        each = stand.entrants[place]
        for rung, stop in enumerate(stand.stops):
            if stop <= each.iterations:
                continue
            seconds = each.pace.seconds(each.iterations, stop, whole)
            aside = 0.0
            if named is not None:
                aside = each.pace.seconds(stop, whole, whole) if stop < whole else 0.0
                if place != named:
                    aside = max(aside, _seconds(stand.entrants[named], whole, whole))
            if seconds + aside <= left_s:
                worth = _worth(stand, covariance, place, stop / whole)
                found.append((worth / max(seconds, 1e-9), place, Part(each.id, stop, seconds, rung, worth)))
    if not found:
        return None
    _, place, part = max(found, key=lambda one: one[0])
    return place, part


def _worth(stand: _Stand, covariance: np.ndarray, place: int, share: float) -> float:
    """By how much the expected mAP of the one that is named rises on average when a candidate is looked at there."""
    look = _look_at(stand.outlook, share)
    if look is None:
        return 0.0
    _, after = stand.outlook.after([look if at == place else one for at, one in enumerate(stand.looks)])
    learned = covariance - after
    own = learned[place, place]
    if own <= 1e-12:
        return 0.0
    pool, mean, variance = list(stand.pool), stand.mean, np.diag(covariance)
    moves = (learned[:, place] / math.sqrt(own))[pool]
    # (nodes, pool): what each is expected to reach if the look comes so many standard deviations above what is expected
    values = _expected(mean[pool] + _NODES[:, None] * moves, variance[pool] - moves**2)
    stays = int(np.argmax(_expected(mean[pool], variance[pool])))
    return float(np.mean(values.max(axis=1) - values[:, stays]))


def _looks(entrants: Sequence[Entrant], outlook: Outlook, whole: int) -> list[Reading | None]:
    return [
        None
        if each.value is None or each.iterations <= 0
        else reading_at(each.value, min(each.iterations / whole, AT_THE_END), outlook.curves)
        for each in entrants
    ]


def _look_at(outlook: Outlook, share: float) -> Reading | None:
    """A look that is still to come: its noise, with a value that means nothing."""
    return reading_at(0.0, min(share, AT_THE_END), outlook.curves)


def _expected(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Of the square of a Gaussian that is not below 0 by much."""
    return np.clip(mean, 0, None) ** 2 + np.clip(variance, 0, None)


def _seconds(each: Entrant, stop: int, whole: int) -> float:
    """To an iteration; nothing where it stands there."""
    return each.pace.seconds(each.iterations, stop, whole) if each.iterations < stop else 0.0


def _a_training_of(part: Part, entrants: Sequence[Entrant], going: Sequence[int], whole: int) -> float:
    """What as many seconds as a whole training of the middle candidate takes would bring at the rate of a stretch."""
    training_s = median(entrants[place].pace.seconds(0, whole, whole) for place in going)
    return (part.improvement or 0.0) / max(part.predicted_s, 1e-9) * training_s


def _to_its_end(named: Entrant, stops: Sequence[int], left_s: float, least: int) -> Round | None:
    whole = stops[-1]
    if named.iterations >= whole:
        return None
    stop = named.pace.affords(named.iterations, whole, left_s)
    if stop < whole and stop - named.iterations < least:
        return None
    seconds = named.pace.seconds(named.iterations, stop, whole)
    return Round(len(stops) - 1, (Part(named.id, stop, seconds, len(stops) - 1, 0.0),))


def _carries(paces: Sequence[Pace], budget_s: float, length: int) -> bool:
    return sum(pace.seconds(0, length, length) for pace in paces) <= budget_s
