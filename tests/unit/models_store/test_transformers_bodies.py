"""Folders of transformers' classifiers and encoders: their maps are those of transformers' own module."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models_store import archives, formats, load_detector
from models_store.errors import Unusable
from models_store.formats.reasons import UNKNOWN, why_dropped
from models_store.formats.state import StateDict
from tests.unit.models_store.family_table import furthest, measured

TINY_VIT = {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 12, "intermediate_size": 768}
SMALL_DINO = {"hidden_size": 384, "num_attention_heads": 6, "patch_size": 14, "image_size": 518}
SMALL_REGNET = {
    "embedding_size": 32,
    "hidden_sizes": [24, 56, 152, 368],
    "depths": [1, 1, 4, 7],
    "groups_width": 8,
}
RESNET_18 = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
# model_type: (class, configuration, the network that it is)
CASES = {
    "resnet": ("ResNetForImageClassification", RESNET_18, "torchvision/resnet18"),
    "regnet": ("RegNetForImageClassification", SMALL_REGNET, "timm/regnety_002"),
    "convnext": ("ConvNextForImageClassification", {}, "timm/convnext_tiny"),
    "convnextv2": (
        "ConvNextV2ForImageClassification",
        {"hidden_sizes": [40, 80, 160, 320], "depths": [2, 2, 6, 2]},
        "timm/convnextv2_atto",
    ),
    "swin": ("SwinForImageClassification", {}, "timm/swin_tiny_patch4_window7_224"),
    "swinv2": (
        "Swinv2ForImageClassification",
        {"image_size": 256, "window_size": 8},
        "timm/swinv2_tiny_window8_256",
    ),
    "vit": ("ViTForImageClassification", TINY_VIT, "timm/deit_tiny_patch16_224"),
    "vit_mae": (
        "ViTMAEForPreTraining",
        TINY_VIT
        | {"decoder_num_hidden_layers": 1, "decoder_hidden_size": 32, "decoder_num_attention_heads": 2},
        "timm/deit_tiny_patch16_224",
    ),
    "vit_msn": ("ViTMSNForImageClassification", TINY_VIT, "timm/deit_tiny_patch16_224"),
    "deit": ("DeiTForImageClassificationWithTeacher", TINY_VIT, "timm/deit_tiny_distilled_patch16_224"),
    "dinov2": ("Dinov2Model", SMALL_DINO, "timm/vit_small_patch14_dinov2"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersForImageClassification",
        SMALL_DINO,
        "timm/vit_small_patch14_reg4_dinov2",
    ),
}
PICTURES = {"swinv2": 256, "dinov2": 592, "dinov2_with_registers": 592}


def drawn(kind: str) -> nn.Module:
    name, given, _ = CASES[kind]
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    module = cls(cls.config_class(**given)).eval()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and "position_embeddings" not in key:
                tensor.add_(torch.randn_like(tensor) * 0.02)
    return module


def saved(module: nn.Module, folder: Path, *, preprocessor: bool = True) -> Path:
    module.save_pretrained(folder)
    if preprocessor:
        said = {
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "size": {"height": 224, "width": 224},
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def packed(folder: Path) -> Path:
    return archives.pack(folder, folder.parent)


@torch.no_grad()
def last_map(kind: str, module: nn.Module, pixels: Tensor) -> Tensor:
    """(1, C, h, w) of transformers' own module, before the norm of a classifier where there are several maps."""
    body = getattr(module, module.base_model_prefix, module)
    if kind in ("swin", "swinv2"):
        body.layernorm = nn.Identity()
    if kind == "vit_mae":
        body.config.mask_ratio = 0.0
        noise = torch.arange(196.0)[None]
        tokens = body(pixels, noise=noise).last_hidden_state
    else:
        tokens = body(pixels).last_hidden_state
    if tokens.dim() == 4:
        return tokens
    extra = {"vit": 1, "vit_mae": 1, "vit_msn": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 5}.get(
        kind, 0
    )
    tokens = tokens[:, extra:]
    side = int(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("kind", CASES)
def test_a_folder_is_the_body_that_transformers_has(kind, convert_inline, tmp_path):
    module = drawn(kind)
    manifest = convert_inline(packed(saved(module, tmp_path / "folder")))
    assert (manifest.kind, manifest.format) == ("backbone", "transformers_backbone")
    assert manifest.backbone == CASES[kind][2]
    assert (manifest.input.mean, manifest.input.std) == ((0.5,) * 3, (0.25,) * 3)
    assert manifest.input.fixed_size is None  # the preprocessor's is a classifier's
    assert manifest.warnings == ()
    assert [k for k in manifest.dropped_keys if why_dropped(manifest.format, k) == UNKNOWN] == []
    side = PICTURES.get(kind, 224)
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    seen = F.interpolate(pixels, size=518, mode="bilinear", align_corners=False) if side == 592 else pixels
    theirs = last_map(kind, module, seen)
    detector = load_detector(tmp_path / "converted")
    layer = "backbone.c4" if theirs.shape[-1] * 16 == side else "backbone.c5"
    with torch.no_grad():
        ours = detector.feature_maps(pixels, [layer])[layer]
    assert ours.shape == theirs.shape
    difference = furthest(ours, theirs) / float(theirs.abs().max())
    assert difference <= 1e-4
    measured(
        "backbones of transformers", f"transformers' folder, {kind}", "transformers' module", maps=difference
    )


def test_the_weights_alone_are_told_by_their_names(convert_inline, tmp_path):
    saved(drawn("resnet"), tmp_path / "folder")
    manifest = convert_inline(tmp_path / "folder" / "model.safetensors")
    assert manifest.backbone == "torchvision/resnet18"
    assert "no preprocessor_config.json" in manifest.warnings[0]


def test_a_part_saved_without_its_model_is_read_too(convert_inline, tmp_path):
    drawn("resnet").resnet.save_pretrained(tmp_path / "folder")
    assert convert_inline(packed(tmp_path / "folder")).backbone == "torchvision/resnet18"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"hidden_act": "silu"}, "hidden_act silu"),
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck True"),
    ],
)
def test_what_timm_computes_otherwise_is_refused(said, words, convert_inline, tmp_path):
    folder = saved(drawn("resnet"), tmp_path / "folder")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    with pytest.raises(Unusable, match=words) as refusal:
        convert_inline(packed(folder))
    assert refusal.value.code == "unsuitable"


