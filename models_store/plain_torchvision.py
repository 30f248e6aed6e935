"""Python that rebuilds a detector with torchvision (and timm) alone, so that its weights.safetensors loads strictly."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import timm
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from models_store.archs.anchors import generator_of
from models_store.archs.base import ARCHITECTURES, Architecture, BuildSpec
from models_store.archs.fasterrcnn_fpn import REGIONS, ROI_CELLS
from models_store.archs.pyramid import OUT_CHANNELS, PyramidBackbone, SimplePyramid
from models_store.bodies.build import TIMM_OPTIONS, TimmBody
from models_store.bodies.norms import GROUPS, norm_of
from models_store.bodies.outline import outline
from models_store.errors import Unusable
from models_store.manifest import Input, Manifest

# Parts of a classifier that hold its steps; ours are named through them, IntermediateLayerGetter's are not.
CONTAINERS = ("features", "layers", "trunk_output")
STRIDES = """for block in model.backbone.body.modules():
    if hasattr(block, "conv3") and block.conv2.stride != (1, 1):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
"""
PLACED = ("fasterrcnn_fpn", "fasterrcnn_fpn_v2", "maskrcnn_fpn", "retinanet")

# What these lines do not say.
OWN_OPTIONS = {"pyramid", "roi_aligned", "norm_eps", "head_norm", "stride_in_1x1"}


def code_for(manifest: Manifest) -> str:
    """Lines that leave the detector in ``model``, fresh, and in ``rename`` what its file's keys are there.

    Raises Unusable ``unsuitable`` for what torchvision has no parts for, with the reason.
    """
    architecture = ARCHITECTURES[manifest.architecture]
    if architecture.builder is not None:
        return _builder(architecture, manifest)
    name = manifest.architecture.removeprefix("detrank/")
    if name not in PLACED:
        raise Unusable(
            "unsuitable",
            f"torchvision has no {architecture.title}: load it with models_store.load_detector",
        )
    own = OWN_OPTIONS | ({"neck_channels"} if name == "retinanet" else set())
    if used := sorted(own & set(manifest.options)):
        raise Unusable(
            "unsuitable",
            f"it is built with {', '.join(used)}, for which there are no plain lines: load it with models_store.load_detector",
        )
    return _placed(name, architecture, manifest)


def _builder(architecture: Architecture, manifest: Manifest) -> str:
    arguments: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": _outputs(manifest)}
    if manifest.input.fixed_size is None:
        arguments |= {"min_size": manifest.input.min_size, "max_size": manifest.input.max_size}
    arguments |= _pixels(manifest.input)
    if keypoints := manifest.options.get("num_keypoints"):
        arguments["num_keypoints"] = keypoints
    code = f"import torchvision\n\nmodel = torchvision.models.detection.{architecture.builder}({_call(arguments)})\n"
    if manifest.input.fixed_size != architecture.input.fixed_size:
        height, width = manifest.input.fixed_size  # type: ignore[misc]
        code += f"model.transform.fixed_size = ({width}, {height})\n"
    if manifest.options.get("stride_in_1x1"):
        code += STRIDES
    if "anchors" in manifest.options:
        owner = "model.rpn" if architecture.family == "two_stage" else "model"
        own = generator_of(manifest.options["anchors"])
        generator = f"torchvision.models.detection.anchor_utils.{_anchors(own)}"
        code += f"{owner}.anchor_generator = {generator}\n"
    return code


def _placed(name: str, architecture: Architecture, manifest: Manifest) -> str:
    spec = BuildSpec(manifest.num_classes or 1, manifest.input, manifest.backbone, manifest.options)
    module = outline(lambda: architecture.build(spec))
    backbone: PyramidBackbone = module.backbone
    if isinstance(backbone.fpn, SimplePyramid):
        raise Unusable(
            "unsuitable",
            f"{manifest.backbone} has one stride, and its pyramid (arXiv 2203.16527) is no part of torchvision: load it "
            "with models_store.load_detector",
        )
    default = None if name in ("fasterrcnn_fpn", "retinanet") else "bn"
    norm = _norm(norm_of(manifest.options, default))
    neck = norm if name in ("fasterrcnn_fpn_v2", "maskrcnn_fpn") else None
    lines = [*IMPORTS, *_backbone(backbone, str(manifest.backbone), neck, retina=name == "retinanet")]
    shared = {
        "num_classes": _outputs(manifest),
        "min_size": manifest.input.min_size,
        "max_size": manifest.input.max_size,
        **_pixels(manifest.input),
        "size_divisible": backbone.divisor,
    }
    if name == "retinanet":
        gn = norm if norm and "GroupNorm" in norm else None
        head = f"RetinaNetHead({OUT_CHANNELS}, {module.anchor_generator.num_anchors_per_location()[0]}, {_outputs(manifest)}, norm_layer={gn})"
        parts = {"anchor_generator": _anchors(module.anchor_generator), "head": head}
        lines.append(f"model = RetinaNet(backbone, {_call(shared)}, {_parts(parts)})")
        return "\n".join(lines) + "\n"
    levels = [str(i) for i in range(backbone.levels)]
    parts = {
        "rpn_anchor_generator": _anchors(module.rpn.anchor_generator),
        "box_roi_pool": f"MultiScaleRoIAlign({levels}, 7, 2)",
    }
    if name != "fasterrcnn_fpn":
        depth = 2 if name == "fasterrcnn_fpn_v2" else 1
        parts["rpn_head"] = f"RPNHead({OUT_CHANNELS}, 3, conv_depth={depth})"
        parts["box_head"] = f"FastRCNNConvFCHead(({OUT_CHANNELS}, 7, 7), [256] * 4, [1024], {norm})"
    if name == "maskrcnn_fpn":
        parts["mask_roi_pool"] = f"MultiScaleRoIAlign({levels}, 14, 2)"
        parts["mask_head"] = f"MaskRCNNHeads({OUT_CHANNELS}, [256] * 4, 1, {norm})"
        shared |= {"rpn_post_nms_top_n_train": 1000, "rpn_post_nms_top_n_test": 1000}
    if name == "fasterrcnn_fpn" and (width := manifest.options.get("head_width")):
        parts["box_head"] = f"TwoMLPHead({backbone.out_channels * ROI_CELLS}, {width})"
        parts["box_predictor"] = f"FastRCNNPredictor({width}, {shared.pop('num_classes')})"
    shared |= {option: manifest.options[option] for option in REGIONS if option in manifest.options}
    kind = "MaskRCNN" if name == "maskrcnn_fpn" else "FasterRCNN"
    lines.append(f"model = {kind}(backbone, {_call(shared)}, {_parts(parts)})")
    return "\n".join(lines) + "\n"


IMPORTS = (
    "from collections import OrderedDict",
    "from functools import partial",
    "",
    "import torch",
    "import torchvision",
    "from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet",
    "from torchvision.models.detection.anchor_utils import AnchorGenerator",
    "from torchvision.models.detection.backbone_utils import BackboneWithFPN",
    "from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead",
    "from torchvision.models.detection.mask_rcnn import MaskRCNNHeads",
    "from torchvision.models.detection.retinanet import RetinaNetHead",
    "from torchvision.models.detection.rpn import RPNHead",
    "from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign",
    "from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7",
    "",
)


def _backbone(backbone: PyramidBackbone, name: str, norm: str | None, *, retina: bool) -> list[str]:
    stages = {stage.name: stage for stage in backbone.body.stages}
    taken = [stages[stage] for stage in backbone.takes]
    channels = [stage.channels for stage in taken]
    extra = f"LastLevelP6P7({OUT_CHANNELS}, {OUT_CHANNELS})" if retina else "LastLevelMaxPool()"
    library, _, bare = name.partition("/")
    if isinstance(backbone.body, TimmBody):
        return _timm_backbone(
            bare, len(backbone.body.stages), backbone.out_channels, taken, channels, extra, norm
        )
    if library != "torchvision" or backbone.body.channels_last:
        raise Unusable(
            "unsuitable",
            f"{name} cannot be placed in a pyramid by torchvision alone: load it with models_store.load_detector",
        )
    steps, lines = _steps(backbone.body, bare)
    layers = {steps[stage.index]: str(level) for level, stage in enumerate(taken)}
    return [
        *lines,
        f"backbone = BackboneWithFPN(body, {layers}, {channels}, {backbone.out_channels}, {extra}, {norm})",
    ]


def _steps(body: nn.Module, name: str) -> tuple[list[str], list[str]]:
    """The names of a torchvision classifier's steps, and the code that puts them one after another in ``body``."""
    steps: list[str] = []
    terms: list[str] = []
    for child, module in body.named_children():
        if child in CONTAINERS:
            steps += [inner for inner, _ in module.named_children()]
            terms.append(f"*net.{child}.named_children()")
        else:
            steps.append(child)
            terms.append(f'("{child}", net.{child})')
    if body.last_relu:
        steps.append("relu")
        terms.append('("relu", torch.nn.ReLU())')
    lines = [
        f"net = torchvision.models.{name}(weights=None)",
        f"body = torch.nn.Sequential(OrderedDict([{', '.join(terms)}]))",
    ]
    used = [child for child, _ in body.named_children() if child in CONTAINERS]
    if used:
        lines.append(f'rename = [("backbone.body.{used[0]}.", "backbone.body.")]')
    return steps, lines


