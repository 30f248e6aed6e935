"""Scenes whose boxes are known and hidden, a small network without training, and the regions of the scenes; made once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm import create_model

from models_store import load_detector
from models_store.conversion import Request, convert_here
from models_store.detector import Detector
from models_store.limits import Limits
from models_store.load import digest_of
from tests.squares import squares
from tests.unit.pseudo_boxes.scenes import scenes
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.pseudo_boxes.image_label_teacher import ImageLabelSettings, ImageLabelTeacher
from worker.pseudo_boxes.instance_learning import LearningSettings
from worker.pseudo_boxes.region_features import FeatureSettings

torch.set_num_threads(1)

QUICK = ImageLabelSettings(
    features=FeatureSettings(("backbone.c3",), 96, grid=2, context=1.8),
    learning=LearningSettings(epochs=3, hidden=32),
)


def untrained(name: str, folder: Path) -> Detector:
    """A timm network with its library's first weights, converted as an uploaded file is."""
    torch.manual_seed(0)
    path = folder / "body.pth"
    torch.save(create_model(name).state_dict(), path)
    out = folder / "converted"
    out.mkdir()
    convert_here(Request(path, digest_of(path), path.name, out, f"timm/{name}", None, {}, Limits()))
    return load_detector(out)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 x 64 pictures of two squares: 24 in train, 3 in val, 3 in test."""
    folder = tmp_path_factory.mktemp("toy")
    ingest(squares(folder / "raw", images=24), folder / "canonical", seed=1)
    return open_dataset(folder / "canonical")


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 scenes of 96 x 96 pixels, all in training."""
    folder = tmp_path_factory.mktemp("few")
    ingest(scenes(folder / "raw", 24), folder / "canonical", seed=1)
    return open_dataset(folder / "canonical")


@pytest.fixture(scope="session")
def small_body(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return untrained("test_resnet", tmp_path_factory.mktemp("body"))


@pytest.fixture(scope="session")
def quick(small_body: Detector) -> ImageLabelTeacher:
    return ImageLabelTeacher(small_body, QUICK)


@pytest.fixture(scope="session")
def looked(quick: ImageLabelTeacher, few: Dataset) -> dict[int, dict[str, np.ndarray]]:
    """What the quick teacher saw in the scenes."""
    return {image.id: arrays for image, arrays in quick.look(few.images)}
