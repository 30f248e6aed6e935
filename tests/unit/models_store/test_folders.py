"""Folders of transformers and timm as people have them: in parts, a folder or two down, with timm's own config.json."""

import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from detr_configs import random_detr
from safetensors.torch import save_file

from models_store import Unusable, archives
from models_store.inspect import inspect
from tests.unit.models_store.conftest import asked_in


@pytest.fixture
def detr(tmp_path: Path) -> Path:
    module = random_detr("detr")
    folder = tmp_path / "model"
    folder.mkdir()
    module.config.save_pretrained(folder)
    save_file({k: v.clone() for k, v in module.state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def timm_folder(tmp_path: Path) -> Path:
    """As `timm.models.push_to_hf_hub` writes it."""
    torch.manual_seed(0)
    folder = tmp_path / "timm"
    folder.mkdir()
    net = timm.create_model("efficientnet_lite0", num_classes=4)
    save_file({k: v.clone() for k, v in net.state_dict().items()}, folder / "model.safetensors")
    config = {
        "architecture": "efficientnet_lite0.mine_ft",
        "num_classes": 4,
        "num_features": 1280,
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 224, 224]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def into_parts(folder: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for part, keys in parts.items():
        torch.save({k: tensors[k] for k in keys}, folder / part)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {k: part for part, keys in parts.items() for k in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_torch_weights_in_parts(detr, convert_inline, tmp_path):
    whole = convert_inline(archives.pack(detr, tmp_path), tmp_path / "whole")
    into_parts(detr)
    parts = convert_inline(archives.pack(detr, tmp_path), tmp_path / "parts")
    assert parts.weights_sha256 == whole.weights_sha256
    next(detr.glob("pytorch_model-00002*")).unlink()
    with pytest.raises(Unusable, match="all its parts"):
        convert_inline(archives.pack(detr, tmp_path), tmp_path / "lacking")


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_two_folders_deep(detr, kind, convert_inline, tmp_path):
    wanted = convert_inline(archives.pack(detr, tmp_path), tmp_path / "whole").weights_sha256
    outer = tmp_path / "outer"
    (outer / "run").mkdir(parents=True)
    detr.rename(outer / "run" / "checkpoint-9")
    if kind == "folder":
        source = archives.pack(outer, tmp_path)
    elif kind == "tar":
        source = tmp_path / "x.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(outer / "run", "run")
    else:
        source = tmp_path / "x.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in sorted((outer / "run").rglob("*.*")):
                archive.write(file, file.relative_to(outer))
    assert inspect(source).container == "archive"
    assert convert_inline(source, tmp_path / kind).weights_sha256 == wanted


def test_of_several_models_one_must_be_sent(detr, convert_inline, tmp_path):
    outer = tmp_path / "outer"
    for name in ("checkpoint-1", "checkpoint-2"):
        (outer / name).mkdir(parents=True)
        for file in detr.iterdir():
            (outer / name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(Unusable, match="checkpoint-1, checkpoint-2") as refusal:
        archives.pack(outer, tmp_path)
    assert refusal.value.code == "ambiguous"
    # The advice works, and a model at the top is taken before its checkpoints.
    convert_inline(archives.pack(outer / "checkpoint-1", tmp_path), tmp_path / "one")
    for file in detr.iterdir():
        file.rename(outer / file.name)
    convert_inline(archives.pack(outer, tmp_path), tmp_path / "top")


def test_names_of_another_head_are_left_out_with_a_note(detr, convert_inline, tmp_path):
    assert not any("were left out" in note for note in convert_inline(archives.pack(detr, tmp_path)).notes)
    config = json.loads((detr / "config.json").read_text())
    config["id2label"] = {str(i): f"kind {i}" for i in range(5)}
    (detr / "config.json").write_text(json.dumps(config))
    manifest = convert_inline(archives.pack(detr, tmp_path), tmp_path / "other")
    assert (manifest.num_classes, manifest.class_names) == (3, None)
    assert any("names 5 classes and the head has 3" in note for note in manifest.notes)


def test_a_timm_folder_says_what_it_is(timm_folder, convert_inline, tmp_path):
    """The file alone is a question, as its twin sees pictures otherwise."""
    manifest = convert_inline(archives.pack(timm_folder, tmp_path))
    assert (manifest.kind, manifest.backbone) == ("backbone", "timm/efficientnet_lite0")
    assert (manifest.input.mean, manifest.input.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert asked_in(manifest) == ()
    with pytest.raises(Unusable, match="may be"):
        convert_inline(timm_folder / "model.safetensors", tmp_path / "alone")
    placed = convert_inline(
        archives.pack(timm_folder, tmp_path), tmp_path / "retinanet", architecture="detrank/retinanet"
    )
    assert placed.architecture == "detrank/retinanet"


def test_a_network_that_timm_does_not_have_is_named(timm_folder, convert_inline, tmp_path):
    (timm_folder / "config.json").write_text(json.dumps({"architecture": "my_net", "num_classes": 4}))
    with pytest.raises(Unusable, match="'my_net'") as refusal:
        convert_inline(archives.pack(timm_folder, tmp_path))
    assert refusal.value.code == "unknown_architecture"


def test_backbones_of_transformers_that_are_not_read_are_led_to_timm(detr, convert_inline, tmp_path):
    (detr / "config.json").write_text(json.dumps({"model_type": "efficientnet", "hidden_dim": 1280}))
    with pytest.raises(Unusable, match="timm://"):
        convert_inline(archives.pack(detr, tmp_path))
