"""The numbers that a belief is made with: one file, learned from committed studies by `learn.py`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from worker.ranking.belief.records import Evidence, Facts, Observed, TargetFacts

FILE = Path(__file__).with_name("learned.json")
# of the file: what an older or newer one means is not guessed
VERSION = 2


@dataclass(frozen=True)
class Spread:
    """Standard deviations on the square root of mAP: of the mean over all targets; of the weights of facts about the target,
    facts about the candidate, sizes of objects and scores (for one unit of a standardised fact); of a target, an
    architecture, a candidate and a pair of candidate and target apart from their facts; of a training beside its twin."""

    mean: float = 0.1
    target_facts: float = 0.01
    candidate_facts: float = 0.05
    object_sizes: float = 0.05
    scores: float = 0.03
    target: float = 0.15
    architecture: float = 0.04
    candidate: float = 0.05
    pair: float = 0.04
    seed: float = 0.03


@dataclass(frozen=True)
class Curve:
    """Of validation mAP at a share of the steps: sqrt(it) = offset + slope sqrt(test mAP at the end) + noise, of which
    `target` is common to all candidates of a target and `noise` each one's own (standard deviations)."""

    share: float
    offset: float
    slope: float
    target: float
    noise: float


@dataclass(frozen=True)
class Learned:
    """mean: of sqrt(mAP); facts: name to (mean, standard deviation) of what is standardised; evidence: of the studies,
    which the belief stands on beside that of a workspace; budget: what was trained, in words; digests: of the contents of
    targets, to know one of them again; untrained: what weights that were never trained have less, on sqrt(mAP)."""

    mean: float
    spread: Spread
    facts: Mapping[str, tuple[float, float]]
    curves: tuple[Curve, ...]
    evidence: tuple[Evidence, ...]
    studies: tuple[str, ...] = ()
    budget: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    untrained: float = 0.0

    def without(self, target: str) -> Learned:
        """The same numbers without what is known of a target."""
        return replace(self, evidence=tuple(e for e in self.evidence if e.target.key != target))

    def without_digest(self, digest: str) -> Learned:
        """The same numbers without what is known of a dataset of these contents; itself where there is nothing."""
        same = [key for key, own in self.digests.items() if own == digest]
        return self.without(same[0]) if same else self

    def to_json(self) -> dict[str, Any]:
        """Each target and each candidate once, scores as a list in the order of their names."""
        targets = {e.target.key: asdict(e.target) for e in self.evidence}
        candidates = {
            e.candidate.key: {k: v for k, v in asdict(e.candidate).items() if k != "scores"}
            for e in self.evidence
        }
        return {
            "version": VERSION,
            "studies": list(self.studies),
            "budget": self.budget,
            "mean": self.mean,
            "untrained": self.untrained,
            "spread": asdict(self.spread),
            "facts": {name: list(pair) for name, pair in self.facts.items()},
            "curves": [asdict(each) for each in self.curves],
            "digests": {key: own for key, own in self.digests.items() if key in targets},
            "targets": list(targets.values()),
            "candidates": list(candidates.values()),
            "evidence": [
                {
                    "candidate": e.candidate.key,
                    "target": e.target.key,
                    "map": e.observed.map,
                    "scores": {f"{q} of {m}": v for (m, q), v in e.candidate.scores.items()},
                }
                for e in self.evidence
            ],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Learned:
        """Raises ValueError for a file of another version."""
        if raw.get("version") != VERSION:
            raise ValueError(
                f"this is version {raw.get('version')} of what a belief is made with, not {VERSION}"
            )
        targets = {
            each["key"]: TargetFacts(**each | {"sides": tuple(each["sides"]) if each["sides"] else None})
            for each in raw["targets"]
        }
        candidates = {each["key"]: each for each in raw["candidates"]}
        return cls(
            raw["mean"],
            Spread(**raw["spread"]),
            {name: (low, high) for name, (low, high) in raw["facts"].items()},
            tuple(Curve(**each) for each in raw["curves"]),
            tuple(
                Evidence(
                    Facts(**candidates[e["candidate"]], scores=_scores(e["scores"])),
                    targets[e["target"]],
                    Observed(e["map"]),
                )
                for e in raw["evidence"]
            ),
            tuple(raw["studies"]),
            raw["budget"],
            raw.get("digests", {}),
            raw.get("untrained", 0.0),
        )


def _scores(named: Mapping[str, float]) -> dict[tuple[str, str], float]:
    found = {}
    for name, value in named.items():
        quantity, _, metric = name.partition(" of ")
        found[metric, quantity] = value
    return found


@functools.cache
def shipped() -> Learned:
    """What this version of detrank comes with."""
    return Learned.from_json(json.loads(FILE.read_text(encoding="utf-8")))
