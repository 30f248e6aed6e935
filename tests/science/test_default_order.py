"""The order that the service gives where nobody says otherwise, on real weights and pictures, against measured mAP.

The mAP is what docs/studies/real keeps of fine-tunings with two seeds. Pictures are read as the service reads them, at
another size than the study's.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

import models_store
from models_store.untrained import untrained
from worker.catalogue import DEFAULT_IMAGE_SIZE
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.features.regions import RegionSampling
from worker.features.spec import Spec
from worker.ranking.order import order
from worker.ranking.records import Candidate, Ordering, Scored, Target
from worker.ranking.rule import MATCHED_MAPS
from worker.studies.measures.agreement import weighted_tau
from worker.studies.measures.scoring import ScoringSpec as Asked
from worker.studies.measures.scoring import score_detector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TUNINGS = Path(__file__).resolve().parents[2] / "docs" / "studies" / "real" / "work" / "tunings"
HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
# name in the study: folder of the weights, what the checkpoint does not say
CANDIDATES = {
    "mobilenet_v2 ImageNet b": ("mobilenet_v2_imagenet_b", {}),
    "mobilenet_v2 COCO": ("mobilenet_v2_from_coco_ssd", HALVES),
    "mobilenet_v2 skin": ("mobilenet_v2_skin", {}),
    "squeezenet1_1 ImageNet": ("squeezenet1_1_imagenet", {}),
    "ssdlite_mobilenet_v2 coco": ("ssdlite_mobilenet_v2_coco", {}),
    "mobilenet_v2 random": (None, {}),
}
METRICS = ("detection_evidence_single", "tlogme", "logme_boxes")
UNTRAINED = "mobilenet_v2 random"


@pytest.fixture(scope="module")
def candidates(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, models_store.Detector]:
    folder = tmp_path_factory.mktemp("candidates")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        save_file(torchvision.models.mobilenet_v2().state_dict(), folder / "random.safetensors")
    found = {}
    for name, (where, overrides) in CANDIDATES.items():
        source = (
            folder / "random.safetensors"
            if where is None
            else next((shared_data / "weights" / where).glob("*.safetensors"))
        )
        models_store.convert(source, folder / name, overrides=overrides)
        found[name] = models_store.load_detector(folder / name)
    return found


@pytest.fixture(scope="module", params=["pennfudan", "ships", "deeppcb"])
def ordered(
    request: pytest.FixtureRequest,
    shared_data: Path,
    candidates: dict[str, models_store.Detector],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Ordering]:
    folder = tmp_path_factory.mktemp(request.param)
    ingest(shared_data / "datasets" / request.param, folder)
    dataset = open_dataset(folder)
    pool = [_scored(name, detector, dataset) for name, detector in candidates.items()]
    return request.param, order(pool, Target(dict.fromkeys(dataset.categories, 100)))


def _scored(name: str, detector: models_store.Detector, dataset: Dataset) -> Candidate:
    spec = Spec(
        layers=MATCHED_MAPS,
        levels=("local",),
        max_images=120,
        image_size=DEFAULT_IMAGE_SIZE,
        regions=RegionSampling(),
    )
    own, zero = (
        score_detector(each, dataset, Asked(spec, METRICS))
        for each in (detector, untrained(detector.manifest))
    )
    below = {(row["metric"], row["layer"]): row["value"] for row in zero["rows"]}
    scores = tuple(
        Scored(
            row["metric"],
            row["layer"],
            row["level"],
            row["value"],
            row["undefined"],
            zero_point=below[row["metric"], row["layer"]],
        )
        for row in own["rows"]
    )
    return Candidate(name, name, scores, object_pixels=own["object_pixels"]["median"])


def _mean_map(candidate: str, dataset: str) -> float:
    return float(
        np.mean(
            [
                json.loads((TUNINGS / f"{candidate}-on-{dataset}-{seed}.json").read_text())["map"]
                for seed in (0, 1)
            ]
        )
    )


def test_it_is_the_gain_of_what_a_detector_has_to_learn_at_the_map_that_fits(
    ordered: tuple[str, Ordering],
) -> None:
    dataset, ordering = ordered
    assert (ordering.metric, ordering.quantity, ordering.chosen_by) == (
        "detection_evidence_single",
        "gain",
        "size of the objects",
    )
    assert ordering.layer == ("backbone.c3" if dataset == "deeppcb" else "backbone.c4")
    assert not ordering.left_out


def test_untrained_weights_come_last_and_gain_nothing(ordered: tuple[str, Ordering]) -> None:
    _, ordering = ordered
    gains = {row.name: row.gain for row in ordering.rows}
    assert abs(gains[UNTRAINED]) < 0.25 * max(gains.values())
    others = {name: gain for name, gain in gains.items() if name not in (UNTRAINED, "squeezenet1_1 ImageNet")}
    assert min(others.values()) > gains[UNTRAINED]


def test_the_order_agrees_with_fine_tuning(ordered: tuple[str, Ordering]) -> None:
    dataset, ordering = ordered
    truth = np.array([_mean_map(row.name, dataset) for row in ordering.rows])
    tau = weighted_tau(np.array([[row.gain for row in ordering.rows]]), truth[None])[0]
    assert tau > 0.4
    # what it puts first reaches three quarters of what the best does
    assert truth[0] >= 0.75 * truth.max()
