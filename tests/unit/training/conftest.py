"""A toy detection set of two glyphs, made once; torch with one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from worker.data.dataset import Dataset, open_dataset
from worker.data.glyphs import Glyphs, digits
from worker.data.ingest import ingest
from worker.data.synthetic import Scenes, synth

torch.set_num_threads(1)
CLASSES = (0, 1, 7)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 x 64 scenes of three digits: 14 images in train, 4 in val, 6 in test; val was drawn from train."""
    folder = tmp_path_factory.mktemp("toy")
    glyphs = digits()
    chosen = np.isin(glyphs.labels, CLASSES)
    labels = np.searchsorted(CLASSES, glyphs.labels[chosen])
    synth(
        folder / "raw",
        Glyphs(glyphs.images[chosen], labels, tuple(map(str, CLASSES))),
        Scenes(image_size=64, min_size=20, max_size=36, max_objects=3),
        images_train=18,
        images_test=6,
        seed=3,
    )
    ingest(folder / "raw", folder / "canonical", seed=1)
    return open_dataset(folder / "canonical")


@pytest.fixture
def global_random() -> object:
    """Fails a test that moves torch's or numpy's global generators."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state().clone(), np.random.get_state()[2]
    yield None
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"
