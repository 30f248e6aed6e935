"""A toy set, a tiny backbone and what selective search finds in it, made once; torch with one thread."""

from pathlib import Path

import pytest
import torch
from timm import create_model

from models_store import load_detector
from models_store.conversion import Request, convert_here
from models_store.limits import Limits
from models_store.load import digest_of
from tests.squares import squares
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.pretraining.proposals import proposed

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 x 64 pictures of two squares: 24 in train, 3 in val, 3 in test."""
    folder = tmp_path_factory.mktemp("toy")
    ingest(squares(folder / "raw", images=24), folder / "canonical", seed=1)
    return open_dataset(folder / "canonical")


@pytest.fixture(scope="session")
def found(toy: Dataset) -> dict:
    return {image.id: boxes for image, boxes in proposed(toy.images, "selective_search")}


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    path = folder / "body.pth"
    torch.save(create_model("test_resnet").state_dict(), path)
    out = folder / "converted"
    out.mkdir()
    convert_here(Request(path, digest_of(path), path.name, out, "timm/test_resnet", None, {}, Limits()))
    load_detector(out)
    return out
