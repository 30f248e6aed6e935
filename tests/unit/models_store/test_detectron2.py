"""detectron2's names and pickles of ResNets: in, out, and back to the same tensors."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from typer.testing import CliRunner

from app.cli.main import build
from models_store import formats, numpy_pickle
from models_store.errors import Unusable
from models_store.export import to_detectron2_file
from models_store.formats.detectron2 import from_detectron2, to_detectron2
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.test_unknowable import c5, caffe_map, caffe_resnet50, picture, relative

BODY = "backbone.body."


@pytest.fixture(scope="module")
def resnet50() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = torchvision.models.resnet50(weights=None).state_dict()
    return {k: v for k, v in state.items() if not k.startswith("fc.")}


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """A small ResNet under detectron2's names."""
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    return {to_detectron2(k): v.numpy() for k, v in state.items() if not k.startswith("fc.")}


def test_names_there_and_back_are_the_identity_over_318_keys(resnet50):
    renamed = [to_detectron2(key) for key in resnet50]
    assert len(resnet50) == len(set(renamed)) == 318
    assert [from_detectron2(key) for key in renamed] == list(resnet50)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.conv3.weight", "res2.0.conv3.weight"),
        ("layer4.2.bn2.bias", "res5.2.conv2.norm.bias"),
        ("layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        ("layer2.0.downsample.1.running_mean", "res3.0.shortcut.norm.running_mean"),
    ],
)
def test_names(ours, theirs):
    assert to_detectron2(ours) == theirs
    assert from_detectron2(theirs) == ours


@pytest.mark.parametrize(
    "key", ["fc.weight", "layer5.0.conv1.weight", "features.0.weight", "layer1.0.fc.weight", "bn2.weight"]
)
def test_what_is_no_resnet_has_no_name(key):
    with pytest.raises(ValueError, match="not of a ResNet"):
        to_detectron2(key)
    assert from_detectron2(key) is None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_all_protocols_are_read_exactly(tmp_path, protocol):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(4, dtype=">f4"),
        "half": np.array([0.5], dtype=np.float16),
        "scalar": np.float64(1.5),
        "count": np.int64(7),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "flag": np.array([True, False]),
    }
    source = tmp_path / "x.pkl"
    source.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    read = numpy_pickle.read(source)["model"]
    for key, array in arrays.items():
        assert tuple(read[key].shape) == np.shape(array)
        assert np.array_equal(read[key].numpy(), array)


def test_python_2_bytes_are_read(tmp_path):
    """Python 2 wrote an array's bytes as text, and numpy's old module names."""
    data = np.array([1.5, -2.0], dtype="<f4").tobytes()
    stream = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
        + data
        + b"tbs."
    )
    (tmp_path / "x.pkl").write_bytes(stream)
    assert numpy_pickle.read(tmp_path / "x.pkl")["w"].tolist() == [1.5, -2.0]


def test_file_of_the_published_converter(theirs, convert_inline, tmp_path):
    source = tmp_path / "x.pkl"
    source.write_bytes(pickle.dumps({"model": theirs, "__author__": "x", "matching_heuristics": True}))
    manifest = convert_inline(source)
    assert (manifest.format, manifest.backbone, manifest.kind) == (
        "detectron2",
        "torchvision/resnet18",
        "backbone",
    )
    assert set(manifest.dropped_keys) == {"__author__", "matching_heuristics"}
    weights = load_file(tmp_path / "converted" / "weights.safetensors")
    for key, value in weights.items():
        assert np.array_equal(value.numpy(), theirs[to_detectron2(key.removeprefix(BODY))])


@pytest.mark.parametrize("prefix", ["backbone.bottom_up.", "backbone."])
def test_body_of_a_whole_detector(theirs, prefix):
    tensors = {prefix + k: torch.from_numpy(v.copy()) for k, v in theirs.items()}
    if prefix == "backbone.":
        tensors = {k.replace("backbone.res5.", "roi_heads.res5."): v for k, v in tensors.items()}
    tensors |= {"proposal_generator.rpn_head.conv.weight": torch.zeros(3), "pixel_mean": torch.zeros(3)}
    found = formats.recognise(unwrap({"model": tensors}, ordered=True))
    assert (found.format, found.backbone) == ("detectron2", "torchvision/resnet18")
    assert {"proposal_generator.rpn_head.conv.weight", "pixel_mean"} <= set(found.dropped)
    assert any("1x1" in warning for warning in found.warnings)


