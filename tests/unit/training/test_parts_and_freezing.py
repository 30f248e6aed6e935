"""Every family trains what it is asked to train, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from small_training import (
    CONFIGS,
    MOBILENET,
    SMALL_DETR,
    fresh,
    fresh_detr,
    ids,
    recipe,
    small_plan,
    weights_of,
)

from models_store.detector import Detector
from models_store.trainable import FROZEN, norm_parameters, parts, set_trainable
from worker.data.dataset import Dataset
from worker.training.errors import Untrainable
from worker.training.fine_tune import train
from worker.training.inputs import Ids
from worker.training.optimiser import optimiser_of
from worker.training.recipe import Augmentation, Phase

import torch  # isort: skip

PLAIN = {"augmentation": Augmentation(), "warmup_iterations": 0, "rois": 8}
CONVOLUTIONAL = {
    "faster_fpn": lambda: fresh("detrank/fasterrcnn_fpn", MOBILENET),
    "faster_vit": lambda: fresh("detrank/fasterrcnn_fpn", "timm/vit_tiny_patch16_224"),
    "mask_c4": lambda: fresh("detrank/maskrcnn_c4", "torchvision/resnet18", norm="frozen"),
    "retinanet": lambda: fresh("detrank/retinanet", MOBILENET),
    "ssdlite": lambda: fresh("torchvision/ssdlite320_mobilenet_v3_large"),
    "placed_detr": lambda: fresh("detrank/detr", "torchvision/mobilenet_v3_small", config=SMALL_DETR),
}
MAKERS = CONVOLUTIONAL | {name: lambda name=name: fresh_detr(name) for name in CONFIGS}
# What trains in a step of "stem" frozen; names of a few parameters of each part
EXAMPLES = {
    "faster_fpn": {
        "stem": "backbone.body.features.3.conv.2.weight",
        "body": "backbone.body.features.4.conv.2.weight",
        "neck": "backbone.fpn.layer_blocks.0.0.weight",
        "head": "rpn.head.conv.0.0.weight",
    },
    "faster_vit": {
        "stem": "backbone.body.model.patch_embed.proj.weight",
        "body": "backbone.body.model.blocks.0.attn.qkv.weight",
        "neck": "backbone.fpn.up2.weight",
        "head": "roi_heads.box_head.fc6.weight",
    },
    "mask_c4": {
        "stem": "backbone.body.layer1.1.conv2.weight",
        "body": "backbone.body.layer3.1.conv2.weight",
        "head": "backbone.body.layer4.1.conv2.weight",
    },
    "retinanet": {
        "neck": "backbone.fpn.extra_blocks.p6.weight",
        "head": "head.regression_head.bbox_reg.weight",
    },
    "ssdlite": {
        "stem": "backbone.features.0.0.0.weight",
        "body": "backbone.features.1.1.block.2.fc1.weight",
        "neck": "backbone.extra.0.0.0.weight",
        "head": "head.classification_head.module_list.0.1.weight",
    },
    "detr": {
        "neck": "model.encoder.layers.0.self_attn.q_proj.weight",
        "head": "class_labels_classifier.weight",
    },
    "yolos": {"stem": "vit.embeddings.cls_token", "head": "vit.embeddings.detection_tokens"},
    "deformable_detr": {"neck": "model.level_embed", "head": "model.reference_points.weight"},
    "rt_detr": {"neck": "model.encoder_input_proj.0.0.weight", "head": "model.denoising_class_embed.weight"},
}


@pytest.mark.parametrize("name", MAKERS)
def test_parts_cover_a_detector(name: str) -> None:
    detector = MAKERS[name]()
    found = parts(detector)
    assert set(found) == {n for n, _ in detector.module.named_parameters()}
    assert {"stem", "body", "head"} <= set(found.values())
    for part, parameter in EXAMPLES.get(name, {}).items():
        assert found[parameter] == part
    for policy, frozen in FROZEN.items():
        set_trainable(detector, policy)
        moving = {n for n, p in detector.module.named_parameters() if p.requires_grad}
        assert {found[n] for n in moving} == set(found.values()) - frozen
    assert not {n for n in moving if "reg_scale" in n or n.endswith("decoder.up")}


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_moves_what_is_not_frozen(name: str, toy: Dataset, tmp_path: Path) -> None:
    detector = MAKERS[name]()
    before = weights_of(detector)
    plan = small_plan(
        detector, 14, recipe(**PLAIN), iterations=1, freeze="backbone", image_size=96, evaluations=1
    )
    trained = train(detector, toy, plan, Ids(ids(toy, "train"), ids(toy, "val")[:1], []), tmp_path)
    assert np.isfinite(trained.curves[0]["loss"])
    found, after = parts(detector), weights_of(detector)
    moved = {found[n] for n in found if n in before and not np.array_equal(before[n], after[n])}
    assert "head" in moved
    assert not moved & {"stem", "body"}
    if "neck" in found.values():
        assert "neck" in moved


def groups_of(detector: Detector, **changes: object) -> dict[str, tuple[float, float]]:
    """{parameter: (rate, decay)}"""
    wanted = recipe(**{"phases": (Phase(1, 1.0),), "weight_decay": 0.5} | changes)
    optimiser = optimiser_of(detector, wanted, wanted.phases[0], torch.device("cpu"))
    names = {id(p): n for n, p in detector.module.named_parameters()}
    return {
        names[id(p)]: (group["initial_lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for p in group["params"]
    }


def test_rates_and_decay_by_name() -> None:
    detector = fresh_detr("deformable_detr")
    slow = (("reference_points", 0.1), ("sampling_offsets", 0.1))
    found = groups_of(detector, backbone_lr_factor=0.2, slow=slow)
    assert found["model.reference_points.weight"][0] == pytest.approx(0.1)
    assert found["model.encoder.layers.0.self_attn.sampling_offsets.bias"][0] == pytest.approx(0.1)
    assert found["model.level_embed"][0] == 1.0
    body = {n for n, part in parts(detector).items() if part in ("stem", "body")}
    assert {found[n][0] for n in body} == {0.2}
    assert set(found) == {n for n, _ in detector.module.named_parameters()}


def test_decay_spares_norms_and_biases_where_asked() -> None:
    detector = fresh("detrank/maskrcnn_fpn", "torchvision/resnet18", norm="bn")
    norms = norm_parameters(detector.module)
    biases = {n for n, p in detector.module.named_parameters() if p.dim() < 2 and n not in norms}
    assert "backbone.body.bn1.weight" in norms
    assert "rpn.head.cls_logits.bias" in biases
    for decay_norms, decay_biases in ((True, True), (False, True), (False, False)):
        found = groups_of(detector, decay_norms=decay_norms, decay_biases=decay_biases)
        spared = (set() if decay_norms else norms) | (set() if decay_biases else biases)
        assert {n for n, (_, decay) in found.items() if decay == 0} == spared


def test_freezing_everything_is_refused() -> None:
    detector = fresh_detr()
    for parameter in detector.module.parameters():
        parameter.requires_grad_(False)
    wanted = recipe()
    del detector.module.class_labels_classifier  # a module with nothing but frozen parts
    only_body = detector.module.model.backbone
    detector.module = torch.nn.ModuleDict({"model": torch.nn.ModuleDict({"backbone": only_body})})
    with pytest.raises(Untrainable, match="nothing to train"):
        optimiser_of(detector, wanted, Phase(1, 1.0, "all_but_head"), torch.device("cpu"))
