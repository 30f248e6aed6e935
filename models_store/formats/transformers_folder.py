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
from models_store.formats.state import COUNTER, Recognised, StateDict
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD

UNNAMED = re.compile(r"LABEL_\d+")
RESAMPLE = {2: "bilinear", 3: "bicubic"}


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None without a config.json. Raises Unusable: ``unknown_architecture``, ``bad_config``, ``missing_keys``,
    ``unmapped_keys``, ``shape_mismatch``."""
    if state.config is None:
        return None
    family = FAMILIES.get(str(state.config.get("model_type")))
    if family is None:
        raise Unusable(
            "unknown_architecture",
            f"config.json says model_type {str(state.config.get('model_type'))[:60]!r}; object detectors that are "
            f"read are {', '.join(FAMILIES)}",
        )
    labels = _labels(state.config, state.tensors, family)
    config = config_of(family, state.config, labels)
    tensors = _loaded(family, config, state.tensors)
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
    spec, resample, notes = preprocessing(state.preprocessor)
    if resample != "bilinear":
        options["resample"] = resample
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
        notes=(*state.notes, *notes),
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
def _loaded(family: Family, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the module after transformers' own loading, which knows its older names; nothing left over."""
    given = {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}
    try:
        with _quiet():
            module, info = getattr(transformers, family.module_class).from_pretrained(
                None, config=config, state_dict=given, output_loading_info=True, dtype=torch.float32,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
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


def preprocessing(raw: Mapping[str, Any] | None) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """(fields of Input, interpolation, notes) from preprocessor_config.json."""
    if raw is None:
        return (
            {},
            "bilinear",
            ("there was no preprocessor_config.json: the architecture's usual input was taken",),
        )
    spec: dict[str, Any] = {}
    size = raw.get("size")
    if isinstance(size, int):
        size = {"shortest_edge": size, "longest_edge": raw.get("max_size", 1333)}
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            spec["fixed_size"] = (int(size["height"]), int(size["width"]))
        elif "shortest_edge" in size:
            low = int(size["shortest_edge"])
            spec |= {
                "fixed_size": None,
                "min_size": low,
                "max_size": int(size.get("longest_edge") or 10 * low),
            }
    if raw.get("do_normalize", True) is False:
        spec |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    else:
        spec["mean"] = tuple(raw.get("image_mean") or IMAGENET_MEAN)
        spec["std"] = tuple(raw.get("image_std") or IMAGENET_STD)
    factor = raw.get("rescale_factor", 1 / 255)
    notes: tuple[str, ...] = ()
    if raw.get("do_rescale", True) is False or abs(float(factor) - 1 / 255) > 1e-6:
        notes = ("its preprocessor does not scale pixels by 1/255; here they are",)
    return spec, RESAMPLE.get(raw.get("resample", 2), "bilinear"), notes
