"""Committed tables of a study as evidence: pairs.csv, scores.csv, candidates.csv and datasets.csv of one folder."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.ranking.belief.design import standardised
from worker.ranking.belief.facts import scores_of
from worker.ranking.belief.records import AT_THE_END, Evidence, Facts, Observed, TargetFacts


def evidence_of(folders: Iterable[Path], *, ends: bool = False) -> list[Evidence]:
    """Every training of the tables: its validation curve, then its test mAP. Targets are named as their datasets are.

    ends: with the look at the validation images after the last step, too, whose share is AT_THE_END. Scores are standardised over the candidates that have them on a dataset, whether or not they were trained there.
    """
    found: list[Evidence] = []
    for folder in folders:
        targets, candidates = facts_of(folder)
        scores = _scores(folder)
        for row in _rows(folder / "pairs.csv"):
            if not row["map"]:
                # it could not be trained, and `error` says why
                continue
            own = scores.get((row["dataset"], row["candidate"]), {})
            facts = replace(candidates[row["candidate"]], scores=own)
            steps = int(row["iterations"])
            for point in row["curve"].split():
                at, value = point.split(":")
                share = min(int(at) / steps, AT_THE_END)
                if ends or share < AT_THE_END:
                    found.append(Evidence(facts, targets[row["dataset"]], Observed(float(value), share)))
            found.append(Evidence(facts, targets[row["dataset"]], Observed(float(row["map"]))))
    return found


def digests_of(folders: Iterable[Path]) -> dict[str, str]:
    """Dataset to the digest of its contents."""
    return {row["dataset"]: row["digest"] for folder in folders for row in _rows(folder / "datasets.csv")}


def facts_of(folder: Path) -> tuple[dict[str, TargetFacts], dict[str, Facts]]:
    """Datasets and candidates by name, without scores."""
    targets = {
        row["dataset"]: TargetFacts(
            row["dataset"],
            int(row["images"]),
            int(row["classes"]),
            float(row["objects"]) if row["objects"] else None,
            tuple(map(float, row["sides"].split())) or None,
            int(row["pixels"]) if row["pixels"] else None,
        )
        for row in _rows(folder / "datasets.csv")
    }
    candidates = {
        row["candidate"]: Facts(
            row["weights_sha256"],
            row["architecture"],
            int(row["trained_parameters"]),
            row["detector"] == "yes",
            row["untrained"] == "yes",
            stride=int(row["stride"]) if row["stride"] else None,
        )
        for row in _rows(folder / "candidates.csv")
    }
    return targets, candidates


def _scores(folder: Path) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    values: dict[str, dict[str, dict[tuple[str, str], Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in _rows(folder / "scores.csv"):
        own = values[row["dataset"]][row["candidate"]]
        own[row["metric"], row["layer"]] = _number(row["value"]), _number(row["zero_point"])
    found = {}
    for dataset, pool in values.items():
        standard = standardised([scores_of(own) for own in pool.values()])
        found.update({(dataset, name): own for name, own in zip(pool, standard, strict=True)})
    return found


def means(evidence: Iterable[Evidence]) -> dict[tuple[str, str], float]:
    """{(target, candidate): mean test mAP over seeds}"""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in evidence:
        if each.observed.share >= 1:
            found[each.target.key, each.candidate.key].append(each.observed.map)
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def _number(text: str) -> float | None:
    return float(text) if text else None


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
