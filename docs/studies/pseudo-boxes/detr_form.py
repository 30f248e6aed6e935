"""What is the form `detr` of the teacher `image_labels` worth? Beside study.py, on the same pictures, backbone and regions.

    python docs/studies/pseudo-boxes/detr_form.py --data FOLDER --work WORK [--datasets dinars,cards] [--epochs 12]

Learns from the classes of the training pictures; judges by their hidden boxes what its regions say, and by the boxes of the
validation pictures what the detector finds there by itself. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import models_store
from models_store.detector import Detector
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.evaluation.evaluate import evaluate
from worker.pseudo_boxes.image_label_detr import DetrSettings, DetrTeacher
from worker.training.inputs import Watch
from worker.training.pictures import Pictures
from worker.training.validate import predictions_of

BACKBONE = "efficientnet_lite0_imagenet"
# small, for minutes of a CPU
CONFIG = {
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "num_queries": 30,
}
PIXELS = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--datasets", default="dinars,cards")
    parser.add_argument("--epochs", type=float, default=12)
    asked = parser.parse_args()
    backbone = converted(asked.data, asked.work)
    for name in asked.datasets.split(","):
        told = learned(canonical(asked.data / "datasets" / name, asked.work / name), backbone, asked, name)
        print(json.dumps({"dataset": name} | told), flush=True)


def canonical(raw: Path, work: Path) -> Dataset:
    out = work / "canonical"
    if not (out / "annotations.json").is_file():
        ingest(raw, out, seed=0)
    return open_dataset(out)


def converted(data: Path, work: Path) -> Detector:
    out = work / "candidates" / BACKBONE
    if not (out / "manifest.json").is_file():
        [file] = (data / "weights" / BACKBONE).glob("*.safetensors")
        models_store.convert(file, out, overrides={"mean": [0.5] * 3, "std": [0.5] * 3})
    return models_store.load_detector(out)


def learned(dataset: Dataset, backbone: Detector, asked: argparse.Namespace, name: str) -> dict[str, Any]:
    path = asked.work / name / f"detr-{asked.epochs:g}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    begun = time.process_time()
    settings = DetrSettings(config=CONFIG, image_size=PIXELS, epochs=asked.epochs)
    teacher = DetrTeacher(backbone, settings)
    images = [image for image in dataset.images if image.split == "train"]
    looked = {image.id: arrays for image, arrays in teacher.look(images)}
    made = teacher.teach(dataset, looked, asked.work / name / "state", watch=Watch(point=said))
    said_of = evaluate(dataset, list(looked), list(made.said.found.values()))
    told = {
        "pictures": len(looked),
        "regions": {"corloc": said_of.corloc, "ap50": said_of.box["ap50"], "boxes": made.said.boxes},
        "curves": made.curves,
        "cpu_s": time.process_time() - begun,
    }
    for split in ("train", "val"):
        told[split] = by_itself(dataset, made.detector, split)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def by_itself(dataset: Dataset, detector: Detector, split: str) -> dict[str, Any]:
    images = [image for image in dataset.images if image.split == split]
    with Pictures() as pictures:
        found = predictions_of(detector, images, pictures, PIXELS, threads=1, check=lambda: None)
    ended = evaluate(dataset, [image.id for image in images], found)
    return {"pictures": len(images), "corloc": ended.corloc, "ap50": ended.box["ap50"], "map": ended.map}


def said(point: dict[str, Any]) -> None:
    if "val" in point:
        print(point["iteration"], f"{point['loss']:.3f}", point["val"], flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
