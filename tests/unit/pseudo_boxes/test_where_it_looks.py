"""Maps of what a detector's surest query attends to, and the picture that is drawn of them."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from models_store.detector import Detector
from models_store.detr.attention import looked_at
from models_store.instances.detector import taught_by_labels
from tests.unit.pseudo_boxes.test_image_label_detr import TINY
from worker.data.dataset import Dataset
from worker.data.pictures import read_rgb
from worker.pseudo_boxes.pictures import attention_on


def detector_of(body: Detector, model_type: str) -> Any:
    return taught_by_labels(body, ("a", "b"), model_type=model_type, config=TINY).without_branch()


def test_detr_looks_where_its_own_weights_say(small_body: Detector, few: Dataset) -> None:
    """Equal to the weights that transformers gives when it is asked for them."""
    detector = detector_of(small_body, "detr")
    pixels = read_rgb(few.images[0].path)
    found = looked_at(detector, pixels, 192)
    detector.module.set_attn_implementation("eager")
    outputs = detector.module(pixel_values=detector.prepare([pixels], 192), output_attentions=True)
    query = int(outputs.logits[0].softmax(-1)[:, :-1].max(dim=1).values.argmax())
    theirs = outputs.cross_attentions[-1][0, :, query].mean(dim=0).detach().numpy()
    assert found.attention.shape == (6, 6)
    assert np.allclose(found.attention.ravel(), theirs, atol=1e-5)
    assert found.attention.sum() == pytest.approx(1)
    assert found.score == pytest.approx(float(outputs.logits[0].softmax(-1)[query, :-1].max()), abs=1e-5)


def test_deformable_detr_looks_around_its_references(small_body: Detector, few: Dataset) -> None:
    """Without offsets every point of a query lies at its reference, so one cell has all of the weight."""
    detector = detector_of(small_body, "deformable_detr")
    pixels = read_rgb(few.images[0].path)
    assert (looked_at(detector, pixels, 128).attention > 1e-6).sum() > 1
    offsets = detector.module.model.decoder.layers[-1].encoder_attn.sampling_offsets
    with torch.no_grad():
        offsets.weight.zero_()
        offsets.bias.zero_()
        outputs = detector.module(pixel_values=detector.prepare([pixels], 128))
    query = int(outputs.logits[0].sigmoid().max(dim=1).values.argmax())
    x, y = outputs.init_reference_points[0, query, :2].tolist()
    found = looked_at(detector, pixels, 128)
    assert found.attention.shape == (8, 8)
    assert found.attention[int(y * 8), int(x * 8)] == pytest.approx(1, abs=1e-4)
    assert found.box.min() >= 0
    assert found.box.max() <= 96


def test_what_is_looked_at_is_red(tmp_path: Path) -> None:
    attention = np.zeros((4, 4))
    attention[0, 3] = 1.0
    path = attention_on(np.full((64, 64, 3), 120, np.uint8), attention, tmp_path / "seen.png")
    drawn = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    height, width = drawn.shape[:2]
    red, plain = drawn[height // 10, width * 9 // 10], drawn[height * 9 // 10, width // 10]
    assert red[0] - red[2] > 100
    assert plain.tolist() == [120, 120, 120]