def test_missing_stage_is_refused(theirs):
    tensors = {k: torch.from_numpy(v.copy()) for k, v in theirs.items() if not k.startswith("res4.")}
    with pytest.raises(Unusable, match="res2 to res5") as refusal:
        formats.recognise(unwrap({"model": tensors}, ordered=True))
    assert refusal.value.code == "missing_keys"


def caffe2(name: str) -> str:
    """detectron2's name to Caffe2's, as MSRA's files have it."""
    branches = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    parts = name.split(".")
    leaf = "w" if "norm" not in parts else {"weight": "bn_s", "bias": "bn_b"}[parts[-1]]
    if parts[0] == "stem":
        return "conv1_w" if leaf == "w" else f"res_conv1_{leaf}"
    return f"{parts[0]}_{parts[1]}_{branches[parts[2]]}_{leaf}"


def test_caffe2_names_are_read_as_msra_trained_them(convert_inline, tmp_path):
    """The zoo's pickle: scales and shifts alone, BGR, strides in the 1x1; two tensors exchanged would be noticed."""
    net = caffe_resnet50()
    arrays = {
        caffe2(to_detectron2(k)): v.numpy()
        for k, v in net.state_dict().items()
        if not k.startswith("fc.") and "running" not in k and "num_batches" not in k
    }
    arrays |= {"fc1000_w": np.zeros((1000, 2048), np.float32), "conv1_b": np.zeros(64, np.float32)}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(arrays))
    manifest = convert_inline(tmp_path / "R-50.pkl")
    assert (manifest.format, manifest.backbone) == ("detectron2", "detrank/resnet50_caffe")
    assert "fc1000_w" in manifest.dropped_keys
    expected = caffe_map(net, picture())
    assert relative(c5(tmp_path / "converted", picture()), expected) < 1e-5
    a, b = "res4_1_branch2a_bn_s", "res4_2_branch2a_bn_s"
    (tmp_path / "y.pkl").write_bytes(pickle.dumps(arrays | {a: arrays[b], b: arrays[a]}))
    convert_inline(tmp_path / "y.pkl", tmp_path / "swapped")
    assert relative(c5(tmp_path / "swapped", picture()), expected) > 1e-3


def test_file_out_and_in_again_holds_the_same_tensors(resnet50, convert_inline, tmp_path):
    source = tmp_path / "x.pth"
    torch.save({"model": {f"module.encoder.{k}": v for k, v in resnet50.items()}}, source)
    convert_inline(source)
    written = to_detectron2_file(tmp_path / "converted", tmp_path / "out.pkl")
    assert written == 265
    header = numpy_pickle.read(tmp_path / "out.pkl")
    assert header["matching_heuristics"] is True
    again = formats.recognise(unwrap(header, ordered=True))
    assert again.backbone == "torchvision/resnet50"
    for key, value in again.tensors.items():
        assert torch.equal(value, resnet50[key.removeprefix(BODY)])
    assert len(again.tensors) == 265


def test_backbone_that_is_no_resnet_is_not_written(convert_inline, tmp_path):
    source = tmp_path / "x.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), source)
    convert_inline(source)
    with pytest.raises(Unusable, match="detectron2 has no such backbone"):
        to_detectron2_file(tmp_path / "converted", tmp_path / "out.pkl")
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.slow
def test_command(tmp_path):
    source = tmp_path / "x.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), source)
    out = tmp_path / "out.pkl"
    done = CliRunner().invoke(
        build(), ["checkpoints", "convert", str(source), "--to", "detectron2", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "100 tensors" in done.output
    assert "stem.conv1.norm.weight" in numpy_pickle.read(out)["model"]
    again = CliRunner().invoke(
        build(), ["checkpoints", "convert", str(source), "--to", "detectron2", str(out)]
    )
    assert again.exit_code != 0
    wrong = CliRunner().invoke(
        build(), ["checkpoints", "convert", str(source), "--to", "onnx", str(tmp_path / "y")]
    )
    assert wrong.exit_code != 0
