"""A real study that nobody ran: seven datasets, eight candidates of three architectures, scores and mAP as planted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models_store.manifest import Input, Layer, Manifest
from worker.studies.measures.layer_rules import rule_named
from worker.studies.measures.question import Question
from worker.studies.measures.sizes import SIZES
from worker.studies.runs.real import RealStudy, StudySettings

DATASETS = ("bccd", "pennfudan", "cards", "craters", "deeppcb", "plates_ro", "ships")
CHOOSE_ON = DATASETS[:3]
RULES = ("backbone.c3", "backbone.c4", "size_matched / 4", "mean of maps")
LAYERS = ("backbone.c3", "backbone.c4")
# knows: orders by mAP at stride 16; noise: by nothing; both on true boxes and on regions
METRICS = ("tlogme", "logme_boxes", "detection_evidence", "logme_regions")
BACKBONES = ("a", "a", "a", "b", "b", "c", "a", "b")
CANDIDATES = tuple(f"{backbone} {number}" for number, backbone in enumerate(BACKBONES))
UNTRAINED = frozenset(CANDIDATES[-2:])


def manifest(backbone: str) -> Manifest:
    return Manifest(
        architecture="detrank/fasterrcnn_fpn",
        backbone=f"made/{backbone}",
        format="made",
        kind="backbone",
        input=Input(),
        layers=(
            Layer("backbone.c3", 8, 4, "map", True),
            Layer("backbone.c4", 16, 4, "map", True),
            Layer("neck.p4", 16, 4, "map", False),
        ),
        parameters=1,
        source={},
        weights_sha256="0",
    )


def made_up(
    seeds: Sequence[int] = (0, 1),
    noise: float = 0.02,
    *,
    sizes: bool = True,
    probe: bool = True,
    seed: int = 0,
) -> RealStudy:
    """detection_evidence at stride 16 is the mAP itself plus a constant of the architecture, which its gain takes away;
    tlogme has no value on pennfudan; all else is noise."""
    rng = np.random.default_rng(seed)
    manifests = {c: manifest(backbone) for c, backbone in zip(CANDIDATES, BACKBONES, strict=True)}
    scores, tunings, zeros, probes = {}, {}, {}, {}
    for number, dataset in enumerate(DATASETS):
        truth = np.append(rng.uniform(0.2, 0.6, 6), rng.uniform(0.05, 0.1, 2))
        offset = {"a": 0.0, "b": 0.03, "c": -0.03}
        for c, backbone, value in zip(CANDIDATES, BACKBONES, truth, strict=True):
            key = (dataset, c)
            planted = float(value + offset[backbone])
            scores[key] = {
                **part(rows(dataset, planted, rng, sizes), number),
                "parameters": int(1000 * rng.uniform(1, 9)),
            }
            zeros[key] = part(rows(dataset, offset[backbone], None, sizes), number)
            tunings[key] = {s: tuning(float(value + noise * rng.normal()), value) for s in seeds}
            probes[key] = {**tuning(float(value / 2), value), "seconds": 5.0}
    settings = StudySettings(
        seeds=tuple(seeds),
        metrics=METRICS,
        by_size=("detection_evidence",) if sizes else (),
        zero_point=True,
        probe={"iterations": 30} if probe else None,
    )
    return RealStudy(settings, manifests, scores, tunings, zeros, probes if probe else {})


def rows(dataset: str, planted: float, rng, sizes: bool) -> list[dict]:
    found = []
    for layer in LAYERS:
        for metric in METRICS:
            known = metric == "detection_evidence" and layer == "backbone.c4"
            value = planted if known else 0.0 if rng is None else float(rng.normal())
            lacks = metric == "tlogme" and dataset == "pennfudan"
            found.append(
                row(
                    metric,
                    layer,
                    "local",
                    None if lacks else value,
                    "all objects are of one class" if lacks else None,
                )
            )
        if sizes:
            found += [
                row("detection_evidence", layer, size, planted if rng is None else float(rng.normal()), None)
                for size in SIZES
            ]
    return found


def row(metric: str, layer: str, level: str, value: float | None, undefined: str | None) -> dict:
    return {
        "metric": metric,
        "layer": layer,
        "level": level,
        "value": value,
        "undefined": undefined,
        "seconds": 0.25,
    }


def part(rows_: list[dict], number: int) -> dict:
    return {
        "rows": rows_,
        "object_pixels": {"median": 20.0 * (number + 1), "limits": [1, 2]},
        "seconds": {"features": 2.0, "scores": 1.0},
    }


def tuning(value: float, truth: float) -> dict:
    return {
        "map": value,
        "seconds": 60.0,
        "iterations": 240,
        "loss": 1.0 - float(truth),
        "val_curve": [
            {"iteration": 120, "map": value / 2, "ap50": value},
            {"iteration": 240, "map": value, "ap50": value},
        ],
    }


def question(gains: bool = True) -> Question:
    return Question(CHOOSE_ON, METRICS, tuple(map(rule_named, RULES)), UNTRAINED, gains)
