"""What searches are replayed over: the trained candidates of each dataset of a study, with every look at their trainings."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from worker.ranking.belief import Evidence, Facts, Observed, TargetFacts
from worker.ranking.belief.records import AT_THE_END
from worker.ranking.belief.tables import evidence_of, facts_of, means

FEWEST = 5


@dataclass(frozen=True)
class Pool:
    """The trained candidates of one dataset. truth: mean test mAP over seeds; looks: of each seed, iteration to validation
    mAP; seconds: of a whole training; blind: mean mAP elsewhere, empty where they have none in common."""

    target: TargetFacts
    facts: Mapping[str, Facts]
    truth: Mapping[str, float]
    looks: Mapping[str, Sequence[Mapping[int, float]]]
    seconds: Mapping[str, float]
    blind: Mapping[str, float]
    whole: int
    scoring_s: float | None

    @property
    def brute_force_s(self) -> float:
        return sum(self.seconds[key] for key in self.facts)

    @property
    def seeds(self) -> int:
        return max(len(own) for own in self.looks.values())

    def look(self, key: str, seed: int, iteration: int) -> float | None:
        own = self.looks[key]
        return own[min(seed, len(own) - 1)].get(iteration)

    def stops(self) -> tuple[int, ...]:
        """Iterations that every training of the pool was looked at."""
        return tuple(sorted(set.intersection(*(set(curve) for own in self.looks.values() for curve in own))))


def pools_of(folder: Path, facts: Path | None = None) -> tuple[dict[str, Pool], list[Evidence]]:
    """Of the datasets with at least FEWEST candidates that were fine-tuned, and all evidence. Where the study has scores, they are
    scored and not untrained, as those that `beliefs` orders. facts: where candidates.csv and datasets.csv are, of a study that keeps its trainings alone."""
    trainings = _trainings(folder)
    scored = (folder / "pairs.csv").exists()
    evidence = evidence_of([folder], ends=True) if scored else _plain_evidence(trainings, facts or folder)
    targets, candidates = facts_of(facts or folder)
    truth = means(evidence)
    curves: dict[tuple[str, str], list[dict[int, float]]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for one in trainings:
        key = candidates[one.candidate].key
        curves[one.dataset, key].append(one.curve)
        seconds[key].append(one.seconds)
    found = {}
    for dataset in dict.fromkeys(one.dataset for one in trainings):
        own = {
            each.candidate.key: each.candidate
            for each in evidence
            if each.target.key == dataset
            and (not scored or (each.candidate.scores and not each.candidate.untrained))
        }
        if len(own) >= FEWEST:
            looks = {key: curves[dataset, key] for key in own}
            found[dataset] = Pool(
                targets[dataset],
                own,
                {key: truth[dataset, key] for key in own},
                looks,
                {key: median(seconds[key]) for key in own},
                _blind(truth, dataset, own),
                max(iteration for several in looks.values() for curve in several for iteration in curve),
                _scoring_seconds(folder),
            )
    return found, evidence


def _blind(truth: Mapping[tuple[str, str], float], dataset: str, own: Iterable[str]) -> dict[str, float]:
    elsewhere: dict[str, dict[str, float]] = defaultdict(dict)
    for (other, key), value in truth.items():
        if other != dataset:
            elsewhere[other][key] = value
    common = [known for known in elsewhere.values() if all(key in known for key in own)]
    return {key: float(np.mean([known[key] for known in common])) for key in own} if common else {}


@dataclass(frozen=True)
class _Training:
    dataset: str
    candidate: str
    map: float
    iterations: int
    curve: dict[int, float]
    seconds: float


def _trainings(folder: Path) -> list[_Training]:
    """From pairs.csv, or from the parts that a study has kept, in the order of their names."""
    if not (folder / "pairs.csv").exists():
        parts = {
            path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("work/tunings/*-on-*.json")
        }
        return [
            _Training(
                name.rsplit("-", 1)[0].split("-on-")[1],
                name.split("-on-")[0],
                part["map"],
                part["iterations"],
                {point["iteration"]: point["map"] for point in part["val_curve"]},
                part["seconds"],
            )
            for name, part in sorted(parts.items())
            if "error" not in part
        ]
    found = []
    for row in _rows(folder / "pairs.csv"):
        if row["error"] or not row["map"]:
            continue
        points = (point.split(":") for point in row["curve"].split())
        curve = {int(at): float(value) for at, value in points}
        found.append(
            _Training(
                row["dataset"],
                row["candidate"],
                float(row["map"]),
                int(row["iterations"]),
                curve,
                float(row["seconds"]),
            )
        )
    return found


def _plain_evidence(trainings: Iterable[_Training], facts: Path) -> list[Evidence]:
    """Without scores."""
    targets, candidates = facts_of(facts)
    return [
        Evidence(candidates[one.candidate], targets[one.dataset], observed)
        for one in trainings
        for observed in (
            *(Observed(value, min(at / one.iterations, AT_THE_END)) for at, value in one.curve.items()),
            Observed(one.map),
        )
    ]


def _scoring_seconds(folder: Path) -> float | None:
    """Of one candidate, the median over all that were scored; None where no parts are kept."""
    parts = [
        json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("work/scores/*/*-on-*.json")
    ]
    known = [sum(part["seconds"].values()) for part in parts if "seconds" in part]
    return median(known) if known else None


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
