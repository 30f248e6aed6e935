import json

from models_store.archs import ARCHITECTURES
from models_store.known import named_facts
from models_store.registry import architectures, backbones


def test_every_architecture_is_listed_as_plain_data():
    rows = architectures()
    assert [row["name"] for row in rows] == list(ARCHITECTURES)
    assert json.loads(json.dumps(rows))


def test_published_figures_of_named_detectors():
    weights = {w["uri"]: w for row in architectures() for w in row["weights"]}
    v2 = weights["torchvision://fasterrcnn_resnet50_fpn_v2/COCO_V1"]
    assert (v2["coco_box_map"], v2["parameters"]) == (46.7, 43712278)
    assert weights["torchvision://ssdlite320_mobilenet_v3_large/COCO_V1"]["coco_box_map"] == 21.3
    assert all(w["coco_box_map"] and w["licence"] for w in weights.values())
    assert len(weights) == 13


def test_named_backbones_have_parameters_and_licence():
    torchvision_rows = {row["uri"]: row for row in backbones("torchvision")}
    assert torchvision_rows["torchvision://mobilenet_v2/IMAGENET1K_V1"]["parameters"] == 3504872
    assert torchvision_rows["torchvision://mobilenet_v2/IMAGENET1K_V1"]["sha256_prefix"] == "b0353104"
    timm_rows = {row["uri"]: row for row in backbones("timm")}
    lite = timm_rows["timm://tf_efficientnet_lite0.in1k"]
    assert (lite["parameters"], lite["licence"]) == (4652008, "apache-2.0")
    assert sum(row["parameters"] is not None for row in timm_rows.values()) > 0.9 * len(timm_rows)


def test_what_is_published_of_a_hubs_repository_comes_with_it():
    facts = named_facts("hf://Roboflow/rf-detr-nano@main")
    assert facts.published == {"coco_box_map": 48.4, "rf100_vl_ap": 57.1}
    assert facts.licence == "Apache-2.0"
    assert facts.provenance == {"figures": "https://github.com/roboflow/rf-detr, README"}
    assert named_facts("hf://PekingU/rtdetr_r18vd").published == {"coco_box_map": 46.5}
    assert named_facts("hf://somebody/else") is None
