"""The module from a plain configuration: classes by name from our list, no remote code, no download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PretrainedConfig

from models_store.detr.build import IGNORED, allocation, plain
from models_store.errors import Unusable
from models_store.open_vocabulary.families import Family

# What a preprocessor_config.json may say to transformers' image processor.
PREPROCESSING = (
    "do_convert_rgb",
    "do_normalize",
    "do_pad",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
)
LONGEST_SIDE = 4096


def plain_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a config.json that describe the networks, those of the networks inside too."""
    config = plain(raw)
    for name, inner in config.items():
        if name.endswith("_config") and isinstance(inner, Mapping):
            config[name] = {
                key: value
                for key, value in inner.items()
                if key == "model_type" or (key not in IGNORED and not key.startswith("_"))
            }
    return config


def config_of(family: Family, raw: Mapping[str, Any]) -> PretrainedConfig:
    """Raises Unusable ``bad_config`` where transformers does not accept it, or a network inside is another than may be."""
    config = plain_config(raw)
    for name, kinds in family.parts.items():
        inner = config.get(name)
        kind = inner.get("model_type") if isinstance(inner, Mapping) else None
        if kind is not None and kind not in kinds:
            raise Unusable(
                "bad_config",
                f"{name} of config.json names {str(kind)[:60]!r}, which is not read in {family.title}: {', '.join(kinds)} are; "
                "send the published model's folder",
            )
    try:
        made = getattr(transformers, family.config_class)(**config)
    except (TypeError, ValueError, KeyError, AttributeError, OSError, StrictDataclassError) as error:
        raise Unusable(
            "bad_config", f"config.json is no {family.model_type} configuration: {str(error)[:300]}"
        ) from None
    backbone = getattr(made, "backbone_config", None)
    if backbone is not None:
        if hasattr(backbone, "use_pretrained_backbone"):
            backbone.use_pretrained_backbone = False
        network = getattr(backbone, "backbone", None)
        if network is not None and not timm.is_model(str(network)):
            raise Unusable("bad_config", f"the backbone {str(network)[:100]!r} is no model of timm")
    return made


def build(family: Family, config: Mapping[str, Any]) -> nn.Module:
    """With fresh weights, in evaluation mode. Raises Unusable ``bad_config``."""
    made = config_of(family, config)
    with allocation():
        return getattr(transformers, family.module_class)(made).eval()


def preprocessing_of(family: Family, raw: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a preprocessor_config.json the family's image processor is made with. Raises Unusable ``bad_config``."""
    kept = {name: value for name, value in (raw or {}).items() if name in PREPROCESSING and value is not None}
    if isinstance(kept.get("size"), int):
        kept["size"] = {"shortest_edge": kept["size"], "longest_edge": (raw or {}).get("max_size", 1333)}
    sides = image_processor(family, kept).size
    given = [getattr(sides, name, None) for name in ("height", "width", "shortest_edge", "longest_edge")]
    if any(not isinstance(side, int) or not 1 <= side <= LONGEST_SIDE for side in given if side is not None):
        raise Unusable(
            "bad_config",
            f"preprocessor_config.json asks for pictures of {kept.get('size')}: sides from 1 to {LONGEST_SIDE} are read; correct it",
        )
    return kept


def image_processor(family: Family, kept: Mapping[str, Any], image_size: int | None = None) -> Any:
    """transformers' own; `image_size`: the shorter side in place of its own, the longer in proportion."""
    made = dict(kept)
    try:
        processor = getattr(transformers, family.image_processor)(**made)
        if image_size is None:
            return processor
        size = processor.size
        made["size"] = {
            "shortest_edge": image_size,
            "longest_edge": round(image_size * size.longest_edge / size.shortest_edge),
        }
        return getattr(transformers, family.image_processor)(**made)
    except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
        raise Unusable("bad_config", f"preprocessor_config.json cannot be used: {str(error)[:300]}") from None
