"""Files as people's own training loops leave them: each is read as it was meant, or refused; none is read as something else."""

import gzip
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import mobilenet_backbone

from models_store import Unusable, archives, formats, labels, learned
from models_store.conversion import check_tensors, read
from models_store.formats.caffe import looks_like_caffe
from models_store.formats.preprocessor import preprocessing
from models_store.formats.state import COUNTER, StateDict
from models_store.formats.wrappings import unwrap
from models_store.inspect import inspect
from models_store.known import metadata_input
from models_store.limits import Limits
from tests.unit.models_store.conftest import random_module
from tests.unit.models_store.state_dicts import State, lead, moved
from tests.unit.models_store.test_assembled import resnet


@pytest.fixture(scope="module")
def net() -> State:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


@pytest.fixture(scope="module")
def detector() -> State:
    return random_module("detrank/ssdlite_mobilenet_v2").state_dict()


def partly(state: State) -> State:
    """An average of the parameters of one half."""
    return dict(list(moved(state).items())[::2])


def larger(state: State) -> State:
    return {k: torch.cat([v, v]) if v.dim() else v for k, v in state.items()}


MEANT: dict[str, Callable[[State], object]] = {
    "a figure beside the weights": lambda s: {"state_dict": s, "best_acc": torch.tensor(0.9)},
    "as many figures": lambda s: {"model": s, "optimizer": {}, "loss": torch.ones(()), "acc": torch.ones(())},
    "a name of one's own": lambda s: {
        "my_best_weights": s,
        "optimizer": {"state": {0: {"x": torch.ones(2)}}},
    },
    "a list": lambda s: [s, {"epoch": 3}],
    "an average of another name": lambda s: {"model": moved(s), "model_ema_state_dict": s},
    "super-gradients": lambda s: {"net": moved(s), "ema_net": s, "acc": torch.ones(())},
    "an average that a callback keeps": lambda s: {
        "state_dict": lead("model.", moved(s)),
        "callbacks": {"EMACallback": {"ema_state_dict": lead("model.", s)}},
    },
    "a mean teacher in one module": lambda s: lead("student.", moved(s)) | lead("teacher.", s),
    "Unbiased Teacher": lambda s: lead("modelStudent.", moved(s)) | lead("modelTeacher.", s),
    "model_ema in one module": lambda s: lead("model.", moved(s)) | lead("model_ema.", s),
    "what only is called an average": lambda s: {"model": s, "ema": partly(s)},
    "a teacher that is another network": lambda s: {"student": s, "teacher": larger(s)},
    "the same in one module": lambda s: lead("student.", s) | lead("teacher.", larger(s)),
    "a teacher that is deeper": lambda s: {"student": s, "teacher": moved(s) | lead("more.", partly(s))},
    "the same detector's, deeper": lambda s: (
        lead("model.", s) | lead("teacher.", moved(s) | lead("more.", partly(s)))
    ),
    "ema_pytorch": lambda s: (
        lead("model.", moved(s))
        | lead("ema.ema_model.", s)
        | lead("ema.online_model.", moved(s))
        | {"ema.step": torch.ones(1)}
    ),
    "deep, beside a figure": lambda s: {"a": {"b": {"state_dict": s}}, "acc": torch.ones(())},
    "a loss beside the network": lambda s: s | {"criterion.weight": torch.ones(4)},
    "counts of operations": lambda s: (
        s | {k.rpartition(".")[0] + ".total_ops": torch.zeros(1) for k in s} | {"total_ops": torch.zeros(1)}
    ),
}


@pytest.mark.parametrize("case", MEANT)
@pytest.mark.parametrize("what", ["net", "detector"])
def test_the_weights_that_were_meant_are_read(net, detector, case, what):
    state = {"net": net, "detector": detector}[what]
    found = formats.recognise(unwrap(MEANT[case](state), ordered=True))
    assert found.kind == ("backbone" if what == "net" else "detector")
    first = next(iter(state.values()))
    assert any(value is first for value in found.tensors.values())


@pytest.mark.parametrize("case", ["what only is called an average", "the same in one module"])
def test_what_is_no_average_says_so_and_can_still_be_taken(net, case):
    file = MEANT[case](net)
    assert "has not its tensors" in " ".join(unwrap(file, ordered=True).notes)
    other = unwrap(file, ordered=True, weights="ema")
    assert not any(value is next(iter(net.values())) for value in other.tensors.values())


