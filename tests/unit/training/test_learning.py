"""What training is for: on scenes that can be learned the loss falls and the detector finds what it did not find before."""

from pathlib import Path

import pytest
from small_training import fresh, ids, recipe, small_plan

from models_store.detector import Detector
from worker.data.dataset import Dataset, open_dataset
from worker.data.glyphs import Glyphs, digits
from worker.data.ingest import ingest
from worker.data.synthetic import Scenes, synth
from worker.training.fine_tune import train
from worker.training.inputs import Ids
from worker.training.pictures import Pictures
from worker.training.recipe import Augmentation, Phase
from worker.training.validate import evaluated

import numpy as np  # isort: skip


@pytest.fixture(scope="module")
def zeros_and_ones(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 scenes of 64 x 64 with one or two large digits of two classes; 20 more for validation, 20 for test."""
    folder = tmp_path_factory.mktemp("learnable")
    glyphs = digits()
    chosen = np.isin(glyphs.labels, (0, 1))
    synth(
        folder / "raw",
        Glyphs(glyphs.images[chosen], glyphs.labels[chosen], ("0", "1")),
        Scenes(image_size=64, min_size=24, max_size=40, max_objects=2),
        images_train=140,
        images_test=20,
        seed=5,
    )
    ingest(folder / "raw", folder / "canonical", seed=1, val_fraction=1 / 7)
    return open_dataset(folder / "canonical")


def two_stage() -> Detector:
    return fresh("detrank/fasterrcnn_fpn", "torchvision/squeezenet1_1", classes=2)


def ssd() -> Detector:
    return fresh("torchvision/ssdlite320_mobilenet_v3_large", classes=2)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "iterations", "size"), [(two_stage, 36, 64), (ssd, 180, 96)])
def test_a_detector_learns_to_find_digits(
    make, iterations: int, size: int, zeros_and_ones: Dataset, tmp_path: Path
) -> None:
    detector = make()
    wanted = recipe(
        phases=(Phase(1, 1e-3),),
        backbone_lr_factor=1.0,
        rois=32,
        augmentation=Augmentation(),
        warmup_iterations=10,
    )
    plan = small_plan(
        detector,
        120,
        wanted,
        iterations=iterations,
        batch_size=4,
        image_size=size,
        evaluations=2,
        freeze="none",
    )
    splits = {name: ids(zeros_and_ones, name) for name in ("train", "val", "test")}
    before = evaluated(
        detector, zeros_and_ones, splits["test"], Pictures(), size, threads=1, check=lambda: None
    )
    trained = train(detector, zeros_and_ones, plan, Ids(**splits), tmp_path)
    first, last = (np.mean([p["loss"] for p in part]) for part in (trained.curves[:10], trained.curves[-10:]))
    assert last < 0.6 * first
    assert before.box["ap50"] < 0.1
    assert trained.test.box["ap50"] > 0.3
    assert trained.test.box["map"] > before.box["map"] + 0.1