def test_tensors_without_a_place_are_named(convert_inline, tmp_path):
    folder = saved(drawn("resnet"), tmp_path / "folder")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"resnet.adapter.weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(Unusable, match=r"resnet\.adapter\.weight"):
        convert_inline(packed(folder))


@pytest.mark.parametrize("broken", [torch.tensor(1.0), torch.ones(192), torch.ones(191, 192)])
def test_parts_that_cannot_be_joined_are_refused(broken):
    state = dict(drawn("vit").state_dict())
    folder = {"vit.encoder.layer.0.attention.attention.query.weight": torch.ones(192, 192)}
    folder |= {"vit.encoder.layer.0.attention.attention.key.weight": broken}
    folder |= {"vit.encoder.layer.0.attention.attention.value.weight": torch.ones(192, 192)}
    kept = {k: v for k, v in state.items() if "embeddings" in k}
    with pytest.raises(Unusable):
        formats.recognise(StateDict(kept | folder, True, config={"model_type": "vit"}))


def test_sizes_of_no_network_are_refused(convert_inline, tmp_path):
    odd = transformers.ResNetConfig(**RESNET_18 | {"hidden_sizes": [8, 16, 24, 32]}, embedding_size=64)
    transformers.ResNetForImageClassification(odd).save_pretrained(tmp_path / "folder")
    with pytest.raises(Unusable, match="of sizes that no network"):
        convert_inline(packed(tmp_path / "folder"))


def test_a_backbone_is_placed_where_it_is_asked_for(convert_inline, tmp_path):
    folder = saved(drawn("resnet"), tmp_path / "folder")
    assert (
        convert_inline(packed(folder), architecture="detrank/retinanet").architecture == "detrank/retinanet"
    )