def test_names_of_shared_tensors_come_back(net, tmp_path):
    """As `safetensors.torch.save_model` writes them: once, the other names in the metadata."""
    kept = {k: v for k, v in net.items() if k != "features.0.bias"}
    save_file(
        {k: v.contiguous() for k, v in kept.items()},
        tmp_path / "x.safetensors",
        metadata={"features.0.bias": "features.3.expand1x1.bias", "format": "pt"},
    )
    state = read(tmp_path / "x.safetensors", Limits())
    assert torch.equal(state.tensors["features.0.bias"], net["features.3.expand1x1.bias"])


def test_norms_of_another_epsilon_that_may_have_been_frozen_stand_in_a_warning():
    module = FasterRCNN(mobilenet_backbone(backbone_name="mobilenet_v3_small", weights=None, fpn=True), 3)
    state = {k: v for k, v in module.state_dict().items() if not k.endswith(COUNTER)}
    frozen = formats.recognise(StateDict(state, ordered=True))
    assert frozen.options["norm_eps"] == 1e-5
    assert not any("options norm=frozen" in warning for warning in frozen.warnings)
    found = formats.recognise(StateDict(state, ordered=False))
    assert any("options norm=frozen" in warning for warning in found.warnings)


def test_two_models_of_no_usual_name_are_a_question(net):
    with pytest.raises(Unusable, match=r"a, b.*save one of them alone") as refusal:
        unwrap({"a": net, "b": moved(net)}, ordered=True)
    assert refusal.value.code == "ambiguous"


def test_a_detector_saved_part_by_part_is_a_detector():
    module = random_module("detrank/fasterrcnn_fpn")
    parts = {name: getattr(module, name).state_dict() for name in ("backbone", "rpn", "roi_heads")}
    found = formats.recognise(unwrap(parts | {"epoch": 1}, ordered=True))
    assert (found.kind, found.num_classes, found.dropped) == ("detector", 3, ("epoch",))


def test_pruned_weights_are_those_that_the_network_computes_with(net):
    key = "features.0.weight"
    mask = (net[key] > 0).float()
    file = {k: v for k, v in net.items() if k != key} | {key + "_orig": net[key], key + "_mask": mask}
    found = formats.recognise(unwrap(file, ordered=True))
    assert torch.equal(found.tensors["backbone.body." + key], net[key] * mask)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (lambda w: (100 * w).to(torch.int8), "unsupported_tensor"),
        (lambda w: (100 * w).to(torch.uint8), "unsupported_tensor"),
        (lambda w: w.to(torch.complex64), "unsupported_tensor"),
        (lambda w: w.to(torch.float8_e4m3fn), "unsupported_tensor"),
    ],
)
def test_whole_and_complex_numbers_are_no_weights(net, changed, code):
    with pytest.raises(Unusable) as refusal:
        check_tensors(
            StateDict(net | {"features.0.weight": changed(net["features.0.weight"])}, True), Limits()
        )
    assert refusal.value.code == code


def test_variances_below_nought_and_networks_of_noughts_are_refused(net):
    with pytest.raises(Unusable, match="variances below 0"):
        check_tensors(StateDict({"bn.running_var": torch.tensor([-1.0])}, True), Limits())
    with pytest.raises(Unusable, match="every weight of it is 0"):
        learned.check_learned({k: torch.zeros_like(v) for k, v in net.items()})
    learned.check_learned(net)


def retinanet() -> State:
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    return RetinaNet(resnet(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)), 3).state_dict()


@pytest.mark.parametrize(
    ("beside", "names", "from_nought"),
    [
        ({"class_names": ["a", "b", "c"]}, ("a", "b", "c"), True),
        ({"meta": {"CLASSES": ("a", "b")}}, ("a", "b"), False),
        ({"classes": ["__background__", "a", "b"]}, ("a", "b"), False),
        ({"class_to_idx": {"b": 2, "a": 1}}, ("a", "b"), False),
        ({"hyper_parameters": {"id2label": {"0": "a", "1": "b", "2": "c"}}}, ("a", "b", "c"), True),
        ({"names": ["a", "b", "c", "d"]}, None, True),
        ({"class_to_idx": {"a": 1, "b": 3}}, None, True),
    ],
)
def test_class_names_beside_the_weights_settle_the_labels(beside, names, from_nought):
    state = unwrap({"model": retinanet(), **beside}, ordered=True)
    found, read_names = labels.in_file(formats.recognise(state), state.class_names)
    assert read_names == names
    found = labels.settle(found, read_names, None, {})
    assert (found.options.get("labels_from") == 0) is from_nought
    assert bool(found.warnings) is (names is None)


