"""Files as the self-supervised methods' code writes them: recognised, placed exactly, the rest dropped with a reason."""

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from models_store import formats
from models_store.bodies.build import build_body
from models_store.bodies.wide_resnets import build_wide
from models_store.detector import load_detector
from models_store.errors import Unusable
from models_store.formats.reasons import UNKNOWN
from models_store.formats.wrappings import unwrap

State = dict[str, Tensor]
BODY = "backbone.body."


def randomised(module: nn.Module, seed: int = 0) -> State:
    """Its state dict without a classifier; norms are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    state = {k: v for k, v in module.state_dict().items() if not k.startswith(("fc.", "head."))}
    for key, tensor in state.items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith("running_mean"):
            tensor.normal_(0, 0.1, generator=generator)
    return state


@pytest.fixture(scope="module")
def resnet50() -> State:
    torch.manual_seed(0)
    return randomised(torchvision.models.resnet50(weights=None))


@pytest.fixture(scope="module")
def resnet18() -> State:
    torch.manual_seed(0)
    return randomised(torchvision.models.resnet18(weights=None))


def prefixed(prefix: str, state: State) -> State:
    return OrderedDict((prefix + key, value) for key, value in state.items())


def linear_head() -> State:
    return {"module.head.0.weight": torch.zeros(128, 2048), "module.head.0.bias": torch.zeros(128)}


def mlp_head() -> State:
    return {
        "module.head.0.weight": torch.zeros(8, 2048),
        "module.head.0.bias": torch.zeros(8),
        "module.head.2.weight": torch.zeros(128, 8),
        "module.head.2.bias": torch.zeros(128),
    }


def jigsaw_head() -> State:
    return {
        "module.head_jig.fc1.weight": torch.zeros(128, 2048),
        "module.head_jig.fc2.weight": torch.zeros(128, 1152),
    }


def pycontrast(encoder: State, heads: State) -> dict:
    return {
        "opt": argparse.Namespace(method="InfoMin"),
        "model": prefixed("module.encoder.", encoder) | heads,
        "contrast": {"memory": torch.zeros(4, 128)},
        "optimizer": {"state": {}},
        "epoch": 200,
    }


@pytest.mark.parametrize(
    ("heads", "method"),
    [
        (linear_head(), "InstDis or MoCo v1"),
        (mlp_head(), "MoCo v2"),
        (linear_head() | jigsaw_head(), "PIRL"),
        (mlp_head() | jigsaw_head(), "InfoMin"),
    ],
)
def test_pycontrast_methods_are_told_by_their_heads(resnet50, heads, method):
    found = formats.recognise(unwrap(pycontrast(resnet50, heads), ordered=True))
    assert (found.format, found.backbone) == ("pycontrast", "torchvision/resnet50")
    assert any(method in note for note in found.notes)
    assert {k.removeprefix("module.") for k in heads} <= set(found.dropped)
    assert {"contrast", "optimizer", "epoch"} <= set(found.dropped)
    assert len(found.tensors) == 265
    for key, value in found.tensors.items():
        assert value is resnet50[key.removeprefix(BODY)]


def test_pycontrast_average_alone_is_read(resnet50):
    file = {"model_ema": prefixed("encoder.", resnet50) | {"head.0.weight": torch.zeros(128, 2048)}}
    found = formats.recognise(unwrap(file, ordered=True))
    assert (found.format, found.backbone) == ("pycontrast", "torchvision/resnet50")


@pytest.mark.parametrize("legacy", [True, False])
def test_pycontrast_file_gives_the_same_maps_as_torchvision(resnet50, convert_inline, tmp_path, legacy):
    source = tmp_path / "InfoMin_800.pth"
    torch.save(
        pycontrast(resnet50, mlp_head() | jigsaw_head()),
        source,
        _use_new_zipfile_serialization=not legacy,
    )
    manifest = convert_inline(source)
    assert (manifest.format, manifest.kind) == ("pycontrast", "backbone")
    reference = torchvision.models.resnet50(weights=None)
    reference.load_state_dict(resnet50, strict=False)
    reference.eval()
    pixels = torch.rand(1, 3, 64, 96)
    detector = load_detector(tmp_path / "converted")
    with torch.no_grad():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(pixels))))
        x = reference.layer4(reference.layer3(reference.layer2(reference.layer1(x))))
        ours = detector.feature_maps(pixels, ["backbone.c5"])["backbone.c5"]
    assert float((ours - x).abs().max()) <= 1e-6
    dropped = {group["why"]: group["keys"] for group in manifest.reasons["dropped"]}
    assert "contrast" in dropped["the memory of negatives that the pretraining compared with"]
    assert "head.0.weight" in dropped["the projection head of the pretraining"]
    assert "head_jig.fc1.weight" in dropped["the projection head of the jigsaw task"]
    assert sorted(k for keys in dropped.values() for k in keys) == sorted(manifest.dropped_keys)
    initialised = [k for group in manifest.reasons["initialised"] for k in group["keys"]]
    assert sorted(initialised) == sorted(manifest.initialised_keys)


def test_cmc_is_refused_with_the_reason():
    half = {"conv1.weight": torch.zeros(64, 1, 7, 7), "bn1.weight": torch.zeros(64)}
    file = {"model": prefixed("module.encoder1.", half) | prefixed("module.encoder2.", half)}
    with pytest.raises(Unusable, match="CMC") as refusal:
        formats.recognise(unwrap(file, ordered=True))
    assert refusal.value.code == "unsuitable"


def test_module_inside_a_module_is_found_by_its_names(resnet18):
    file = {"model": prefixed("module.encoder.net.", resnet18) | linear_head()}
    found = formats.recognise(unwrap(file, ordered=False))
    assert len(found.tensors) == 100
    assert all(value is resnet18[key.removeprefix(BODY)] for key, value in found.tensors.items())
    assert "head.0.weight" in found.dropped


@pytest.mark.parametrize("prefix", ["module.enc.", "module.feat."])
def test_unknown_prefix_is_never_an_empty_result(resnet18, prefix):
    """Without an order there is nothing to go by; with one, all tensors are found by it and that is said."""
    file = {"model": prefixed(prefix, resnet18) | linear_head()}
    with pytest.raises(Unusable):
        formats.recognise(unwrap(file, ordered=False))
    found = formats.recognise(unwrap(file, ordered=True))
    assert any("by their order" in note for note in found.notes)
    assert all(value is resnet18[key.removeprefix(BODY)] for key, value in found.tensors.items())
    assert len(found.tensors) == 100


def test_file_with_heads_alone_is_refused():
    with pytest.raises(Unusable):
        formats.recognise(unwrap({"model": linear_head()}, ordered=True))


def test_encoder_with_a_missing_tensor_is_refused(resnet50):
    without = {k: v for k, v in resnet50.items() if k != "layer3.2.bn2.bias"}
    with pytest.raises(Unusable, match="PyContrast") as refusal:
        formats.recognise(unwrap(pycontrast(without, linear_head()), ordered=True))
    assert refusal.value.code == "unknown_architecture"


def test_moco_takes_the_query_encoder(resnet50):
    key_encoder = {k: v + 1 for k, v in resnet50.items()}
    file = {
        "epoch": 800,
        "arch": "resnet50",
        "state_dict": prefixed("module.encoder_q.", resnet50)
        | {"module.encoder_q.fc.0.weight": torch.zeros(2048, 2048)}
        | prefixed("module.encoder_k.", key_encoder)
        | {"module.queue": torch.zeros(128, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.long)},
        "optimizer": {"state": {}},
    }
    found = formats.recognise(unwrap(file, ordered=True))
    assert (found.format, found.backbone) == ("moco", "torchvision/resnet50")
    assert found.tensors[BODY + "conv1.weight"] is resnet50["conv1.weight"]
    assert {"queue", "queue_ptr", "encoder_q.fc.0.weight", "encoder_k.conv1.weight"} <= set(found.dropped)


@pytest.mark.parametrize("nested", [True, False])
def test_swav_drops_projection_and_prototypes(resnet50, nested):
    weights = prefixed(
        "module.",
        resnet50
        | {
            "projection_head.0.weight": torch.zeros(2048, 2048),
            "projection_head.1.running_mean": torch.zeros(2048),
            "prototypes.weight": torch.zeros(3000, 128),
        },
    )
    found = formats.recognise(
        unwrap({"state_dict": weights, "epoch": 1} if nested else weights, ordered=True)
    )
    assert (found.format, found.backbone, len(found.tensors)) == ("swav", "torchvision/resnet50", 265)
    assert {"projection_head.0.weight", "prototypes.weight"} <= set(found.dropped)


@pytest.mark.parametrize("ddp", [True, False])
def test_dino_full_checkpoint_gives_the_teacher(resnet18, ddp):
    lead = "module." if ddp else ""
    student = {k: v + 1 for k, v in resnet18.items()}
    file = {
        "student": prefixed("module.backbone.", student),
        "teacher": prefixed(lead + "backbone.", resnet18)
        | {lead + "head.mlp.0.weight": torch.zeros(8, 8), lead + "head.last_layer.weight_g": torch.zeros(8)},
        "optimizer": {"state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="resnet18"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    found = formats.recognise(unwrap(file, ordered=True))
    assert (found.format, found.backbone) == ("dino", "torchvision/resnet18")
    assert found.tensors[BODY + "bn1.running_mean"] is resnet18["bn1.running_mean"]
    assert {"student", "dino_loss", "head.mlp.0.weight"} <= set(found.dropped)


def test_dino_vit_is_normalised_as_imagenet(convert_inline, tmp_path):
    body = build_body("timm/vit_tiny_patch16_224")
    weights = {k.removeprefix("model."): v for k, v in body.state_dict().items()}
    torch.save(weights, tmp_path / "dino.pth")
    manifest = convert_inline(tmp_path / "dino.pth")
    assert manifest.format == "dino"
    assert manifest.backbone.startswith("timm/")
    assert manifest.input.mean == (0.485, 0.456, 0.406)
    pixels = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = body.eval().run(pixels, ["c4"])["c4"]
    ours = load_detector(tmp_path / "converted").feature_maps(pixels, ["backbone.c4"])["backbone.c4"]
    assert float((ours - expected).abs().max()) <= 1e-5


def test_vit_named_by_its_source_is_no_dino():
    body = build_body("timm/vit_tiny_patch16_224")
    weights = {k.removeprefix("model."): v for k, v in body.state_dict().items()}
    found = formats.recognise(unwrap(weights, ordered=True), "timm/vit_tiny_patch16_224")
    assert (found.format, found.backbone) == ("timm_classifier", "timm/vit_tiny_patch16_224")


def test_vit_with_a_classifier_is_no_dino():
    import timm

    found = formats.recognise(unwrap(timm.create_model("vit_tiny_patch16_224").state_dict(), ordered=True))
    assert found.format == "timm_classifier"


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/resnet101",
        "torchvision/resnext101_32x8d",
        "timm/resnext101_32x4d",
        "detrank/resnet50x2",
        "detrank/resnet50x2_stem64",
        "detrank/resnext152_32x8d",
        "timm/resnest50d",
    ],
)
def test_other_networks_are_told_from_shapes(name):
    """Shapes alone are compared, so nothing is allocated."""
    library, _, bare = name.partition("/")
    with torch.device("meta"):
        if library == "timm":
            import timm

            net = timm.create_model(bare)
        else:
            net = build_wide(bare) if library == "detrank" else torchvision.models.get_model(bare)
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    found = formats.recognise(unwrap(pycontrast(state, linear_head()), ordered=True))
    assert (found.format, found.backbone) == ("pycontrast", name)


def test_backbone_can_be_placed_in_another_architecture(resnet50):
    state = unwrap(pycontrast(resnet50, linear_head()), ordered=True)
    found = formats.recognise(state, "detrank/maskrcnn_c4")
    assert (found.architecture, found.backbone) == ("detrank/maskrcnn_c4", "torchvision/resnet50")


def test_backbone_of_the_same_keys_can_be_named(resnet50):
    found = formats.recognise(unwrap(dict(resnet50), ordered=True), "detrank/retinanet", "timm/resnet50")
    assert (found.architecture, found.backbone) == ("detrank/retinanet", "timm/resnet50")


def test_published_ptch_is_read(convert_inline, tmp_path: Path):
    """A bare state dict of torchvision's Faster R-CNN, fixed norms or not; per epoch beside optimizer and epoch."""
    from models_store.archs import ARCHITECTURES
    from models_store.build import build_module

    arch = ARCHITECTURES["torchvision/fasterrcnn_resnet50_fpn"]
    for frozen, count in ((True, 295), (False, 348)):
        module = build_module(
            arch, num_classes=5, input=arch.input, backbone=None, options={"frozen_norm": frozen}
        )
        weights = OrderedDict(module.state_dict())
        assert len(weights) == count
        found = formats.recognise(unwrap(weights, ordered=True))
        assert (found.architecture, found.num_classes) == (arch.name, 5)
        assert found.dropped == ()
    wrapped = {"model": weights, "optimizer": {}, "lr_scheduler": {}, "epoch": 3}
    assert formats.recognise(unwrap(wrapped, ordered=True)).num_classes == 5


def test_reasons_are_given_for_all_that_these_files_hold(resnet50):
    from models_store.formats.reasons import why_dropped

    state = unwrap(pycontrast(resnet50, mlp_head() | jigsaw_head()), ordered=True)
    found = formats.recognise(state)
    without = [k for k in found.dropped if why_dropped(found.format, k) == UNKNOWN]
    assert without == []
