"""What lies beside the weights decides how pictures are seen, and which of several weights are read; what is left out is said."""

import zipfile
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from models_store import Unusable, archives, formats, inputs, learned
from models_store.conversion import read
from models_store.formats.wrappings import unwrap
from models_store.inspect import inspect
from models_store.known import in_unit, published_otherwise
from models_store.limits import Limits
from tests.unit.models_store.conftest import random_module
from tests.unit.models_store.state_dicts import State, lead, moved
from tests.unit.models_store.test_unknowable import c5, picture, relative

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
PAIR = {"mean": list(MEAN), "std": list(STD)}
BACK = {"mean": [30.0, 20.0, 10.0], "std": [60.0, 50.0, 40.0]}
IN_BGR = {key: tuple(v / 255 for v in reversed(values)) for key, values in BACK.items()}
OPENMMLAB = "model = dict(type='X')\nimg_norm_cfg = dict(\n    mean=[30.0, 20.0, 10.0], std=[60.0, 50.0, 40.0], to_rgb=False)\n"
NEWER = "data_preprocessor=dict(mean=[10., 20., 30.], std=[40., 50., 60.], to_rgb=True, num_classes=3)"


def buffers(name: str, *shape: int) -> State:
    return {f"{name}mean": torch.tensor(MEAN).view(shape), f"{name}std": torch.tensor(STD).view(shape)}


@pytest.fixture(scope="module")
def resnet() -> torchvision.models.ResNet:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None).eval()
    with torch.no_grad():
        for name, tensor in net.named_buffers():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
    return net


