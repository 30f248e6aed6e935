"""What a study has so far as four plain tables, from which everything can be recomputed: pairs, scores, candidates, datasets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models_store.manifest import Manifest
from worker.data.dataset import Dataset, open_dataset
from worker.ranking.belief.facts import facts_of_manifest
from worker.studies.files import read_json
from worker.studies.measures.zero_point import architecture_digest
from worker.studies.runs.carried import carried_from, trained_there
from worker.studies.runs.real import StudySettings, folder_of, target_of
from worker.studies.work_folder import WorkFolder

PAIRS = [
    "dataset",
    "candidate",
    "seed",
    "map",
    "ap50",
    "iterations",
    "curve",
    "seconds",
    "memory_before_mb",
    "memory_peak_mb",
    "start_distance",
    "start_scaled",
    "taken_from",
    "error",
]
SCORES = ["dataset", "candidate", "metric", "layer", "level", "value", "zero_point", "undefined"]
CANDIDATES = [
    "candidate",
    "weights_sha256",
    "architecture",
    "parameters",
    "trained_parameters",
    "detector",
    "untrained",
    "stride",
    "coco_box_map",
    "imagenet_top1",
    "trained_on",
]
DATASETS = ["dataset", "digest", "images", "classes", "objects", "sides", "pixels"]


def write_pairs(
    datasets: Mapping[str, Path],
    candidates: Mapping[str, Path],
    work: Path,
    settings: StudySettings,
    target: Path,
) -> list[Path]:
    """What is there of a study's parts, whether or not it has come to its end, into `target`; the paths of four files.

    curve: step:validation mAP of each look; start: how far fresh layers were from their aim, and whether they were scaled.
    zero_point: the score of the same architecture untrained. trained_on: the dataset that the study trained a candidate
    on, with which it makes no pair.
    """
    manifests = {
        name: Manifest.read(folder)
        for name, folder in candidates.items()
        if (folder / "manifest.json").exists()
    }
    opened = {name: open_dataset(folder) for name, folder in datasets.items()}
    kept = folder_of(datasets, manifests, work, settings)
    keys = [(d, c) for d in opened for c in manifests if not trained_there(manifests[c], opened[d])]
    tunings = {
        (d, c, seed): read_json(path)
        for d, c in keys
        for seed in settings.seeds
        if (path := kept.tuning((d, c), seed)).exists()
    }
    target.mkdir(parents=True, exist_ok=True)
    return [
        _written(target / "pairs.csv", PAIRS, _pairs(tunings)),
        _written(target / "scores.csv", SCORES, _scores(keys, kept, manifests, settings)),
        _written(target / "candidates.csv", CANDIDATES, map(_candidate, manifests, manifests.values())),
        _written(
            target / "datasets.csv",
            DATASETS,
            (_dataset(name, dataset, settings) for name, dataset in opened.items()),
        ),
    ]


def _pairs(tunings: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    for (d, c, seed), result in tunings.items():
        start, memory = result.get("start") or {}, result.get("memory_mb") or {}
        curve = " ".join(f"{p['iteration']}:{p['map']:.5f}" for p in result.get("val_curve", []))
        yield (
            d,
            c,
            seed,
            _short(result.get("map")),
            _short(result.get("ap50")),
            result.get("iterations"),
            curve,
            result.get("seconds"),
            memory.get("before"),
            memory.get("peak"),
            _short(start.get("distance")),
            "yes" if start.get("factors") else "no",
            result.get("taken_from"),
            result.get("error"),
        )


def _scores(
    keys: Sequence[tuple[str, str]],
    kept: WorkFolder,
    manifests: Mapping[str, Manifest],
    settings: StudySettings,
) -> Iterator[Sequence[Any]]:
    for d, c in keys:
        if not (path := kept.scores((d, c))).exists():
            continue
        zero = kept.zero_point(d, architecture_digest(manifests[c], settings.zero_point_seed))
        zeros = {
            (row["metric"], row["layer"], row["level"]): row["value"]
            for row in (read_json(zero).get("rows", []) if zero.exists() else [])
        }
        for row in read_json(path).get("rows", []):
            place = row["metric"], row["layer"], row["level"]
            yield (d, c, *place, _short(row["value"]), _short(zeros.get(place)), row["undefined"])


def _candidate(name: str, manifest: Manifest) -> Sequence[Any]:
    facts = facts_of_manifest(manifest.to_json())
    return (
        name,
        facts.key,
        facts.architecture,
        manifest.parameters,
        facts.parameters,
        "yes" if facts.detector else "no",
        "yes" if facts.untrained else "no",
        facts.stride,
        manifest.published.get("coco_box_map"),
        manifest.published.get("imagenet_top1"),
        (carried_from(manifest) or {}).get("name"),
    )


def _dataset(name: str, dataset: Dataset, settings: StudySettings) -> Sequence[Any]:
    facts = target_of(dataset, settings)
    sides = " ".join(f"{side:g}" for side in facts.sides or ())
    return name, facts.key, facts.images, facts.classes, _short(facts.objects), sides, facts.pixels


def _short(value: float | None) -> float | str | None:
    return value if value is None else f"{value:.7g}"


def _written(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path