def packed(kind: str, file: Path, target: Path) -> Path:
    if kind == "gz":
        target.write_bytes(gzip.compress(file.read_bytes(), 1))
    elif kind == "folder":
        target.mkdir()
        (target / "best.pth").write_bytes(file.read_bytes())
        (target / "optimizer.pt").write_bytes(b"x")
        return archives.pack(target, target.parent)
    elif kind.startswith("tar"):
        with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(file, "run/best.pth")
    else:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(file, "run/best.pth")
            archive.writestr("__MACOSX/run/._best.pth", "x")
            archive.writestr("run/log.txt", "x")
    return target


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "gz", "folder"])
def test_one_checkpoint_that_was_packed_is_read_with_what_lies_beside_its_weights(net, kind, tmp_path):
    torch.save({"state_dict": net, "arch": "squeezenet1_1"}, tmp_path / "x.pth")
    source = packed(kind, tmp_path / "x.pth", tmp_path / "packed")
    assert inspect(source).container == "archive"
    state = read(source, Limits())
    assert state.arguments["arch"] == "squeezenet1_1"
    assert state.ordered
    assert torch.equal(state.tensors["features.0.weight"], net["features.0.weight"])


def test_packed_more_than_once_or_several_are_refused(net, tmp_path):
    torch.save(net, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.write(tmp_path / "x.pth", "best.pth")
        archive.write(tmp_path / "x.pth", "last.pth")
    with pytest.raises(Unusable, match=r"best\.pth, last\.pth.*send one of them"):
        read(tmp_path / "two.zip", Limits())
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.write(packed("zip", tmp_path / "x.pth", tmp_path / "once.zip"), "x.pth")
    with pytest.raises(Unusable, match="holds an archive"):
        read(tmp_path / "twice.zip", Limits())


def test_a_packed_file_is_no_longer_than_is_read(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"x" * 1_000_000))
    with pytest.raises(Unusable, match="longer than 1000 bytes"):
        archives.unpack(tmp_path / "x.gz", tmp_path, Limits(file_bytes=1000))


@pytest.mark.parametrize("content", [b"BZh9", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x93NUMPY\1"])
def test_other_packings_are_named(content, tmp_path):
    (tmp_path / "x").write_bytes(content + bytes(90))
    with pytest.raises(Unusable, match=r"packed|numpy array"):
        inspect(tmp_path / "x")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model.22.dfl.conv.weight", "Ultralytics"),
        ("model.model.24.anchors", "YOLOv5"),
        ("module_list.0.Conv2d.weight", "Darknet"),
        ("module.label_enc.weight", "DINO.*take=body"),
        ("visual.transformer.resblocks.0.ln_1.weight", "CLIP.*timm"),
        ("bn1._variance", "PaddlePaddle"),
        ("base_model.model.x.ia3_l.default", "merge_and_unload"),
    ],
)
def test_networks_that_are_not_read_are_named_by_their_keys(key, words):
    state = unwrap({key: torch.ones(2), "model.0.conv.weight": torch.ones(2, 3, 3, 3)}, ordered=True)
    with pytest.raises(Unusable, match=words) as refusal:
        formats.recognise(state)
    assert refusal.value.code == "unsuitable"


@pytest.fixture(scope="module")
def resnet18() -> State:
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    return {k: v + 0.1 if k.endswith("running_mean") else v for k, v in state.items() if k[:3] != "fc."}


def test_scales_that_a_network_begins_with_are_not_caffes(resnet18):
    begun = {
        f"x.{k}": torch.zeros_like(v) if k.endswith(("running_mean", "bn2.weight")) else v
        for k, v in resnet18.items()
    }
    assert looks_like_caffe(begun) is None
    assert looks_like_caffe(begun | {"x.layer1.0.bn1.weight": torch.full((64,), 0.5)}) == "x."