def _timm_backbone(
    name: str, count: int, width: int, taken: list, channels: list[int], extra: str, norm: str | None
) -> list[str]:
    call = "".join(f", {key}={value!r}" for key, value in _timm_options(name).items())
    indices = [stage.index for stage in taken]
    return [
        "import timm",
        "",
        "",
        "class Backbone(torch.nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.body = torch.nn.Module()",
        f'        self.body.model = timm.create_model("{name}", pretrained=False{call})',
        "        count = len(self.body.model.feature_info)",
        "        self.body.model.prune_intermediate_layers(list(range(count)), prune_norm=False, prune_head=True)",
        f"        self.fpn = FeaturePyramidNetwork({channels}, {width}, {extra}, {norm})",
        f"        self.out_channels = {width}",
        "",
        "    def forward(self, x):",
        f"        maps = self.body.model.forward_intermediates(x, indices={indices}, norm=False, intermediates_only=True)",
        '        return self.fpn(OrderedDict(zip("0123", maps)))',
        "",
        "",
        "backbone = Backbone()",
    ]


def _timm_options(name: str) -> dict[str, Any]:
    for options in TIMM_OPTIONS:
        with contextlib.suppress(TypeError):
            outline(partial(timm.create_model, name, pretrained=False, **options))
            return options
    raise Unusable("unknown_architecture", f"timm cannot build {name!r} without further options")


def _norm(kind: str | None) -> str | None:
    """Frozen and synchronised norms compute, in evaluation, what plain ones do."""
    if kind == "gn":
        return f"partial(torch.nn.GroupNorm, {GROUPS})"
    return None if kind is None else "torch.nn.BatchNorm2d"


def _anchors(generator: AnchorGenerator) -> str:
    return f"AnchorGenerator({generator.sizes}, {generator.aspect_ratios})"


def _outputs(manifest: Manifest) -> int:
    return (manifest.num_classes or 1) + int(manifest.has_background)


def _pixels(spec: Input) -> dict[str, Any]:
    return {"image_mean": list(spec.mean), "image_std": list(spec.std)}


def _call(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _parts(parts: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in parts.items())
