"""What does a detector become on pseudo boxes, and how many true boxes would make it as good?

    python docs/studies/pseudo-boxes/detectors.py --data FOLDER --work WORK [--datasets cards,dinars] [--report-only]

One detector (SSDLite of COCO) is fine-tuned on every training picture with the pseudo boxes that `ours` of study.py gives, and
on true boxes of parts of the same pictures; all are tested on the true boxes of test. Validation, which chooses the epoch, has
true boxes in every arm. WORK is that of study.py; what is done is kept there and not done again.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from study import canonical, converted, kept, looked_at, of_split, read_boxes, told_by

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.data.subsets import draw
from worker.training.fine_tune import train
from worker.training.inputs import Ids
from worker.training.plan import plan_of

HERE = Path(__file__).parent
DETECTOR = "ssdlite_mobilenet_v2_coco"
FRACTIONS = (0.05, 0.1, 0.25, 1.0)
SIZE = {"iterations": 120, "image_size": 256, "batch_size": 4, "evaluations": 2}
SEEDS = (0,)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--datasets", default="cards,dinars,rice_pests")
    parser.add_argument("--report-only", action="store_true")
    asked = parser.parse_args()
    names = asked.datasets.split(",")
    for name in [] if asked.report_only else names:
        dataset = canonical(asked.data / "datasets" / name, asked.work / name / "canonical")
        for seed in SEEDS:
            for arm in ("pseudo", *FRACTIONS):
                made = one(arm, seed, dataset, asked.data, asked.work / name)
                print(
                    f"{name}, {arm}, seed {seed}: mAP {made['map']:.3f}, AP50 {made['ap50']:.3f}", flush=True
                )
    report(names, asked.work)


def one(arm: str | float, seed: int, dataset: Dataset, data: Path, work: Path) -> dict[str, Any]:
    def tuned() -> dict[str, Any]:
        detector: Detector = converted(data, DETECTOR, work)
        if isinstance(arm, float):
            return fine_tuned(
                detector, dataset, list(draw(dataset, fraction=arm, seed=seed).image_ids), seed, work
            )
        if not (work / "boxes-ours.npz").is_file():
            kept(
                work / "boxes-ours.json",
                lambda: told_by("ours", dataset, looked_at(dataset, data, work), work),
            )
        boxes = read_boxes(work / "boxes-ours.npz")
        # a picture without a pseudo box may hold objects
        return fine_tuned(
            detector, taught(dataset, boxes), np.unique(boxes["ids"]).astype(int).tolist(), seed, work
        )

    return kept(work / "detectors" / f"{arm}-{seed}.json", tuned)


def taught(dataset: Dataset, boxes: dict[str, np.ndarray]) -> Dataset:
    """The dataset with pseudo boxes in place of all that its training pictures have."""
    stay = ~np.isin(dataset.annotation_image_ids, of_split(dataset, "train"))
    count = len(boxes["ids"])

    def joined(own: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.concatenate([own[stay], new.astype(own.dtype)])

    first = int(dataset.annotation_ids.max()) + 1
    return replace(
        dataset,
        annotation_ids=joined(dataset.annotation_ids, np.arange(first, first + count)),
        annotation_image_ids=joined(dataset.annotation_image_ids, boxes["ids"]),
        labels=joined(dataset.labels, boxes["labels"]),
        boxes=joined(dataset.boxes, boxes["boxes"]),
        iscrowd=joined(dataset.iscrowd, np.zeros(count, bool)),
        ignored=None if dataset.ignored is None else joined(dataset.ignored, np.zeros(count, bool)),
        segmentations=None,
        scores=None,
    )


def fine_tuned(detector: Detector, dataset: Dataset, ids: list[int], seed: int, work: Path) -> dict[str, Any]:
    detector.replace_head(len(dataset.categories), seed)
    state = work / "detectors" / "state"
    shutil.rmtree(state, ignore_errors=True)
    plan = plan_of("quick", manifest=detector.manifest, images=len(ids), seed=seed, **SIZE)
    made = train(
        detector,
        dataset,
        plan,
        Ids(ids, of_split(dataset, "val"), of_split(dataset, "test")),
        state,
    )
    ended = made.test or made.val
    return {
        "map": ended.box["map"],
        "ap50": ended.box["ap50"],
        "measured_on": "test" if made.test is not None else "val",
        "pictures": len(ids),
        "boxes": int(np.isin(dataset.annotation_image_ids, ids).sum()),
        "seconds": round(made.seconds, 1),
    }


def reached(goal: float, fractions: list[float], found: list[float]) -> str:
    """The share of the pictures whose true boxes give `goal`, linear between measured shares; where it lies outside, on which side."""
    if goal < found[0]:
        return f"below {fractions[0]:.0%}"
    for at, (low, high) in enumerate(itertools.pairwise(found)):
        if low <= goal <= high:
            part = 0.0 if high == low else (goal - low) / (high - low)
            return f"{fractions[at] + part * (fractions[at + 1] - fractions[at]):.0%}"
    return "none measured"


def report(names: list[str], work: Path) -> None:
    lines = [
        "# Detectors on pseudo boxes and on true ones",
        "",
        f"mAP (AP50) on the true boxes of test; SSDLite of COCO, {SIZE['iterations']} steps of {SIZE['batch_size']} at {SIZE['image_size']} pixels, mean over seeds where there are several. *as good*: the share of the training pictures whose true boxes give the same mAP.",
        "",
        "| dataset | seeds | pseudo boxes | "
        + " | ".join(f"{part:.0%} true" for part in FRACTIONS)
        + " | as good |",
        "|---" * (len(FRACTIONS) + 4) + "|",
    ]
    for name in names:
        done = {
            seed: [work / name / "detectors" / f"{arm}-{seed}.json" for arm in ("pseudo", *FRACTIONS)]
            for seed in SEEDS
        }
        rows = [
            [kept(path, dict) for path in paths] for paths in done.values() if all(p.is_file() for p in paths)
        ]
        if not rows:
            continue
        maps, ap50s = (
            np.mean([[one[key] for one in row] for row in rows], axis=0) for key in ("map", "ap50")
        )
        cells = [f"{m:.3f} ({a:.3f})" for m, a in zip(maps, ap50s, strict=True)]
        lines.append(
            f"| {name} | {len(rows)} | {' | '.join(cells)} | {reached(maps[0], list(FRACTIONS), list(maps[1:]))} |"
        )
    (HERE / "detectors.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