def test_an_encoder_beside_other_parts_is_not_taken_for_pycontrasts(resnet18):
    head = {"projector.0.weight": torch.ones(3, 512)}
    found = formats.recognise(unwrap(lead("encoder.", resnet18) | head, ordered=True))
    assert (found.format, found.backbone) == ("torchvision_classifier", "torchvision/resnet18")
    with pytest.raises(Unusable, match="options take=body"):
        formats.recognise(
            unwrap(lead("encoder.", resnet18) | {"decoder.0.weight": torch.ones(3, 3)}, ordered=True)
        )


def test_byol_with_its_projector_inside(resnet18):
    beside = {"online_encoder.projector.0.weight": torch.ones(3, 512)}
    file = lead("online_encoder.net.", resnet18) | lead("target_encoder.net.", moved(resnet18)) | beside
    found = formats.recognise(unwrap(file, ordered=True))
    assert (found.format, found.backbone) == ("byol", "torchvision/resnet18")
    assert any(value is resnet18["conv1.weight"] for value in found.tensors.values())


def test_tensors_that_were_added_to_a_network_can_be_left_out(resnet18):
    file = resnet18 | {"attention.weight": torch.ones(3, 3), "cls_head.weight": torch.ones(3, 512)}
    with pytest.raises(Unusable, match="options take=body"):
        formats.recognise(unwrap(file, ordered=True))
    found = formats.recognise(unwrap(file, ordered=True), take="body")
    assert found.backbone == "torchvision/resnet18"
    assert {"attention.weight", "cls_head.weight"} <= set(found.dropped)
    with pytest.raises(Unusable, match="another shape"):
        formats.recognise(unwrap(file | {"conv1.weight": torch.ones(64, 1, 7, 7)}, ordered=True), take="body")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s | {"conv1.weight": s["conv1.weight"][:, :1]}, "reads 1 channels"),
        (lambda s: s | {"conv1.weight": torch.ones(64, 3, 3, 3)}, "tensors of other shapes"),
        (lambda s: {k: v for k, v in s.items() if ".running_" not in k}, "group or layer norms"),
    ],
)
def test_a_changed_network_says_what_was_changed(resnet18, change, words):
    with pytest.raises(Unusable, match=words):
        formats.recognise(unwrap(change(resnet18), ordered=True))


def test_pixels_as_they_are_said_in_either_unit():
    said = {"mean": "123.675, 116.28, 103.53", "std": "[5.8395e1, 57.12, 57.375]"}
    assert metadata_input(said)["std"] == pytest.approx((0.229, 0.224, 0.225))
    assert metadata_input({"mean": "0.5", "std": "0.25"})["mean"] == (0.5, 0.5, 0.5)


BASE = {"size": {"shortest_edge": 200, "longest_edge": 300}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3},
            {"mean": 0.5, "std": 0.2},
        ),
        (
            {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
            {"mean": 0.5, "std": 0.5},
        ),
        ({"do_rescale": False, "do_normalize": False}, {"mean": 0.0, "std": 1 / 255}),
        ({"do_normalize": False}, {"mean": 0.0, "std": 1.0}),
    ],
)
def test_pixels_that_a_preprocessor_scales_otherwise(given, expected):
    spec, _, warnings = preprocessing({**BASE, **given})
    for key, value in expected.items():
        assert spec[key] == pytest.approx((value,) * 3)
    assert warnings == ()


def test_sizes_that_a_preprocessor_says_otherwise():
    spec, _, warnings = preprocessing({"size": {"max_height": 480, "max_width": 480}})
    assert (spec["min_size"], spec["max_size"], warnings) == (480, 480, ())
    spec, _, warnings = preprocessing({"size": {"max_height": 480, "max_width": 640}})
    assert (spec["min_size"], spec["max_size"]) == (480, 640)
    assert "give min_size" in warnings[0]
    assert preprocessing({"size": [480, 640]})[0]["fixed_size"] == (480, 640)
    assert "does not resize" in preprocessing({**BASE, "do_resize": False})[2][0]
    with pytest.raises(Unusable, match=r"preprocessor_config\.json"):
        preprocessing({"size": {"height": "x", "width": 3}})
