"""A transformers object-detection folder to its module's own names in memory, whichever version wrote it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.utils import logging

from models_store.detr.build import config_of, plain
from models_store.detr.families import FAMILIES, Family, architecture_name
from models_store.errors import Unusable, some
from models_store.formats.preprocessor import NO_PREPROCESSOR, preprocessing
from models_store.formats.state import COUNTER, Recognised, StateDict
from models_store.formats.timm_folder import is_timm
from models_store.formats.transformers_bodies import KINDS

# transformers' classifiers and encoders that are not read, of networks that timm has too.
BACKBONE_TYPES = ("beit", "dinov3", "efficientnet", "focalnet", "hgnet", "mobilenet", "pvt")
UNNAMED = re.compile(r"LABEL_\d+")


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None without a config.json, or with that of a backbone. Raises Unusable: ``unknown_architecture``, ``bad_config``, ``missing_keys``,
    ``unmapped_keys``, ``shape_mismatch``."""
    if state.config is None or is_timm(state.config) or state.config.get("model_type") in KINDS:
        return None
    family = FAMILIES.get(str(state.config.get("model_type")))
    if family is None:
        raise _other(state.config)
    labels = _labels(state.config, state.tensors, family)
    config = config_of(family, state.config, labels)
    tensors = loaded(family, config, state.tensors)
    names = state.config.get("id2label")
    resolved = plain(config.to_dict())
    backbone = resolved.get("backbone_config")
    if isinstance(backbone, Mapping):
        resolved["backbone_config"] = {k: v for k, v in backbone.items() if not k.startswith("_")} | {
            "model_type": config.backbone_config.model_type
        }
    options: dict[str, Any] = {"config": resolved}
    if family.model_type == "deformable_detr":
        options["shared_heads"] = not config.with_box_refine and _alike(tensors)
    spec, more, warnings = (
        ({}, {}, (NO_PREPROCESSOR.format(title=family.model_type),))
        if state.preprocessor is None
        else preprocessing(state.preprocessor)
    )
    options |= more
    return Recognised(
        format="transformers",
        kind="detector",
        architecture=architecture_name(family.model_type),
        tensors=tensors,
        num_classes=labels,
        class_names=_class_names(names, labels),
        dropped=state.dropped,
        input=spec,
        options=options,
        notes=(*state.notes, *_unnamed(names, labels)),
        warnings=warnings,
    )


def _other(config: Mapping[str, Any]) -> Unusable:
    """Of a model that is no detector: of backbones the same weights are had in timm's form."""
    kind = str(config.get("model_type"))[:60]
    instead = (
        "; its weights are read in timm's form, timm://<name> or its file"
        if kind.startswith(BACKBONE_TYPES)
        else ""
    )
    return Unusable(
        "unknown_architecture",
        f"config.json says model_type {kind!r}, which is not read{instead}; object detectors that are read are "
        f"{', '.join(FAMILIES)}",
    )


def _labels(config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family) -> int:
    """From the class head; config.json may only agree."""
    said = (
        len(config["id2label"]) if isinstance(config.get("id2label"), Mapping) else config.get("num_labels")
    )
    heads = [
        t.shape[0]
        for k, t in tensors.items()
        if t.dim() == 2
        and "denoising" not in k
        and any(re.fullmatch(pattern, k) for pattern in family.class_heads)
    ]
    if heads:
        return heads[0] - int(family.no_object)
    if not isinstance(said, int):
        raise Unusable("missing_keys", f"the weights have no class head of {family.title}")
    return said


@torch.no_grad()
def loaded(family: Family, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the module after transformers' own loading, which knows its older names; nothing left over."""
    given = {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}
    try:
        with _quiet():
            module, info = getattr(transformers, family.module_class).from_pretrained(
                None,
                config=config,
                state_dict=given,
                output_loading_info=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
            )
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        if "alloc" in str(error):
            raise MemoryError(str(error)[:200]) from None
        raise Unusable("bad_config", f"transformers cannot load it: {str(error)[:300]}") from None
    if wrong := sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]
    ):
        raise Unusable(
            "shape_mismatch",
            f"{len(wrong)} tensors have another shape than config.json says: {some(wrong)}",
            [{"key": key, "message": "another shape"} for key in wrong],
        )
    for code, found, what in (
        ("missing_keys", info["missing_keys"], "are missing"),
        ("unmapped_keys", info["unexpected_keys"], "have no place in the architecture"),
    ):
        keys = sorted(key for key in found if not key.endswith(COUNTER))
        if keys:
            raise Unusable(
                code, f"{len(keys)} tensors {what}: {some(keys)}", [{"key": k, "message": what} for k in keys]
            )
    return {k: v.detach() for k, v in module.state_dict().items() if not k.endswith(COUNTER)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What transformers would print about the keys is in the refusal."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _alike(tensors: Mapping[str, Tensor]) -> bool:
    heads = {k: v for k, v in tensors.items() if k.startswith(("class_embed.", "bbox_embed."))}
    return all(
        torch.equal(v, heads[re.sub(r"^(class_embed|bbox_embed)\.\d+", r"\1.0", k)]) for k, v in heads.items()
    )


def _class_names(names: object, labels: int) -> tuple[str, ...] | None:
    if not isinstance(names, Mapping) or len(names) != labels:
        return None
    ordered = [names.get(str(i), names.get(i)) for i in range(labels)]
    if any(name is None or UNNAMED.fullmatch(str(name)) for name in ordered):
        return None
    return tuple(str(name)[:200] for name in ordered)


def _unnamed(names: object, labels: int) -> tuple[str, ...]:
    """A note where the names are of another head, as of one that was replaced without its configuration."""
    if not isinstance(names, Mapping) or len(names) == labels:
        return ()
    if all(UNNAMED.fullmatch(str(name)) for name in names.values()):
        return ()
    return (
        f"config.json names {len(names)} classes and the head has {labels}: its names were left out; class_names gives them",
    )
