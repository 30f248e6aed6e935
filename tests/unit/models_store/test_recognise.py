"""Every registered architecture is recognised from its keys and shapes, and half of it is not."""

import re

import pytest
import torch
import torchvision

from models_store import formats
from models_store.archs import ARCHITECTURES
from models_store.errors import Unusable
from models_store.formats.signatures import lookup
from models_store.formats.state import StateDict
from models_store.formats.torchvision_detection import new_name
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.conftest import backbone_for, random_module

TWIN = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"
DETECTORS = sorted(name for name, a in ARCHITECTURES.items() if a.face is not None)


def state_of(module: torch.nn.Module) -> StateDict:
    return unwrap(module.state_dict(), ordered=True)


@pytest.fixture(scope="module")
def states() -> dict[str, StateDict]:
    return {}


def remembered(states: dict[str, StateDict], name: str) -> StateDict:
    if name not in states:
        states[name] = state_of(random_module(name, num_classes=4))
    return states[name]


@pytest.mark.parametrize("name", DETECTORS)
def test_every_architecture_is_recognised_with_its_class_count(name, states):
    state = remembered(states, name)
    found = formats.recognise(state, name if name == TWIN else None)
    # Of a dense head only the outputs are known: whether the first is reserved, labels.py asks.
    dense = ARCHITECTURES[name].family == "one_stage" and ARCHITECTURES[name].has_background
    assert found.options.get("labels_from") == (0 if dense else None)
    assert (found.architecture, found.num_classes, found.kind) == (name, 4 + dense, "detector")
    assert found.backbone == backbone_for(name)
    assert set(found.tensors) == {k for k in state.tensors if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", DETECTORS)
def test_half_of_the_keys_is_refused_with_what_is_missing(name, states):
    state = remembered(states, name)
    keys = list(state.tensors)
    kept = {k: state.tensors[k] for k in keys[len(keys) // 2 :]}
    with pytest.raises(Unusable) as refusal:
        formats.recognise(StateDict(kept, ordered=True))
    assert refusal.value.code == "missing_keys"
    assert "tensors" in refusal.value.detail


@pytest.mark.parametrize("name", ["torchvision/fasterrcnn_resnet50_fpn", "torchvision/ssd300_vgg16"])
def test_a_key_too_many_or_another_shape_is_refused(name, states):
    tensors = dict(remembered(states, name).tensors)
    with pytest.raises(Unusable) as refusal:
        formats.recognise(StateDict(tensors | {"extra.weight": torch.zeros(3)}, ordered=True))
    assert refusal.value.code == "unmapped_keys"
    assert refusal.value.errors == [{"key": "extra.weight", "message": "no place"}]
    key = next(k for k in tensors if k.endswith("weight") and tensors[k].dim() == 4)
    with pytest.raises(Unusable) as refusal:
        formats.recognise(StateDict(tensors | {key: torch.zeros(1, 2, 3, 4)}, ordered=True))
    assert refusal.value.code == "shape_mismatch"
    assert refusal.value.errors[0]["key"] == key


def test_names_of_before_torchvision_0_13_are_read(states):
    def old(key: str) -> str:
        key = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.0\.", r"\1.", key)
        key = re.sub(r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", key)
        key = re.sub(r"^(roi_heads\.mask_head)\.(\d)\.0\.", lambda m: f"{m[1]}.mask_fcn{int(m[2]) + 1}.", key)
        return re.sub(r"^(head\.\w+_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", key)

    for name in ("torchvision/maskrcnn_resnet50_fpn", "torchvision/retinanet_resnet50_fpn"):
        state = remembered(states, name)
        renamed = {old(k): v for k, v in state.tensors.items()}
        assert len(set(renamed) - set(state.tensors)) > 10
        found = formats.recognise(StateDict(renamed, ordered=True))
        assert found.architecture == name
        assert all(found.tensors[k] is state.tensors[k] for k in found.tensors)
        assert "before torchvision 0.13" in found.notes[0]


def test_new_names_stay():
    assert new_name("rpn.head.conv.0.0.weight") == "rpn.head.conv.0.0.weight"
    assert new_name("backbone.fpn.inner_blocks.0.0.bias") == "backbone.fpn.inner_blocks.0.0.bias"


def test_norms_without_counters_are_frozen_ones(states):
    state = remembered(states, "torchvision/fasterrcnn_resnet50_fpn")
    assert "frozen_norm" not in formats.recognise(state).options
    bare = {k: v for k, v in state.tensors.items() if not k.endswith("num_batches_tracked")}
    assert formats.recognise(StateDict(bare, ordered=True)).options["frozen_norm"] is True


def test_a_wrong_architecture_asked_for_is_named(states):
    state = remembered(states, "torchvision/fcos_resnet50_fpn")
    with pytest.raises(Unusable, match="the file is torchvision/fcos_resnet50_fpn"):
        formats.recognise(state, "torchvision/ssd300_vgg16")


def classifier(name: str) -> dict[str, torch.Tensor]:
    return torchvision.models.get_model(name, weights=None).state_dict()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnext50_32x4d",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "squeezenet1_1",
        "convnext_tiny",
        "swin_t",
        "regnet_y_400mf",
        "densenet121",
        "shufflenet_v2_x0_5",
        "mnasnet0_5",
    ],
)
def test_torchvision_classifiers_are_recognised_with_and_without_head(name):
    state = classifier(name)
    whole = formats.recognise(unwrap(state, ordered=True))
    assert (whole.backbone, whole.kind, whole.architecture) == (
        f"torchvision/{name}",
        "backbone",
        "detrank/fasterrcnn_fpn",
    )
    assert whole.dropped
    body = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier.", "head."))}
    found = formats.recognise(unwrap(body, ordered=True))
    assert found.backbone == f"torchvision/{name}"
    assert set(found.tensors) == set(whole.tensors)


def test_wrappers_and_prefixes_are_taken_off():
    state = classifier("resnet18")
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": {"lr": 1}, "epoch": 3}
    found = formats.recognise(unwrap(wrapped, ordered=True))
    assert found.backbone == "torchvision/resnet18"
    assert {"optimizer", "epoch"} <= set(found.dropped)
    deeper = formats.recognise(unwrap({f"net.encoder.{k}": v for k, v in state.items()}, ordered=True))
    assert deeper.backbone == "torchvision/resnet18"
    assert any("'net.'" in note for note in deeper.notes)


def test_the_average_is_taken_before_plain_weights_and_can_be_chosen():
    plain, average = classifier("squeezenet1_1"), classifier("squeezenet1_1")
    key = "backbone.body.features.0.weight"
    for asked, taken in ((None, average), ("ema", average), ("model", plain)):
        state = unwrap({"model_ema": average, "model": plain}, ordered=True, weights=asked)
        found = formats.recognise(state)
        assert found.tensors[key] is taken["features.0.weight"]
        assert any("model_ema" in note and "options weights=" in note for note in found.notes)


def test_renamed_layers_are_matched_by_their_order():
    state = classifier("mobilenet_v2")
    renamed = {
        f"stem.{i}.{k.rsplit('.', 1)[-1]}": v
        for i, (k, v) in enumerate(state.items())
        if "classifier" not in k
    }
    found = formats.recognise(StateDict(renamed, ordered=True))
    assert found.backbone == "torchvision/mobilenet_v2"
    assert found.tensors["backbone.body.features.18.1.running_var"] is state["features.18.1.running_var"]
    with pytest.raises(Unusable):
        formats.recognise(StateDict(renamed, ordered=False))


def test_order_is_not_trusted_where_last_names_differ():
    state = classifier("mobilenet_v2")
    swap = {"weight": "bias", "bias": "weight"}
    renamed = {}
    for i, (k, v) in enumerate(state.items()):
        last = k.rsplit(".", 1)[-1]
        renamed[f"stem.{i}.{swap.get(last, last) if v.dim() == 1 else last}"] = v
    with pytest.raises(Unusable):
        formats.recognise(StateDict(renamed, ordered=True))


def test_hint_that_does_not_fit_says_what_is_missing():
    with pytest.raises(Unusable) as refusal:
        formats.recognise(unwrap(classifier("resnet18"), ordered=True), "torchvision/resnet34")
    assert refusal.value.code == "missing_keys"
    with pytest.raises(Unusable) as refusal:
        formats.recognise(unwrap(classifier("resnet18"), ordered=True), "timm/no_such_model")
    assert refusal.value.code == "unknown_architecture"


def test_half_of_a_classifier_names_the_nearest():
    state = classifier("resnet18")
    half = dict(list(state.items())[: len(state) // 2])
    with pytest.raises(Unusable, match="nearest to torchvision/resnet18") as refusal:
        formats.recognise(unwrap(half, ordered=True))
    assert refusal.value.code == "missing_keys"


def test_what_nobody_knows_lists_its_keys():
    with pytest.raises(Unusable, match=r"a\.weight") as refusal:
        formats.recognise(
            StateDict({"a.weight": torch.zeros(3, 3), "b.weight": torch.zeros(2)}, ordered=True)
        )
    assert refusal.value.code == "unknown_architecture"


@pytest.mark.parametrize("obj", [3, [torch.zeros(1)], {"epoch": 3}, {}, {"model": {"a": {"b": 1}}}])
def test_what_holds_no_state_dict_is_refused(obj):
    with pytest.raises(Unusable) as refusal:
        formats.recognise(unwrap(obj, ordered=True))
    assert refusal.value.code in {"not_a_state_dict", "no_tensors"}


def test_the_index_knows_the_installed_libraries():
    """Written by `python -m models_store.formats.make_signatures`; run it again when this fails."""
    shapes = {k: tuple(v.shape) for k, v in classifier("resnet50").items()}
    assert lookup(shapes)[0] == "torchvision/resnet50"
