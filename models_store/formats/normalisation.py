"""Mean, std and channel order that lie beside the weights: in training arguments, in a configuration, as buffers of a module.

Who trained with other pixels than ImageNet's mostly says so somewhere in the file; read as ImageNet's, the weights are another
network's.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from models_store.formats.class_names import DEEPEST, WHERE
from models_store.known import ALIKE, MEAN_LEADS, in_unit, metadata_input
from models_store.manifest import IMAGENET_MEAN

# Where a configuration keeps its pixels, beside where it keeps its class names; in small letters.
INSIDE = (
    *(name.lower() for name in WHERE),
    "data",
    "dataset",
    "data_config",
    "data_cfg",
    "pretrained_cfg",
    "default_cfg",
    "model",
    "input",
    "model_kwargs",
    "kwargs",
    "preprocessing",
    "preprocess",
    "preprocessor",
    "data_preprocessor",
    "img_norm_cfg",
    "normalize",
    "normalization",
    "normalisation",
    "transform",
    "transforms",
)
ORDER = ("channel_order", "color_order", "colour_order", "color_space", "channel_format", "format")
# OpenMMLab's: whether pictures, which are read as BGR, are turned before the network sees them.
TURNS = ("to_rgb", "bgr_to_rgb")
BUFFER = re.compile(rf"(?P<before>(?:.*\.)?)(?P<lead>{'|'.join(MEAN_LEADS)})(?P<what>mean|std)")
# detectron2's own stem, whose recogniser reads its pixel_mean by itself.
DETECTRON2 = "stem.conv1.weight"
TEXT = re.compile(r"(img_norm_cfg|data_preprocessor)\s*=\s*dict\((?P<inside>[^()]*)\)")
LIST = r"\b{}\s*=\s*[\[(]([^\])]*)[\])]"
MOST_TEXT = 1_000_000


@dataclass(frozen=True)
class Pixels:
    """``mean`` and ``std`` for RGB in [0, 1], both or neither; ``order``: ``rgb`` or ``bgr`` where the file says it; ``where`` they
    stood."""

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    order: str | None
    where: str


def beside(obj: object) -> Pixels | None:
    """What the objects beside the weights say; None where they say nothing of three channels each, nor of their order."""
    return _search(obj, "", 0, _values_in) or _search(obj, "", 0, _order_in)


def in_metadata(metadata: Mapping[str, str]) -> Pixels | None:
    """The same of a safetensors file, whose values are words."""
    return beside({**metadata, **metadata_input(metadata)})


def as_buffers(tensors: Mapping[str, Tensor]) -> tuple[Pixels | None, list[str]]:
    """(what a module for normalising holds, its names); its buffers are no weights of the network.

    Several such modules, as an attacker's beside the network's own, must agree; else none is believed.
    """
    if any(key.endswith(DETECTRON2) for key in tensors):
        return None, []
    pairs: dict[str, dict[str, str]] = {}
    for key, value in tensors.items():
        match = BUFFER.fullmatch(key)
        if match and value.numel() == 3 and value.is_floating_point():
            pairs.setdefault(match["before"] + match["lead"], {})[match["what"]] = key
    found: list[Pixels] = []
    names: list[str] = []
    for pair in pairs.values():
        if len(pair) == 2:
            mean, std = (tensors[pair[what]].flatten().tolist() for what in ("mean", "std"))
            if pixels := _settled(mean, std, None, pair["mean"]):
                found.append(pixels)
                names += pair.values()
    same = len({(each.mean, each.std) for each in found}) == 1
    return (found[0] if same else None), names


def _search(
    obj: object, path: str, depth: int, found_in: Callable[[Mapping[str, Any], str], Pixels | None]
) -> Pixels | None:
    held = vars(obj) if isinstance(obj, argparse.Namespace) else obj
    if isinstance(held, str):
        return _in_text(held[:MOST_TEXT], path) if found_in is _values_in else None
    if not isinstance(held, Mapping) or depth > DEEPEST:
        return None
    values = {str(key).lower(): value for key, value in held.items()}
    if pixels := found_in(values, path):
        return pixels
    for name in INSIDE:
        if (inner := values.get(name)) is None:
            continue
        if pixels := _search(inner, f"{path}{name}.", depth + 1, found_in):
            # detectron2's configuration keeps the order in another part than the values.
            if pixels.order is None and _order(values) == "bgr" and pixels.mean and pixels.std:
                return replace(pixels, mean=pixels.mean[::-1], std=pixels.std[::-1], order="bgr")
            return pixels
    return None


def _values_in(held: Mapping[str, Any], path: str) -> Pixels | None:
    order = _order(held)
    pairs = ((held.get(f"{lead}mean"), held.get(f"{lead}std"), f"{path}{lead}mean") for lead in MEAN_LEADS)
    return next((p for mean, std, where in pairs if (p := _settled(mean, std, order, where))), None)


def _order_in(held: Mapping[str, Any], path: str) -> Pixels | None:
    order = _order(held)
    return Pixels(None, None, order, path.rstrip(".") or "the file") if order else None


def _order(held: Mapping[str, Any]) -> str | None:
    for key in ORDER:
        if isinstance(value := held.get(key), str) and value.lower() in ("rgb", "bgr"):
            return value.lower()
    for key in TURNS:
        if isinstance(value := held.get(key), bool):
            return "rgb" if value else "bgr"
    inner = held.get("input")
    return _order({str(k).lower(): v for k, v in inner.items()}) if isinstance(inner, Mapping) else None


def _in_text(text: str, path: str) -> Pixels | None:
    """OpenMMLab keeps its whole configuration as the text of a program, which is read and not run."""
    for match in TEXT.finditer(text):
        inside = match["inside"]
        mean, std = (re.search(LIST.format(what), inside) for what in ("mean", "std"))
        if mean is None or std is None:
            continue
        said = re.search(r"\b(?:bgr_)?to_rgb\s*=\s*(True|False)", inside)
        # Their defaults where nothing is said: pictures are turned by the older transform and not by the newer module.
        turned = said[1] == "True" if said else match[1] == "img_norm_cfg"
        values = _numbers(mean[1]), _numbers(std[1])
        if pixels := _settled(*values, "rgb" if turned else "bgr", f"{path}{match[1]}"):
            return pixels
    return None


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        return []


def _settled(mean: object, std: object, order: str | None, where: str) -> Pixels | None:
    """The pair for RGB in [0, 1]; None where it is not three finite numbers each."""
    values = [_three(each) for each in (mean, std)]
    if values[0] is None or values[1] is None or min(values[1]) <= 0:
        return None
    pixels = in_unit({"mean": values[0], "std": values[1]})
    turned = pixels["mean"][::-1]
    if order is None and all(abs(a - b) < ALIKE for a, b in zip(turned, IMAGENET_MEAN, strict=True)):
        # ImageNet's own mean the other way round: nobody's reds are that dark.
        order = "bgr"
    if order == "bgr":
        pixels = {key: value[::-1] for key, value in pixels.items()}
    return Pixels(pixels["mean"], pixels["std"], order, where.rstrip("."))


def _three(value: object) -> tuple[float, ...] | None:
    if isinstance(value, Tensor):
        value = value.flatten().tolist() if value.numel() == 3 else None
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        return None
    return tuple(float(v) for v in value)
