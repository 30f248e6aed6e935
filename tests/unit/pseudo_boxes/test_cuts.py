"""Cuts: the sparse eigenvectors are the dense ones, the attention is the network's own, boxes lie where the tokens differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from timm import create_model

from models_store.detector import Detector
from tests.unit.pseudo_boxes.conftest import QUICK, untrained
from worker.data.dataset import Dataset
from worker.data.pictures import read_rgb
from worker.pseudo_boxes.attention import Tokens, tokens_of, transformer_of
from worker.pseudo_boxes.cuts import CutSettings, boxes_of, cut_boxes
from worker.pseudo_boxes.image_label_teacher import ImageLabelTeacher
from worker.pseudo_boxes.normalised_cuts import affinity_of, cut_vectors
from worker.pseudo_boxes.pseudo_boxes import Unteachable
from worker.pseudo_boxes.regions import RegionSettings


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return untrained("test_vit", tmp_path_factory.mktemp("vit"))


def scene(height: int = 12, width: int = 16, seed: int = 0) -> Tokens:
    """Ground, and two objects that are unlike it and each other; the class token looks at both."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 1, (3, 24))
    kinds = np.zeros((height, width), int)
    kinds[2:7, 3:8], kinds[6:11, 10:15] = 1, 2
    vectors = means[kinds.ravel()] + rng.normal(0, 0.25, (height * width, 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Tokens((kinds > 0) + rng.uniform(0, 0.1, kinds.shape), vectors.astype(np.float32))


def test_cuts_are_those_of_the_whole_matrix() -> None:
    vectors = scene().vectors
    similar = (vectors @ vectors.T).astype(np.float64)
    whole = np.where(similar > 0.2, similar, 1e-5)
    degrees = np.diag(whole.sum(axis=1))
    values, wanted = eigh(degrees - whole, degrees, subset_by_index=[1, 4])
    found_values, found = cut_vectors(affinity_of(vectors, 0.2), 4)
    assert found_values == pytest.approx(values, abs=1e-5)
    for column in range(2):  # the others lie close together
        cosine = found[:, column] @ degrees @ wanted[:, column]
        assert abs(cosine) == pytest.approx(1, abs=1e-3)
        assert found[np.abs(found[:, column]).argmax(), column] > 0


def test_both_objects_are_among_the_boxes() -> None:
    found = boxes_of(scene(), CutSettings())
    boxes = found[:, :4] * np.array([16, 12, 16, 12])
    for wanted in ([3, 2, 8, 7], [10, 6, 15, 11]):
        assert np.abs(boxes - wanted).max(axis=1).min() < 1e-9, wanted
    assert len(np.unique(found[:, :4], axis=0)) == len(found)
    assert (found[:, 4] >= CutSettings().least).all()


def test_little_to_cut_gives_no_box_and_no_error() -> None:
    ones = np.ones((4, 8), np.float32) / np.sqrt(np.float32(8))
    assert len(boxes_of(Tokens(np.ones((2, 2)), ones), CutSettings())) == 0
    assert len(boxes_of(Tokens(np.ones((1, 1)), ones[:1]), CutSettings())) == 0


def test_attention_is_the_networks_own(small_vit: Detector, few: Dataset) -> None:
    pixels = read_rgb(few.images[0].path)
    found = tokens_of(small_vit, pixels, 96)
    torch.manual_seed(0)
    net = create_model("test_vit", dynamic_img_size=True).eval()
    seen: list[torch.Tensor] = []
    last = net.blocks[-1].attn
    last.fused_attn = False
    last.attn_drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    last.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net.forward_features(small_vit.prepare([pixels], 96))
    weights, mixed = seen
    assert found.attention.shape == (6, 6)
    assert np.allclose(found.attention.ravel(), weights[0, :, 0, 1:].mean(0).numpy(), atol=1e-5)
    wanted = torch.nn.functional.normalize(mixed[0, 1:], dim=1).numpy()
    assert np.allclose(found.vectors, wanted, atol=1e-4)


def test_boxes_of_a_picture_are_the_same_each_time_and_inside(small_vit: Detector, few: Dataset) -> None:
    pixels = read_rgb(few.images[0].path)
    settings = CutSettings(scales=(96, 160))
    once, again = cut_boxes(small_vit, pixels, settings), cut_boxes(small_vit, pixels, settings)
    assert np.array_equal(once, again)
    assert once.shape[1] == 4
    assert len(once) > 0
    assert once.min() >= 0
    assert once.max() <= 1
    assert (once[:, 2:] > once[:, :2]).all()


def test_cuts_are_regions_of_the_teacher(small_vit: Detector, few: Dataset) -> None:
    regions = RegionSettings(("cuts", "selective_search"), cuts=CutSettings(scales=(96,)))
    features = replace(QUICK.features, layers=())
    teacher = ImageLabelTeacher(small_vit, replace(QUICK, regions=regions, features=features))
    [(image, arrays)] = teacher.look(few.images[:1])
    assert image.id == few.images[0].id
    assert len(arrays["boxes"]) == len(arrays["vectors"]) > 0


def test_a_convolutional_network_has_no_attention(small_body: Detector, tmp_path: Path) -> None:
    with pytest.raises(Unteachable, match="vision transformer") as stopped:
        transformer_of(small_body)
    assert stopped.value.code == "no_attention"
