"""What are boxes from image labels worth? Real pictures whose boxes are hidden, minutes on a CPU.

    python docs/studies/pseudo-boxes/study.py --data FOLDER --work WORK [--datasets dinars,rice_pests,cards]

For each dataset: pseudo boxes of its training pictures by several methods over one backbone and the same regions, held
against the hidden boxes; candidates ranked on pseudo boxes and on true ones. What is done is kept in WORK and not done again; the tables are written beside this file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr

import models_store
from models_store.instances.losses import Refinement
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.data.pictures import read_rgb
from worker.evaluation.evaluate import evaluate
from worker.evaluation.matching import pairwise_iou
from worker.evaluation.prediction import Prediction
from worker.metrics import FeatureSet, score
from worker.pseudo_boxes.image_label_teacher import ImageLabelSettings, ImageLabelTeacher, say_from
from worker.pseudo_boxes.image_labels import present_of
from worker.pseudo_boxes.instance_learning import LearningSettings
from worker.pseudo_boxes.looked import Looked, save
from worker.pseudo_boxes.pseudo_boxes import Arrays, PseudoBoxes
from worker.pseudo_boxes.region_features import FeatureSettings, region_vectors

HERE = Path(__file__).parent
BACKBONE = "efficientnet_lite0_imagenet"
CANDIDATES = (
    BACKBONE,
    "mobilenet_v2_imagenet_b",
    "mobilenet_v2_from_coco_ssd",
    "mobilenet_v2_from_hand_ssd",
    "mobilenet_v2_skin",
    "squeezenet1_1_imagenet",
)
CELLS = 4  # of a region in our features, before what is around it
# More units, less dropout, more epochs: what clean shapes are found with.
FREE = LearningSettings(epochs=30, hidden=256, dropout=0.3)
# WSDDN and OICR on the same regions and maps: one cell, the best region alone teaches, no moves, nothing around.
LEARNING = {
    "oicr_as_published": replace(FREE, moves=False),
    "ours": LearningSettings(),
    "ours_without_moves": LearningSettings(moves=False),
    "ours_in_cells": FREE,
    "ours_in_cells_several_seeds": replace(FREE, refinement=Refinement(share=0.1)),
}
ONE_CELL = ("oicr_as_published", "ours", "ours_without_moves")
METHODS = ("random_region", "largest_region", *LEARNING)
METRIC = "logme"
RESAMPLED = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--datasets", default="dinars,rice_pests,cards")
    parser.add_argument("--stages", default="boxes,ranking")
    parser.add_argument("--report-only", action="store_true")
    asked = parser.parse_args()
    names = asked.datasets.split(",")
    stages = {"boxes": boxes_stage, "ranking": ranking_stage}
    if not asked.report_only:
        for stage in asked.stages.split(","):
            for name in names:
                dataset = canonical(asked.data / "datasets" / name, asked.work / name / "canonical")
                stages[stage](dataset, asked.data, asked.work / name)
                print(f"{name}: {stage} done", flush=True)
    report(names, asked.work)


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.is_file():
        wall, cpu = time.perf_counter(), time.process_time()
        made = make()
        made |= {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def canonical(raw: Path, out: Path) -> Dataset:
    if not (out / "annotations.json").is_file():
        ingest(raw, out, seed=0)
    return open_dataset(out)


def converted(data: Path, name: str, work: Path) -> Any:
    out = work.parent / "candidates" / name
    if not (out / "manifest.json").is_file():
        [file] = (data / "weights" / name).glob("*.safetensors")
        # Its SOURCE.txt says so; the others take ImageNet's.
        own = {"mean": [0.5] * 3, "std": [0.5] * 3} if name == BACKBONE else {}
        models_store.convert(file, out, overrides=own)
    return models_store.load_detector(out)


def of_split(dataset: Dataset, split: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == split]


# boxes


def boxes_stage(dataset: Dataset, data: Path, work: Path) -> None:
    looked = looked_at(dataset, data, work)
    kept(work / "regions.json", lambda: regions_of(dataset, looked))
    for method in METHODS:
        kept(work / f"boxes-{method}.json", lambda method=method: told_by(method, dataset, looked, work))


def looked_at(dataset: Dataset, data: Path, work: Path) -> Mapping[int, Arrays]:
    path = work / "looked.safetensors"
    if not path.is_file():
        features = FeatureSettings(grid=2, context=1.8)
        teacher = ImageLabelTeacher(converted(data, BACKBONE, work), ImageLabelSettings(features=features))
        images = [image for image in dataset.images if image.split == "train"]
        save(path, {image.id: arrays for image, arrays in teacher.look(images)})
    return Looked([path])


def regions_of(dataset: Dataset, looked: Mapping[int, Arrays]) -> dict[str, Any]:
    """How many there are, and how many true objects one of them covers: what no choice among them can exceed."""
    best = []
    for id in looked:
        own = dataset.boxes[(dataset.annotation_image_ids == id) & ~dataset.aside]
        if len(own):
            best.append(pairwise_iou(own, looked[id]["boxes"].astype(float)).max(axis=1, initial=0.0))
    counts = [len(looked[id]["boxes"]) for id in looked]
    every = np.concatenate(best)
    return {
        "pictures": len(looked),
        "objects": len(every),
        "regions": float(np.mean(counts)),
        "covered": float((every >= 0.5).mean()),
    }


def told_by(method: str, dataset: Dataset, looked: Mapping[int, Arrays], work: Path) -> dict[str, Any]:
    present = present_of(dataset, looked)
    about: dict[str, Any] = {}
    if method in LEARNING:
        settings = ImageLabelSettings(learning=LEARNING[method])
        seen = {id: one_cell(looked[id]) for id in looked} if method in ONE_CELL else looked
        made: PseudoBoxes = say_from(dataset, seen, present, settings)
        found, about = dict(made.found), {"curves": made.about["curves"], "removed": made.about["removed"]}
    else:
        found = {id: plain(method, id, looked[id]["boxes"], own) for id, own in present.items()}
    np.savez_compressed(
        work / f"boxes-{method}.npz",
        ids=np.repeat(list(found), [len(each.boxes) for each in found.values()]),
        **{
            part: np.concatenate([getattr(f, part) for f in found.values()])
            for part in ("boxes", "scores", "labels")
        },
    )
    ended = evaluate(dataset, list(present), list(found.values()))
    return {
        "corloc": ended.corloc,
        "ap50": ended.box["ap50"],
        "map": ended.map,
        "boxes": sum(len(each.boxes) for each in found.values()),
        "corloc_of_classes": {row["category"]: row["corloc"] for row in ended.per_class},
        **about,
    }


def one_cell(arrays: Arrays) -> dict[str, np.ndarray]:
    vectors = arrays["vectors"].astype(np.float32)
    cells = vectors.reshape(len(vectors), CELLS + 1, -1)[:, :CELLS]
    return {"boxes": arrays["boxes"], "vectors": cells.mean(axis=1).astype(np.float16)}


def plain(method: str, image_id: int, regions: np.ndarray, present: np.ndarray) -> Prediction:
    classes = np.flatnonzero(present)
    if not len(regions):
        return Prediction(image_id, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    if method == "largest_region":
        rows = np.full(len(classes), np.prod(regions[:, 2:] - regions[:, :2], axis=1).argmax())
    else:
        rows = np.random.default_rng([0, image_id]).integers(len(regions), size=len(classes))
    return Prediction(image_id, regions[rows].astype(np.float64), np.ones(len(classes)), classes)


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


# ranking


def ranking_stage(dataset: Dataset, data: Path, work: Path) -> None:
    for candidate in CANDIDATES:
        path = work / f"objects-{candidate}.npz"
        if not path.is_file():
            np.savez(path, **objects_of(dataset, converted(data, candidate, work), work))
    kept(work / "ranking.json", lambda: ranked(work))


def objects_of(dataset: Dataset, candidate: Any, work: Path) -> dict[str, np.ndarray]:
    """Vectors of true and of pseudo boxes of the training pictures, with labels and image ids."""
    settings = FeatureSettings(image_size=320, grid=1, context=1.0)
    pseudo = read_boxes(work / "boxes-ours.npz")
    columns: dict[str, list[np.ndarray]] = {}
    for image in dataset.images:
        if image.split != "train":
            continue
        own = (dataset.annotation_image_ids == image.id) & ~dataset.aside
        theirs = pseudo["ids"] == image.id
        kinds = {
            "true": (dataset.boxes[own], dataset.labels[own]),
            "pseudo": (pseudo["boxes"][theirs], pseudo["labels"][theirs]),
        }
        boxes = np.concatenate([boxes for boxes, _ in kinds.values()]).astype(np.float32)
        vectors = region_vectors(candidate, read_rgb(image.path), boxes, settings)
        for kind, (some, labels) in kinds.items():
            mine, vectors = vectors[: len(some)], vectors[len(some) :]
            for part, values in (
                ("vectors", mine),
                ("labels", labels),
                ("ids", np.full(len(some), image.id)),
            ):
                columns.setdefault(f"{kind}_{part}", []).append(values)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def ranked(work: Path) -> dict[str, Any]:
    found = {name: read_boxes(work / f"objects-{name}.npz") for name in CANDIDATES}
    ids = np.unique(found[BACKBONE]["true_ids"])
    rng = np.random.default_rng(0)
    scores = {kind: [worth(one, kind, ids) for one in found.values()] for kind in ("true", "pseudo")}
    correlations = []
    for _ in range(RESAMPLED):
        # Halves: a picture that is drawn twice is foretold by itself, which LogME rewards.
        drawn = rng.choice(ids, len(ids) // 2, replace=False)
        pair = [[worth(one, kind, drawn) for one in found.values()] for kind in ("true", "pseudo")]
        correlations.append((spearmanr(*pair).statistic, kendalltau(*pair).statistic))
    low, high = np.nanpercentile(np.array(correlations), [2.5, 97.5], axis=0)
    return {
        "candidates": list(CANDIDATES),
        "scores": scores,
        "spearman": float(spearmanr(scores["true"], scores["pseudo"]).statistic),
        "kendall": float(kendalltau(scores["true"], scores["pseudo"]).statistic),
        "spearman_interval": [float(low[0]), float(high[0])],
        "kendall_interval": [float(low[1]), float(high[1])],
        "resampled": RESAMPLED,
    }


def worth(one: Mapping[str, np.ndarray], kind: str, ids: np.ndarray) -> float:
    rows = np.concatenate([np.flatnonzero(one[f"{kind}_ids"] == id) for id in ids])
    made = score(
        FeatureSet(one[f"{kind}_vectors"][rows].astype(np.float32), one[f"{kind}_labels"][rows]), [METRIC]
    )
    value = made[METRIC].value
    return float("nan") if value is None else float(value)


# report


def read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def report(names: list[str], work: Path) -> None:
    lines = [
        "| dataset | pictures | objects | regions of a picture | objects that one covers |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        if one := read(work / name / "regions.json"):
            lines.append(
                f"| {name} | {one['pictures']} | {one['objects']} | {one['regions']:.0f} | {100 * one['covered']:.0f} % |"
            )
    lines += ["", "| dataset | boxes by | CorLoc | AP50 | boxes | CPU s |", "|---|---|---|---|---|---|"]
    for name in names:
        for method in METHODS:
            if one := read(work / name / f"boxes-{method}.json"):
                lines.append(
                    f"| {name} | {method} | {100 * one['corloc']:.1f} | {100 * one['ap50']:.1f} | {one['boxes']} | "
                    f"{one['cpu_s']:.0f} |"
                )
    lines += [
        "",
        f"| dataset | {METRIC}: Spearman, of halves | Kendall, of halves | best by true, by pseudo boxes |",
        "|---|---|---|---|",
    ]
    for name in names:
        if one := read(work / name / "ranking.json"):
            ends = {
                kind: "{:.2f} to {:.2f}".format(*one[f"{kind}_interval"]) for kind in ("spearman", "kendall")
            }
            best = [one["candidates"][int(np.argmax(one["scores"][kind]))] for kind in ("true", "pseudo")]
            lines.append(
                f"| {name} | {one['spearman']:.2f}, {ends['spearman']} | {one['kendall']:.2f}, {ends['kendall']} | "
                f"{best[0]}, {best[1]} |"
            )
    text = "\n".join(lines) + "\n"
    (HERE / "report.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
