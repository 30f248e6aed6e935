"""How a budget of seconds is spent on training many candidates: successive halving.

Jamieson & Talwalkar 2016, arXiv 1502.07943: train all for a little, keep the best 1/eta, train these eta times as long, and
so on. Every round costs about the same, so most of the budget goes where it is still undecided who is best, and a bad
candidate costs a fraction of a full training. Their number of rounds is that of Hyperband's most exploring bracket (Li et
al. 2018, arXiv 1603.06560), bounded by what the first round must last to say anything.

Three things differ here. Training goes on from where it stood, so a round costs only what it adds. Candidates differ in
seconds for an iteration, so who goes on is counted in seconds and not in heads: what the later rounds are expected to cost
is put aside first, nothing is begun that does not fit, and what is saved, or left by one that failed, takes up the next
best. And the candidates come in the order of their scores, so when not all can enter, the promising ones do.

Pure arithmetic: no clock, no chance, no database.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

# Below this a fine-tuned detector hardly differs from its fresh head: its mAP would say nothing of the candidate.
LEAST_ITERATIONS = 20
# With eta 3 the first round is 1/27 of a whole training: what was learned by then still says something of the end.
MOST_HALVINGS = 3
ETA = 3
# Predictions of seconds are off by less than this factor.
AMPLE = 1.5


@dataclass(frozen=True)
class Pace:
    """Seconds that training one candidate takes: for a step, once in each part, and spread over a whole training.

    part_s: loading, the evaluation and the saving where it pauses. along_s: the evaluations on its way.
    """

    iteration_s: float
    part_s: float = 0.0
    along_s: float = 0.0

    def seconds(self, begin: int, end: int, whole: int) -> float:
        """Of the part from iteration `begin` to `end`, of a training that has `whole` iterations."""
        return (end - begin) * (self.iteration_s + self.along_s / whole) + self.part_s

    def affords(self, begin: int, whole: int, left_s: float) -> int:
        """The last iteration, at most `whole`, that a part from `begin` reaches in `left_s`; `begin` where there is none."""
        step_s = self.iteration_s + self.along_s / whole
        more = (
            whole - begin if step_s <= 0 else min(whole - begin, math.floor((left_s - self.part_s) / step_s))
        )
        # what division rounds up does not fit
        while more > 0 and self.seconds(begin, begin + more, whole) > left_s:
            more -= 1
        return begin + max(0, more)


@dataclass(frozen=True)
class Entrant:
    """A candidate as it stands: `rung` is the last it ended (-1: none), `value` its validation mAP there.

    late: it enters only after all others, so slow that it would cost several their place. lost: it failed, and takes no
    further part.
    """

    id: str
    pace: Pace
    rung: int = -1
    iterations: int = 0
    value: float | None = None
    late: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Part:
    """One candidate's training in a round, from where it stands to iteration `stop`.

    rung: of the stop, where parts of a round have several; improvement: by how much the mAP that the search ends with is
    expected to rise by it, where that decided.
    """

    id: str
    stop: int
    predicted_s: float
    rung: int | None = None
    improvement: float | None = None


@dataclass(frozen=True)
class Round:
    """Candidates that train next, all up to the iteration at `rung` of the ladder (from 0); a rung may take several rounds."""

    rung: int
    parts: tuple[Part, ...]

    @property
    def predicted_s(self) -> float:
        return sum(part.predicted_s for part in self.parts)


@dataclass(frozen=True)
class Ladder:
    """stops: the iterations at which the rounds end, rising; the last is the length of a whole training.

    late: places of the candidates that are too slow to enter with the others.
    """

    stops: tuple[int, ...]
    late: frozenset[int] = frozenset()


def ladder(
    paces: Sequence[Pace],
    *,
    longest: int,
    budget_s: float,
    eta: int = ETA,
    least: int = LEAST_ITERATIONS,
    halvings: int = MOST_HALVINGS,
) -> Ladder | None:
    """Where the rounds end for candidates of these paces, given in the order of their scores.

    As many halvings as there are candidates to tell apart, at most `halvings`, with a whole training as long as the budget
    then allows and no longer than `longest`: so that eta**halvings candidates, or all, can enter the first round. Fewer
    halvings, for fewer candidates, where that would end the first round before `least` iterations. The slowest stay
    behind where more of the others can enter without them. A single round where everybody can come to the end with AMPLE
    to spare. None where the budget carries nobody `least` iterations far.
    """
    if paces and AMPLE * sum(pace.seconds(0, longest, longest) for pace in paces) <= budget_s:
        return Ladder((longest,))
    slowest = sorted(range(len(paces)), key=lambda place: -paces[place].seconds(0, least, least))
    found: list[tuple[int, Ladder]] = []
    for out in range(len(paces)):
        late = frozenset(slowest[:out])
        entering = [pace for place, pace in enumerate(paces) if place not in late]
        if found and found[-1][0] >= min(len(entering), eta**halvings):
            break
        stops, count = _opened(entering, longest, budget_s, eta, min(least, longest), halvings)
        if count and (not found or count > found[-1][0]):
            found.append((count, Ladder(stops, late)))
    return found[-1][1] if found else None


def next_round(
    entrants: Sequence[Entrant],
    stops: Sequence[int],
    left_s: float,
    *,
    eta: int = ETA,
    least: int = LEAST_ITERATIONS,
) -> Round | None:
    """What to train next for at most `left_s` seconds; None where nothing more fits, and the search is over.

    `entrants` in the order of their scores. The candidates of a round are the best of the round before (the score decides
    where mAP does not): as many as fit together with what 1/eta of them would cost in the round after, and so on to the
    last. Into the first round one that does not fit lets the next go first. Seconds that turn out to be left let more of
    those that wait into the round just ended, before the next begins; after the last round, into those before. Where the
    best cannot come to the end, it goes on alone for as long as it lasts, if that is `least` iterations.
    """
    going = [each for each in entrants if not each.lost]
    last = len(stops) - 1
    top = max((each.rung for each in going), default=-1)
    rungs = (top, top + 1) if top < last else range(top, -1, -1)
    for rung in rungs:
        there = [each for each in going if each.rung == rung == top]
        waiting = ranked(each for each in going if each.rung == rung - 1) if rung >= 0 else []
        if chosen := _admitted(there, waiting, stops, rung, left_s, eta):
            return Round(rung, tuple(_part(each, stops[rung], stops[-1]) for each in chosen))
    return _as_far_as_it_goes(going, top, stops, left_s, least) if top < last else None


def ranked(entrants: Iterable[Entrant]) -> list[Entrant]:
    """Best validation mAP first; equal ones, and those without, in the order they came in, the late ones last."""
    return sorted(entrants, key=lambda each: (math.inf if each.value is None else -each.value, each.late))


def leader(entrants: Sequence[Entrant]) -> Entrant | None:
    """The best at the highest rung; None where nobody was trained."""
    trained = [each for each in entrants if not each.lost and each.rung >= 0]
    furthest = max((each.rung for each in trained), default=-1)
    return next(iter(ranked(each for each in trained if each.rung == furthest)), None)


def _opened(
    paces: Sequence[Pace], longest: int, budget_s: float, eta: int, least: int, halvings: int
) -> tuple[tuple[int, ...], int]:
    """Where rounds end, and how many are sure to enter the first; ((), 0) where nobody can."""
    most = next(k for k in range(halvings + 1) if eta**k >= len(paces) or k == halvings)
    for k in range(most, -1, -1):
        fresh = [Entrant(str(place), pace) for place, pace in enumerate(paces[: eta**k])]
        fits = partial(_fits, fresh, k, budget_s, eta)
        if (length := largest(longest, fits)) and (stops := _stops(length, k, eta))[0] >= least:
            return stops, len(fresh)
    return (), 0


def _fits(fresh: Sequence[Entrant], halvings: int, budget_s: float, eta: int, length: int) -> bool:
    return _cost([], fresh, _stops(length, halvings, eta), 0, eta) <= budget_s


def _stops(length: int, halvings: int, eta: int) -> tuple[int, ...]:
    return tuple(length // eta ** (halvings - k) for k in range(halvings + 1))


def _cost(
    there: Sequence[Entrant], going: Sequence[Entrant], stops: Sequence[int], rung: int, eta: int
) -> float:
    """Seconds of `going` to the end of `rung`, and what follows for the best of them and of those who are `there`.

    Who that will be is not known, so they are taken for as fast as all are on average.
    """
    total = sum(_seconds(each, each.iterations, rung, stops) for each in going)
    everyone = [*there, *going]
    count = len(everyone)
    for later in range(rung + 1, len(stops)):
        count = max(1, count // eta)
        total += count * fmean(_seconds(each, stops[later - 1], later, stops) for each in everyone)
    return total


def _seconds(each: Entrant, begin: int, rung: int, stops: Sequence[int]) -> float:
    return each.pace.seconds(min(begin, stops[rung]), stops[rung], stops[-1])


def _admitted(
    there: Sequence[Entrant],
    waiting: Sequence[Entrant],
    stops: Sequence[int],
    rung: int,
    left_s: float,
    eta: int,
) -> list[Entrant]:
    chosen: list[Entrant] = []
    for each in waiting:
        if _cost(there, [*chosen, each], stops, rung, eta) <= left_s:
            chosen.append(each)
        elif rung > 0:
            break  # nobody overtakes one that did better
    return chosen


def _as_far_as_it_goes(
    going: Sequence[Entrant], top: int, stops: Sequence[int], left_s: float, least: int
) -> Round | None:
    best = next(iter(ranked(each for each in going if each.rung == top)), None)
    if best is None:
        return None
    stop = best.pace.affords(best.iterations, stops[-1], left_s)
    if stop - best.iterations < least:
        return None
    return Round(len(stops) - 1, (_part(best, stop, stops[-1]),))


def _part(each: Entrant, stop: int, whole: int) -> Part:
    return Part(each.id, stop, each.pace.seconds(min(each.iterations, stop), stop, whole))


def largest(most: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `most` for which `holds`, found by bisection; 0 is taken to."""
    low, high = 0, most
    if most and holds(most):
        return most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
