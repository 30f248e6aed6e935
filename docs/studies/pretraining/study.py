"""Was pretraining worth it? Real pictures, a small Deformable DETR, minutes on a CPU.

    python docs/studies/pretraining/study.py --data FOLDER --work WORK [--datasets pennfudan,cacao,potholes] [--seeds 0,1,2]

For each dataset: a MobileNetV2 (ImageNet) in a small Deformable DETR is pretrained on the training pictures without their
labels (DETReg); then the same fine-tuning with 5 % of the labels starts from everything random, from the backbone alone, from
the pretrained detector, and (self-training) as a student of what the backbone alone became. Subset, order and draws are the
same for all arms of a seed. What is done is kept in WORK and not done again; the tables are written beside this file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import models_store
from models_store.build import architecture_of, build_module
from models_store.detector import Detector
from models_store.pretraining import OBJECT, placed_over
from models_store.save import save_detector
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.data.subsets import draw
from worker.pretraining.pretrain import prepared, pretrain
from worker.pretraining.proposals import load, proposed, save
from worker.pretraining.recipe import pretraining_plan_of
from worker.pretraining.worth import gain_of, sentence
from worker.pseudo_boxes.pseudo_boxes import Unteachable
from worker.pseudo_boxes.self_training import pseudo_labelled, student_plan
from worker.training.fine_tune import train
from worker.training.inputs import Ids, Watch
from worker.training.plan import Plan, plan_of

HERE = Path(__file__).parent
BACKBONE = "weights/mobilenet_v2_imagenet_b/mobilenet_v2_features.fp16.safetensors"
CONFIG = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 40,
}
PRETRAINING = {
    "iterations": 120,
    "image_size": 128,
    "batch_size": 8,
    "max_proposals": 15,
    "lr_factor": 5.0,
    "evaluations": 4,
    "seed": 0,
}
CROP = 64
FINE_TUNING = {"iterations": 80, "image_size": 128, "batch_size": 4, "lr_factor": 3.0, "evaluations": 2}
FRACTION = 0.05
ARMS = ("random", "backbone", "pretrained", "self_training")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--datasets", default="pennfudan,cacao,potholes")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--report-only", action="store_true")
    asked = parser.parse_args()
    names, seeds = asked.datasets.split(","), [int(word) for word in asked.seeds.split(",")]
    if not asked.report_only:
        backbone = converted(asked.data / BACKBONE, asked.work / "backbone")
        arms = asked.arms.split(",")
        # Whole rounds before the next, the baseline that is no start last: one that is cut short knows something of all.
        for kind in ([a for a in arms if a != "self_training"], [a for a in arms if a == "self_training"]):
            for seed in seeds:
                for name in names:
                    one_dataset(name, asked.data, asked.work / name, backbone, seed, kind)
    report(names, asked.work)


def one_dataset(name: str, data: Path, work: Path, backbone: Path, seed: int, arms: list[str]) -> None:
    dataset = canonical(data / "datasets" / name, work / "canonical")
    start = fresh(backbone, work / "start")
    kept(work / "pretrained.json", lambda: pretrained(dataset, start, backbone, work))
    for arm in arms:
        result = work / f"{arm}-{seed}.json"
        made = kept(result, lambda arm=arm: tuned(arm, dataset, work, seed))
        print(f"{name} seed {seed} {arm}: AP50 {made['ap50']:.3f}, mAP {made['map']:.3f}", flush=True)


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.is_file():
        began = time.perf_counter()
        made = make() | {"wall_s": round(time.perf_counter() - began, 1)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def canonical(raw: Path, out: Path) -> Dataset:
    if not (out / "annotations.json").is_file():
        ingest(raw, out, seed=0)
    return open_dataset(out)


def converted(weights: Path, out: Path) -> Path:
    if not (out / "manifest.json").is_file():
        models_store.convert(weights, out, architecture="torchvision/mobilenet_v2")
    return out


def fresh(backbone: Path, out: Path) -> Path:
    """The backbone in a fresh detector."""
    if not (out / "manifest.json").is_file():
        placed = placed_over(models_store.load_detector(backbone), "deformable_detr", config=CONFIG, seed=0)
        saved = save_detector(placed, out, class_names=OBJECT, lineage={})
        saved.but(initialised_keys=placed.manifest.initialised_keys, layers=placed.layers).write(out)
    return out


def pretrained(dataset: Dataset, start: Path, backbone: Path, work: Path) -> dict[str, Any]:
    began = time.perf_counter()
    kept_regions = work / "regions.safetensors"
    if not kept_regions.is_file():
        save(kept_regions, {image.id: boxes for image, boxes in proposed(dataset.images, "selective_search")})
    found = load(kept_regions)
    searched_s = time.perf_counter() - began
    detector = prepared(
        models_store.load_detector(start), models_store.load_detector(backbone), "backbone.c3", None, 0
    )
    ids = of_split(dataset, "train")
    plan = pretraining_plan_of("detreg_quick", manifest=detector.manifest, images=len(ids), **PRETRAINING)
    plan = replace(plan, regions=replace(plan.regions, crop_size=CROP))
    made = pretrain(
        detector,
        dataset,
        plan,
        Ids(ids, of_split(dataset, "val"), []),
        found,
        work / "pretraining-state",
        watch=Watch(
            progress=lambda done, total, said: (
                print(f"pretraining {done}/{total} {said}", flush=True) if done % 50 == 0 else None
            )
        ),
    )
    save_detector(made.detector, work / "pretrained", class_names=OBJECT, lineage={})
    curves = [
        {"epoch": p["epoch"], "loss": p["loss"], **({"recall": p["val"]["recall"]} if "val" in p else {})}
        for p in made.curves
        if "val" in p or p is made.curves[0]
    ]
    return {
        "pictures": made.pictures,
        "proposing_s": round(searched_s, 1),
        "training_s": round(made.seconds, 1),
        "recall_before": made.start["recall"],
        "recall_after": made.end.recall,
        "curves": curves,
    }


def tuned(arm: str, dataset: Dataset, work: Path, seed: int) -> dict[str, Any]:
    subset = draw(dataset, fraction=FRACTION, seed=seed)
    if arm == "self_training":
        return student(dataset, work, seed)
    detector = starting(arm, work)
    return fine_tuned(detector, dataset, list(subset.image_ids), work / f"{arm}-{seed}", seed)


def starting(arm: str, work: Path) -> Detector:
    if arm == "pretrained":
        return models_store.load_detector(work / "pretrained")
    detector = models_store.load_detector(work / "start")
    if arm == "random":
        manifest = detector.manifest
        module = build_module(
            architecture_of(manifest.architecture),
            num_classes=1,
            input=manifest.input,
            backbone=manifest.backbone,
            options=manifest.options,
            seed=1,
        )
        detector.module.load_state_dict(module.state_dict())
    return detector


def fine_tuned(
    detector: Detector,
    dataset: Dataset,
    ids: list[int],
    folder: Path,
    seed: int,
    annotation_ids: list[int] | None = None,
    change: Callable[[Plan], Plan] = lambda plan: plan,
) -> dict[str, Any]:
    plan = change(plan_of("quick", manifest=detector.manifest, images=len(ids), seed=seed, **FINE_TUNING))
    made = train(
        detector,
        dataset,
        plan,
        Ids(ids, of_split(dataset, "val"), of_split(dataset, "test"), annotation_ids),
        folder / "state",
    )
    ended = made.test or made.val
    save_detector(made.detector, folder / "tuned", class_names=dataset.categories, lineage={})
    shutil.rmtree(folder / "state", ignore_errors=True)
    return {
        "map": ended.box["map"],
        "ap50": ended.box["ap50"],
        "val_ap50": made.val.box["ap50"],
        "measured_on": "test" if made.test is not None else "val",
        "images": len(ids),
        "seconds": round(made.seconds, 1),
    }


def student(dataset: Dataset, work: Path, seed: int) -> dict[str, Any]:
    """The backbone alone again, taught by what it became: on the labelled pictures and on what that says of the others."""
    labelled = list(draw(dataset, fraction=FRACTION, seed=seed).image_ids)
    unlabelled = [i for i in of_split(dataset, "train") if i not in set(labelled)]
    teacher = models_store.load_detector(work / f"backbone-{seed}" / "tuned")
    try:
        made = pseudo_labelled(
            teacher,
            dataset,
            labelled_ids=labelled,
            unlabelled_ids=unlabelled,
            val_ids=of_split(dataset, "val"),
            image_size=FINE_TUNING["image_size"],
        )
    except Unteachable as nothing:
        same = json.loads((work / f"backbone-{seed}.json").read_text(encoding="utf-8"))
        return {**same, "pseudo": None, "why": nothing.detail}
    ids = sorted({*labelled, *made.image_ids})
    result = fine_tuned(
        starting("backbone", work),
        made.dataset,
        ids,
        work / f"self_training-{seed}",
        seed,
        list(made.annotation_ids) + measured_on(made.dataset),
        lambda plan: student_plan(plan, len(ids)),
    )
    return result | {"pseudo": made.to_json()}


def measured_on(dataset: Dataset) -> list[int]:
    """Annotations of the other splits: what is learned from is named, what is measured on stays."""
    others = [image.id for image in dataset.images if image.split != "train"]
    return [
        int(id)
        for id, image_id in zip(dataset.annotation_ids, dataset.annotation_image_ids, strict=True)
        if int(image_id) in set(others)
    ]


def of_split(dataset: Dataset, split: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == split]


def report(names: list[str], work: Path) -> None:
    lines = [
        "| dataset | fine-tuned from | AP50, mean over seeds | by seed | mAP |",
        "|---|---|---|---|---|",
    ]
    gains = []
    values: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for name in names:
        for arm in ARMS:
            found = {
                int(path.stem.rpartition("-")[2]): json.loads(path.read_text(encoding="utf-8"))
                for path in sorted((work / name).glob(f"{arm}-*.json"))
            }
            values[name, arm] = found
            if found:
                ap50 = [one["ap50"] for one in found.values()]
                mean_map = sum(one["map"] for one in found.values()) / len(found)
                by_seed = ", ".join(f"{100 * value:.1f}" for value in ap50)
                lines.append(
                    f"| {name} | {arm} | {100 * sum(ap50) / len(ap50):.1f} | {by_seed} | {100 * mean_map:.1f} |"
                )
        for against in ("random", "backbone", "self_training"):
            pair = [{s: one["ap50"] for s, one in values[name, a].items()} for a in ("pretrained", against)]
            if all(pair):
                gains.append(f"- {name}: {sentence(FRACTION, against, gain_of(*pair))}")
    lines += ["", "Gains of the pretrained arm, seed by seed, with 95 % t intervals:", "", *gains, ""]
    lines += [
        "| dataset | pictures | recall@30 of objects before, after | of regions before, after | loss first, last | seconds: regions, training |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        path = work / name / "pretrained.json"
        if not path.is_file():
            continue
        one = json.loads(path.read_text(encoding="utf-8"))
        before, after = one["recall_before"], one["recall_after"]
        told = [f"{side[kind]['30']:.3f}" for kind in ("objects", "proposals") for side in (before, after)]
        curves = one["curves"]
        lines.append(
            f"| {name} | {one['pictures']} | {told[0]}, {told[1]} | {told[2]}, {told[3]} | "
            f"{curves[0]['loss']:.2f}, {curves[-1]['loss']:.2f} | {one['proposing_s']:.0f}, {one['training_s']:.0f} |"
        )
    text = "\n".join(lines) + "\n"
    (HERE / "report.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
