"""Real weights on real pictures, through the library from end to end: does the order make sense?

One architecture, MobileNetV2, from five origins: trained on ImageNet, on COCO as a detector, on hands as a
detector, on skin lesions, and not at all. With them complete detectors and two other backbones. Published scores of true
boxes as they are, without zero points; the service's own order: test_default_order.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import models_store
from worker.catalogue import DEFAULT_IMAGE_SIZE, DEFAULT_METRICS
from worker.data.dataset import open_dataset
from worker.data.ingest import ingest
from worker.features.extract import Features, extract
from worker.features.reading import reading_of
from worker.features.spec import Spec
from worker.metrics.base import FeatureSet
from worker.metrics.registry import METRICS as METRICS_OF
from worker.metrics.registry import score
from worker.ranking.order import order
from worker.ranking.records import Candidate, Ordering, RankBy, Scored, Target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
WEIGHTS = {
    "imagenet": ("mobilenet_v2_imagenet_b", {}),
    "coco": ("mobilenet_v2_from_coco_ssd", HALVES),
    "hands": ("mobilenet_v2_from_hand_ssd", HALVES),
    "skin": ("mobilenet_v2_skin", HALVES),
    "efficientnet": ("efficientnet_lite0_imagenet", HALVES),
    "squeezenet": ("squeezenet1_1_imagenet", {}),
    "ssd_coco": ("ssdlite_mobilenet_v2_coco", {}),
    "ssd_pedestrian": ("ssdlite_mobilenet_v2_pedestrian", {}),
}
LADDER = ("imagenet", "coco", "hands", "skin")
METRICS = (*(name for name in DEFAULT_METRICS if METRICS_OF[name].rows == "objects"), "iou_logme")


@pytest.fixture(scope="module")
def checkpoints(shared_data, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(torchvision.models.mobilenet_v2().state_dict(), folder / "random.safetensors")
    sources = {
        name: (next((shared_data / "weights" / where).glob("*.safetensors")), how)
        for name, (where, how) in WEIGHTS.items()
    }
    sources["random"] = (folder / "random.safetensors", {})
    for name, (source, overrides) in sources.items():
        models_store.convert(source, folder / name, overrides=overrides)
    return {name: folder / name for name in sources}


class Ranked:
    """One dataset, all candidates scored at every trained backbone layer and both levels."""

    def __init__(self, source: Path, folder: Path, checkpoints: dict[str, Path]) -> None:
        (folder / "dataset").mkdir()
        ingest(source, folder / "dataset")
        self.dataset = open_dataset(folder / "dataset")
        self.features: dict[str, Features] = {}
        self.candidates: list[Candidate] = []
        for name, where in checkpoints.items():
            detector = models_store.load_detector(where)
            layers = tuple(
                layer.name for layer in detector.layers if layer.name in ("backbone.c4", "backbone.c5")
            )
            spec = Spec(layers=layers, levels=("local", "global"), image_size=DEFAULT_IMAGE_SIZE)
            self.features[name] = extract(reading_of(detector, self.dataset, spec))
            self.candidates.append(
                Candidate(name, name, _scores(self.features[name]), parameters=detector.manifest.parameters)
            )
        counts = torch.bincount(
            torch.from_numpy(self.features["random"].labels), minlength=len(self.dataset.categories)
        )
        self.target = Target(dict(zip(self.dataset.categories, counts.tolist(), strict=True)))

    def order(self, rank_by: RankBy | None = None, names: tuple[str, ...] | None = None) -> Ordering:
        pool = [each for each in self.candidates if names is None or each.name in names]
        return order(pool, self.target, rank_by)


def _scores(features: Features) -> tuple[Scored, ...]:
    found = []
    for (layer, level), table in features.layers.items():
        objects = FeatureSet(table, features.labels, features.boxes, image_ids=features.image_ids)
        found += [
            Scored(name, layer, level, each.value, each.undefined, interval=each.interval, notes=each.notes)
            for name, each in score(objects, METRICS, groups=20).items()
        ]
    return tuple(found)


@pytest.fixture(scope="module", params=["pennfudan", "ships"])
def ranked(request, shared_data, checkpoints, tmp_path_factory) -> Ranked:
    return Ranked(
        shared_data / "datasets" / request.param, tmp_path_factory.mktemp(request.param), checkpoints
    )


def values(ordering: Ordering) -> dict[str, float]:
    return {row.name: row.value for row in ordering.rows}


def test_rows_stand_for_the_same_objects_in_every_candidate(ranked):
    first, *others = ranked.features.values()
    for other in others:
        assert (first.annotation_ids == other.annotation_ids).all()
        assert (first.boxes == other.boxes).all()


def test_without_regions_one_category_is_ranked_by_its_boxes_and_says_so(ranked):
    ordering = ranked.order()
    assert (ordering.metric, ordering.layer, ordering.level) == ("logme_boxes", "backbone.c4", "local")
    assert not ordering.left_out
    assert "single_class" in {warning.code for warning in ordering.warnings}


def test_untrained_weights_come_last(ranked):
    found = values(ranked.order())
    assert list(found)[-1] == "random"
    assert min(found[name] for name in LADDER) > found["random"] + 0.05


def test_skin_lesions_are_not_above_imagenet(ranked):
    """On ships the two are a tie, which the ranking has to say; on pedestrians skin comes after both."""
    ordering = ranked.order(names=(*LADDER, "random"))
    found = values(ordering)
    near = {row.name: row.near for row in ordering.rows}
    assert found["skin"] < found["imagenet"] or "imagenet" in near["skin"]
    if ranked.dataset.categories == ("person",):
        assert found["skin"] < min(found["imagenet"], found["coco"], found["hands"])


def test_detectors_of_people_lead_on_people(ranked):
    if ranked.dataset.categories != ("person",):
        pytest.skip("pedestrians only")
    assert set(list(values(ranked.order()))[:2]) == {"ssd_coco", "ssd_pedestrian"}


def test_overlap_on_whole_images_gives_the_full_ladder(ranked):
    """IoU-LogME at stride 32 on global features: COCO, ImageNet, then hands and skin, then nothing learnt.

    Not the default: a vector of the whole image cannot tell its objects apart, so it is blind where images
    hold many of them (craters, blood cells).
    """
    ordering = ranked.order(RankBy("iou_logme", "backbone.c5", "global"), (*LADDER, "random"))
    names = [row.name for row in ordering.rows]
    assert names[:2] == ["coco", "imagenet"]
    if ranked.dataset.categories == ("person",):
        assert names[-2:] == ["skin", "random"]
    else:
        # at the maximum of the evidence weights that learnt nothing cannot be told apart from the others on ships
        near = {row.name: row.near for row in ordering.rows}
        assert {"hands", "skin"} <= set(near["random"])
