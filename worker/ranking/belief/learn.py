"""Learn what a belief is made with from the committed tables of studies, into the one file that detrank ships.

    python -m worker.ranking.belief.learn docs/studies/truth

The weights of facts and scores have Gaussian priors whose standard deviations, with those of targets, architectures,
candidates, pairs and seeds, are those of the highest posterior: the marginal likelihood of all test mAPs (a linear mixed
model, Rasmussen and Williams 2006, eq. 2.30) times a log-normal prior around `Spread()`'s own numbers, a factor of e wide
at two standard deviations. Few datasets say little of a standard deviation; the prior keeps it from 0 and from afar. That of
the scores alone may go to 0, for what never helped is to have no say: its prior is half-normal.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from worker.ranking.belief.design import blocks, candidate_numbers, pair_numbers, target_numbers, total
from worker.ranking.belief.learned import FILE, Curve, Learned, Spread
from worker.ranking.belief.records import PIXELS, Evidence
from worker.ranking.belief.tables import digests_of, evidence_of

# of the logarithm of a standard deviation
PRIOR_SD = 0.5
MAY_VANISH = "scores"
BUDGET = (
    f"the mAP after 120 steps of 4 images at {PIXELS} pixels by the recipe quick, on at most 150 images; longer trainings come "
    "in another order"
)


def learn(evidence: Sequence[Evidence], studies: Sequence[str] = (), budget: str = BUDGET) -> Learned:
    """From all trainings of the studies; their curves are learned from and not kept. Raises ValueError without any.

    Of weights that were never trained only what they have less is learned, one number: they reach next to nothing wherever
    it is, which no sum of effects says, and among the others they would swell what candidates are thought to differ by.
    """
    trained = [each for each in evidence if not each.candidate.untrained]
    whole = [each for each in trained if each.observed.share >= 1]
    if not whole:
        raise ValueError("there is no fine-tuning to learn from")
    roots = np.sqrt([each.observed.map for each in whole])
    # each target counts once, however many trainings it has
    by_target = defaultdict(list)
    for each, root in zip(whole, roots, strict=True):
        by_target[each.target.key].append(root)
    mean = float(np.mean([np.mean(own) for own in by_target.values()]))
    facts = _standards(whole)
    return Learned(
        mean,
        _spread(whole, roots - mean, facts),
        facts,
        _curves(trained),
        tuple(whole),
        tuple(studies),
        budget,
        untrained=_of_untrained(evidence),
    )


def _of_untrained(evidence: Sequence[Evidence]) -> float:
    """Mean over targets of sqrt(mAP) of untrained candidates less that of all others there; 0 where there are none."""
    roots: dict[str, dict[bool, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in evidence:
        if each.observed.share >= 1:
            roots[each.target.key][each.candidate.untrained].append(float(np.sqrt(each.observed.map)))
    off = [np.mean(own[True]) - np.mean(own[False]) for own in roots.values() if own[True] and own[False]]
    return float(np.mean(off)) if off else 0.0


def _standards(whole: Sequence[Evidence]) -> dict[str, tuple[float, float]]:
    """Over targets, over candidates and over pairs of them, each counted once."""
    found: dict[str, tuple[float, float]] = {}
    targets = {each.target.key: target_numbers(each.target) for each in whole}
    candidates = {each.candidate.key: candidate_numbers(each.candidate) for each in whole}
    pairs = {
        (each.candidate.key, each.target.key): pair_numbers(each.candidate, each.target) for each in whole
    }
    for rows in (targets, candidates, pairs):
        names = dict.fromkeys(name for row in rows.values() for name in row)
        for name in names:
            values = [row[name] for row in rows.values() if name in row]
            sd = float(np.std(values))
            found[name] = (float(np.mean(values)), sd if sd > 1e-9 else 0.0)
    return found


def _spread(whole: Sequence[Evidence], off: np.ndarray, facts: dict[str, tuple[float, float]]) -> Spread:
    pairs = [(each.candidate, each.target) for each in whole]
    first = np.log(astuple(Spread()))
    # of each standard deviation 1, so that a step of the search only adds them up
    names = [field.name for field in fields(Spread)]
    units = {
        name: total(blocks(pairs, pairs, Spread(**{n: float(n == name) for n in names}), facts))
        for name in names
        if name != "seed"
    }
    units["seed"] = np.eye(len(whole))
    vanishes = np.array([name == MAY_VANISH for name in names])

    def cost(logs: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log posterior and its gradient."""
        squares = np.exp(2 * logs)
        covariance = sum(square * units[name] for name, square in zip(names, squares, strict=True))
        factor = cho_factor(covariance + 1e-9 * np.eye(len(off)), lower=True)
        inverse = cho_solve(factor, np.eye(len(off)))
        solved = inverse @ off
        value = 0.5 * off @ solved + np.log(np.diag(factor[0])).sum()
        gradient = [
            square * (np.sum(inverse * units[name]) - solved @ units[name] @ solved)
            for name, square in zip(names, squares, strict=True)
        ]
        away = np.where(vanishes, 0.0, (logs - first) / PRIOR_SD)
        size = np.where(vanishes, np.exp(logs - first), 0.0)
        prior = 0.5 * (away @ away + size @ size)
        return value + prior, np.array(gradient) + away / PRIOR_SD + size**2

    found = minimize(cost, first, jac=True, method="L-BFGS-B", bounds=[(b - 3, b + 3) for b in first])
    return Spread(*(float(sd) for sd in np.exp(found.x)))


def _curves(evidence: Sequence[Evidence]) -> tuple[Curve, ...]:
    """One for each share that at least ten trainings were looked at, by least squares within targets.

    The truth that a reading is held to is the mean over seeds, with the noise that it has left.
    """
    truths = defaultdict(list)
    for each in evidence:
        if each.observed.share >= 1:
            truths[each.target.key, each.candidate.key].append(np.sqrt(each.observed.map))
    shares = defaultdict(list)
    for each in evidence:
        pair = each.target.key, each.candidate.key
        if each.observed.share < 1 and pair in truths:
            root = float(np.sqrt(each.observed.map))
            shares[round(each.observed.share, 6)].append(
                (each.target.key, root, float(np.mean(truths[pair])))
            )
    found = []
    for share, rows in sorted(shares.items()):
        targets = [target for target, _, _ in rows]
        if len(rows) < 10 or len(set(targets)) < 3:
            continue
        x = np.array([truth for _, _, truth in rows])
        y = np.array([root for _, root, _ in rows])
        groups = np.array([targets.index(target) for target in targets])
        inner_x, inner_y = x - _group_means(x, groups), y - _group_means(y, groups)
        slope = float(inner_x @ inner_y / (inner_x @ inner_x))
        if slope <= 0:
            continue
        left = y - slope * x
        each_target = np.array([left[groups == group].mean() for group in sorted(set(groups.tolist()))])
        noise = float(
            np.sqrt(np.sum((left - _group_means(left, groups)) ** 2) / (len(left) - len(each_target) - 1))
        )
        found.append(Curve(share, float(each_target.mean()), slope, float(each_target.std(ddof=1)), noise))
    return tuple(found)


def _group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.array([values[groups == group].mean() for group in groups])


def main(folders: Sequence[str]) -> None:
    paths = [Path(folder) for folder in folders]
    found = learn(evidence_of(paths, ends=True), [path.name for path in paths])
    found = replace(found, digests=digests_of(paths))
    FILE.write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("python -m worker.ranking.belief.learn FOLDER_OF_TABLES ...")
    main(sys.argv[1:])
