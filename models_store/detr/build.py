"""A transformers detector from a plain configuration: classes by name from our list, no remote code, no download."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PretrainedConfig

from models_store.detr.embedding import add_embedding_head
from models_store.detr.families import Family
from models_store.detr.sine import CentredSine
from models_store.errors import Unusable

# What a foreign config.json may say but never gets to decide here.
IGNORED = frozenset(
    {
        "architectures",
        "auto_map",
        "attn_implementation",
        "custom_pipelines",
        "dtype",
        "label2id",
        "id2label",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "quantization_config",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_pretrained_backbone",
    }
)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a config.json that describe the network."""
    return {k: v for k, v in config.items() if k not in IGNORED and not k.startswith("_")}


def config_of(family: Family, config: Mapping[str, Any], num_labels: int) -> PretrainedConfig:
    """Raises Unusable ``bad_config`` where transformers does not accept it or it names something to download."""
    config_class = getattr(transformers, family.config_class)
    try:
        made = config_class(**_plain_backbone(plain(config)), num_labels=num_labels)
    except (TypeError, ValueError, KeyError, AttributeError, OSError, StrictDataclassError) as error:
        raise Unusable(
            "bad_config", f"config.json is no {family.model_type} configuration: {str(error)[:300]}"
        ) from None
    backbone = made.backbone_config if hasattr(made, "backbone_config") else None
    if backbone is not None:
        if hasattr(backbone, "use_pretrained_backbone"):
            backbone.use_pretrained_backbone = False
        name = getattr(backbone, "backbone", None)
        if name is not None and not timm.is_model(str(name)):
            raise Unusable("bad_config", f"the backbone {str(name)[:100]!r} is no model of timm")
    if getattr(made, "backbone", None):
        raise Unusable(
            "bad_config",
            f"the backbone {str(made.backbone)[:100]!r} is only named: save the model again with save_pretrained, "
            "which writes backbone_config",
        )
    return made


def _plain_backbone(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("backbone_config")
    if isinstance(inner, Mapping):
        kept = {k: v for k, v in inner.items() if k == "model_type" or k not in IGNORED}
        config["backbone_config"] = {k: v for k, v in kept.items() if not k.startswith("_")}
    return config


def build(family: Family, options: Mapping[str, Any], num_labels: int) -> nn.Module:
    """The module with fresh weights.

    Options: ``config`` (as in config.json), ``centred_sine`` (DETReg's position embedding in DETR), ``shared_heads``
    (Deformable DETR without refinement: one head for all layers), ``embedding`` (DETReg's embedding head gives
    vectors of so many numbers).
    """
    config = config_of(family, options["config"], num_labels)
    if family.model_type == "deformable_detr":
        # transformers ties class heads over layers even where they are refined, and loading writes one into all.
        config.tie_word_embeddings = False
    with allocation():
        module = getattr(transformers, family.module_class)(config)
    if family.model_type == "deformable_detr":
        _join_heads(module, bool(options.get("shared_heads")))
    if options.get("centred_sine"):
        owner = module.model.backbone if family.model_type == "table-transformer" else module.model
        owner.position_embedding = CentredSine(config.d_model // 2)
    if options.get("embedding"):
        add_embedding_head(module, int(options["embedding"]))
    return module


@contextlib.contextmanager
def allocation() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise Unusable(
                "bad_config", f"transformers cannot build the network: {str(error)[:300]}"
            ) from None
        raise MemoryError(str(error)[:200]) from None
    except (ValueError, TypeError, AssertionError, KeyError, OSError, ImportError) as error:
        raise Unusable("bad_config", f"transformers cannot build the network: {str(error)[:300]}") from None


def _join_heads(module: nn.Module, shared: bool) -> None:
    """Modules that are one in the published model are one here, so that training moves them together."""
    if shared:
        module.class_embed = nn.ModuleList([module.class_embed[0]] * len(module.class_embed))
        module.bbox_embed = nn.ModuleList([module.bbox_embed[0]] * len(module.bbox_embed))
    if module.config.with_box_refine:
        module.model.decoder.bbox_embed = module.bbox_embed
    if module.config.two_stage:
        module.model.decoder.class_embed = module.class_embed