@torch.no_grad()
def last_map(net: torchvision.models.ResNet, mean: Any, std: Any, *, bgr: bool = False) -> Tensor:
    """c5 of the picture as the training saw it; mean and std in the order of its channels, for pixels in [0, 1]."""
    x = torch.from_numpy(picture().copy()).permute(2, 0, 1) / 255.0
    x = x.flip(0) if bgr else x
    x = ((x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


SAID = {
    "hyper_parameters": lambda s: {"state_dict": lead("model.", s), "hyper_parameters": PAIR},
    "arguments in 0 to 255": lambda s: {
        "model": s,
        "args": {key: [255 * v for v in values] for key, values in PAIR.items()},
    },
    "at the top, as tensors": lambda s: {"net": s, **buffers("", 3)},
    "deep in a configuration": lambda s: {
        "net": s,
        "config": {"data": {f"image_{k}": v for k, v in PAIR.items()}},
    },
    "a module beside": lambda s: lead("model.", s) | buffers("normalize.", 1, 3, 1, 1),
    "buffers of the network": lambda s: s | buffers("", 3, 1, 1),
    "a Sequential": lambda s: buffers("0.", 3, 1, 1) | lead("1.", s),
    "an attacker with its own": lambda s: {
        "model": lead("module.model.", s)
        | buffers("module.normalizer.new_", 3, 1, 1)
        | lead("module.attacker.model.", s)
        | buffers("module.attacker.normalize.new_", 3, 1, 1)
    },
}


@pytest.mark.parametrize("case", SAID)
def test_mean_and_std_beside_the_weights_are_used(resnet, case, convert_inline, tmp_path):
    torch.save(SAID[case](resnet.state_dict()), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.input.mean == pytest.approx(MEAN)
    assert any("mean and std are those that lie beside the weights" in note for note in manifest.notes)
    expected = last_map(resnet, MEAN, STD)
    assert relative(c5(tmp_path / "converted", picture()), expected) < 1e-5
    given = {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert convert_inline(tmp_path / "x.pth", tmp_path / "given", overrides=given).input.mean == (0.5,) * 3


TURNED = {
    "hyper_parameters": lambda s: {"net": s, "hyper_parameters": {**BACK, "channel_order": "BGR"}},
    "detectron2's configuration": lambda s: {
        "net": s,
        "cfg": {
            "MODEL": {"PIXEL_MEAN": BACK["mean"], "PIXEL_STD": BACK["std"]},
            "INPUT": {"FORMAT": "BGR"},
        },
    },
    "OpenMMLab's program": lambda s: {"state_dict": s, "meta": {"cfg": OPENMMLAB}},
}


@pytest.mark.parametrize("case", TURNED)
def test_channels_in_the_order_that_is_said_beside_the_weights(resnet, case, convert_inline, tmp_path):
    torch.save(TURNED[case](resnet.state_dict()), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.source["channel_order"] == "bgr"
    assert manifest.input.mean == pytest.approx(IN_BGR["mean"])
    theirs = [[v / 255 for v in BACK[key]] for key in ("mean", "std")]
    expected = last_map(resnet, *theirs, bgr=True)
    assert relative(c5(tmp_path / "converted", picture()), expected) < 1e-5


def test_of_a_safetensors_file_and_of_a_detector_too(resnet, convert_inline, tmp_path):
    said = {"image_mean": "[30, 20, 10]", "image_std": "[60, 50, 40]", "channel_order": "bgr"}
    state = {k: v.contiguous() for k, v in resnet.state_dict().items()}
    save_file(state, tmp_path / "x.safetensors", metadata=said)
    manifest = convert_inline(tmp_path / "x.safetensors")
    assert manifest.source["channel_order"] == "bgr"
    assert manifest.input.mean == pytest.approx(IN_BGR["mean"])
    detector = random_module("detrank/ssdlite_mobilenet_v2").state_dict()
    pixels = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    torch.save({"model": detector, "hyper_parameters": pixels}, tmp_path / "y.pth")
    manifest = convert_inline(tmp_path / "y.pth", tmp_path / "detector")
    assert (manifest.input.mean, manifest.input.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"args": {"mean": [0.5, 0.5], "std": [0.5, 0.5]}}, None),
        ({"args": {"mean": [0.5] * 3, "std": [0.0] * 3}}, None),
        ({"args": {"mean": None, "std": None}}, None),
        ({"metrics": {"mean": 0.5, "std": 0.1}}, None),
        ({"args": {"mean": [103.53, 116.28, 123.675], "std": [1.0] * 3}}, "bgr"),
        ({"meta": {"cfg": NEWER}}, "rgb"),
        ({"meta": {"cfg": "img_norm_cfg = dict(mean=[x], std=[1])"}}, None),
        ({"hyper_parameters": {"channel_order": "bgr"}}, "bgr"),
    ],
)
def test_what_says_nothing_whole_changes_nothing(resnet, beside, expected):
    pixels = unwrap({"model": resnet.state_dict(), **beside}, ordered=True).pixels
    assert (pixels and pixels.order) == expected


def test_modules_that_disagree_are_not_believed(resnet):
    two = buffers("a.", 3) | {key: value + 0.1 for key, value in buffers("b.", 3).items()}
    state = unwrap(lead("model.", resnet.state_dict()) | two, ordered=True)
    assert state.pixels is None
    assert "a.mean" in state.dropped


def test_values_of_0_to_255_by_their_deviation():
    assert in_unit({"mean": (0.0,) * 3, "std": (255.0,) * 3})["std"] == (1.0,) * 3


def test_weights_that_are_published_for_other_pixels_are_warned_of(convert_inline, tmp_path, monkeypatch):
    assert "ft_in1k" in next(iter(published_otherwise("timm/efficientnet_b1").values()))
    assert published_otherwise("timm/efficientnet_b1.ft_in1k") == {}
    assert published_otherwise("torchvision/resnet18") == {}
    others = {((0.5,) * 3, (0.5,) * 3): ("mine",)}
    monkeypatch.setattr(inputs, "published_otherwise", lambda backbone: others)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "x.pth")
    asked = "give mean and std, or architecture="
    assert any(asked in warning for warning in convert_inline(tmp_path / "x.pth").warnings)
    given = {"mean": [0.5] * 3, "std": [0.5] * 3}
    manifest = convert_inline(tmp_path / "x.pth", tmp_path / "given", overrides=given)
    assert not any(asked in warning for warning in manifest.warnings)


TWO = {
    "a mean teacher in parallel": ("module.student.", "module.teacher."),
    "one inside another module": ("model.student.", "model.teacher."),
    "a detector": ("module.detector.", "module.ema_detector."),
    "a name of one's own": ("rcnn.", "rcnn_ema."),
    "compiled": ("module._orig_mod.model.", "module._orig_mod.model_ema."),
}


@pytest.mark.parametrize("case", TWO)
def test_the_average_in_one_module_with_the_weights(resnet, case):
    plain, average = TWO[case]
    state = resnet.state_dict()
    file = lead(plain, moved(state)) | lead(average, state)
    found = formats.recognise(unwrap(file, ordered=True))
    assert any(value is state["conv1.weight"] for value in found.tensors.values())
    assert any("options weights=model takes the other" in note for note in found.notes)
    other = formats.recognise(unwrap(file, ordered=True, weights="model"))
    assert torch.equal(other.tensors["backbone.body.conv1.weight"], state["conv1.weight"] + 1)


def test_other_weights_that_were_left_out_stand_in_a_note(resnet):
    state = resnet.state_dict()
    best = unwrap({"model": state, "best_model": moved(state), "optimizer": {"state": {}}}, ordered=True)
    assert any("best_model" in note and "save those alone" in note for note in best.notes)
    average = {"decay": 0.9, "num_updates": 3, "shadow_params": list(state.values())}
    nameless = unwrap({"model": state, "ema": average}, ordered=True)
    assert any("average without names" in note for note in nameless.notes)
    assert unwrap({"model": state, "optimizer": {"state": {}}}, ordered=True).notes == ()


def test_a_network_under_a_name_of_ones_own_beside_something_small(resnet):
    detector = lead("faster_rcnn.", random_module("detrank/ssdlite_mobilenet_v2").state_dict())
    found = formats.recognise(unwrap(detector | {"loss_weights": torch.ones(3)}, ordered=False))
    assert (found.kind, found.dropped) == ("detector", ("loss_weights",))
    body = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    with pytest.raises(Unusable, match="take=body"):
        formats.recognise(unwrap(lead("mine.", body) | {"rpn_x.weight": torch.ones(3)}, ordered=False))


def test_a_learner_of_fastai(resnet):
    children = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    body = {
        f"0.{children[first]}.{rest}": value
        for key, value in resnet.state_dict().items()
        for first, _, rest in [key.partition(".")]
        if first in children
    }
    found = formats.recognise(unwrap({"model": body | {"1.8.weight": torch.ones(3, 512)}}, ordered=True))
    assert (found.backbone, found.dropped) == ("torchvision/resnet18", ("1.8.weight",))
    assert any(value is body["0.0.weight"] for value in found.tensors.values())


def test_weights_that_look_untrained_or_lost_are_warned_of(resnet):
    begun = torchvision.models.resnet18(weights=None).state_dict()
    assert "look untrained" in learned.doubtful({k: v for k, v in begun.items() if k[:3] != "fc."})[0]
    assert learned.doubtful(resnet.state_dict()) == ()
    key = "layer2.0.conv1.weight"
    lost = learned.doubtful(resnet.state_dict() | {key: torch.zeros(128, 64, 3, 3)})
    assert key in lost[0]
    assert "0 throughout" in lost[0]


@pytest.mark.parametrize(
    "name", ["torchvision/fasterrcnn_mobilenet_v3_large_fpn", "torchvision/keypointrcnn_resnet50_fpn"]
)
@pytest.mark.parametrize("part", ["box_predictor", "cls_score", "backbone."])
def test_a_detector_without_a_part_is_refused_with_a_step(name, part):
    state = {k: v for k, v in random_module(name).state_dict().items() if part not in k}
    with pytest.raises(Unusable, match="send the whole state dict") as refusal:
        formats.recognise(unwrap(state, ordered=True))
    assert refusal.value.code == "missing_keys"
    if part != "backbone.":
        body = formats.recognise(unwrap(state, ordered=True), take="body")
        assert body.kind == "backbone"


def test_a_body_that_was_stretched_for_segmentation_says_so(resnet):
    body = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    file = lead("backbone.", body) | {"classifier.0.convs.0.0.weight": torch.ones(3, 512, 1, 1)}
    for ordered in (True, False):
        found = formats.recognise(unwrap(file, ordered=ordered))
        assert any("dilated convolutions" in warning for warning in found.warnings)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_vit_of_pictures_of_another_size_is_named(prefix):
    state = timm.create_model("vit_tiny_patch16_224", img_size=256).state_dict()
    file = lead(prefix, {k: v for k, v in state.items() if not (prefix and k.startswith("head."))})
    with pytest.raises(Unusable, match=r"257 places \(pictures of 256 x 256\).*resample_abs_pos_embed"):
        formats.recognise(unwrap(file, ordered=True))


def test_a_folder_of_accelerate_is_its_one_model(resnet, tmp_path):
    save_file({k: v.contiguous() for k, v in resnet.state_dict().items()}, tmp_path / "model.safetensors")
    for beside in ("optimizer.bin", "scheduler.bin", "sampler.bin", "sampler_1.bin", "random_states_0.pkl"):
        (tmp_path / beside).write_bytes(b"x")
    state = read(archives.pack(tmp_path, tmp_path), Limits())
    assert torch.equal(state.tensors["conv1.weight"], resnet.conv1.weight)


def test_a_program_of_torch_export_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as file:
        file.writestr("x/archive_format", "pt2")
        file.writestr("x/data/sample_inputs/model.pt", "x")
    with pytest.raises(Unusable, match=r"torch\.export"):
        inspect(tmp_path / "x.pt2")
