"""What differs between transformers' query-based detectors, as data: where maps, memory and class heads are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

Memory = Literal["one", "levels", "maps", "none"]


@dataclass(frozen=True)
class Family:
    """One ``model_type`` of transformers.

    ``body``: path of the backbone, called with pixels alone, or of each that the family may have. ``encoder``: path of the module whose output is the
    memory. ``memory``: ``one`` flat map of the body's last size, ``levels`` flat maps one after another, ``maps``
    real maps, ``none``. ``tokens``: a plain transformer whose sequence holds the grid and the queries.
    ``class_heads``: regular expressions of the parameters that depend on the classes. ``no_object``: the last
    output is "no object" and probabilities are a softmax, otherwise each class has a sigmoid.
    ``masks``: the module reads ``pixel_mask``. ``set_loss``: trained with the loss of arXiv 2005.12872 or
    2010.04159, which is ours; the others use transformers' own. ``size_multiple``: of both sides of an input, where the
    configuration does not say it.
    """

    model_type: str
    title: str
    config_class: str
    module_class: str
    body: str | tuple[str, ...]
    encoder: str
    memory: Memory
    class_heads: tuple[str, ...]
    no_object: bool = False
    masks: bool = True
    set_loss: bool = True
    tokens: bool = False
    size_multiple: int = 1


LINEAR = (r"class_labels_classifier\.(weight|bias)",)
DENSE_HEADS = (
    r"(model\.decoder\.)?class_embed\.\d+\.(weight|bias)",
    r"model\.enc_score_head\.(weight|bias)",
    r"model\.denoising_class_embed\.weight",
)
GROUPED_HEADS = (r"class_embed\.(weight|bias)", r"model\.enc_out_class_embed\.\d+\.(weight|bias)")

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "detr",
            "DETR (arXiv 2005.12872)",
            "DetrConfig",
            "DetrForObjectDetection",
            body="model.backbone.model",
            encoder="model.encoder",
            memory="one",
            class_heads=LINEAR,
            no_object=True,
        ),
        Family(
            "table-transformer",
            "DETR with normalisation first, as Table Transformer and DETReg train it",
            "TableTransformerConfig",
            "TableTransformerForObjectDetection",
            body="model.backbone.conv_encoder.model",
            encoder="model.encoder",
            memory="one",
            class_heads=LINEAR,
            no_object=True,
        ),
        Family(
            "conditional_detr",
            "Conditional DETR (arXiv 2108.06152)",
            "ConditionalDetrConfig",
            "ConditionalDetrForObjectDetection",
            body="model.backbone.model",
            encoder="model.encoder",
            memory="one",
            class_heads=LINEAR,
        ),
        Family(
            "deformable_detr",
            "Deformable DETR (arXiv 2010.04159)",
            "DeformableDetrConfig",
            "DeformableDetrForObjectDetection",
            body="model.backbone.model",
            encoder="model.encoder",
            memory="levels",
            class_heads=(r"(model\.decoder\.)?class_embed\.\d+\.(weight|bias)",),
        ),
        Family(
            "yolos",
            "YOLOS (arXiv 2106.00666)",
            "YolosConfig",
            "YolosForObjectDetection",
            body="vit",
            encoder="vit",
            memory="none",
            class_heads=(r"class_labels_classifier\.layers\.2\.(weight|bias)",),
            no_object=True,
            masks=False,
            tokens=True,
            size_multiple=16,
        ),
        Family(
            "rt_detr",
            "RT-DETR (arXiv 2304.08069)",
            "RTDetrConfig",
            "RTDetrForObjectDetection",
            body="model.backbone.model",
            encoder="model.encoder",
            memory="maps",
            class_heads=DENSE_HEADS,
            masks=False,
            set_loss=False,
            size_multiple=32,
        ),
        Family(
            "rt_detr_v2",
            "RT-DETRv2 (arXiv 2407.17140)",
            "RTDetrV2Config",
            "RTDetrV2ForObjectDetection",
            body="model.backbone.model",
            encoder="model.encoder",
            memory="maps",
            class_heads=DENSE_HEADS,
            masks=False,
            set_loss=False,
            size_multiple=32,
        ),
        Family(
            "d_fine",
            "D-FINE (arXiv 2410.13842)",
            "DFineConfig",
            "DFineForObjectDetection",
            body="model.backbone.model",
            encoder="model.encoder",
            memory="maps",
            class_heads=DENSE_HEADS,
            masks=False,
            set_loss=False,
            size_multiple=32,
        ),
        Family(
            "rf_detr",
            "RF-DETR (arXiv 2511.09554)",
            "RfDetrConfig",
            "RfDetrForObjectDetection",
            body="model.backbone.backbone",
            encoder="model.backbone.projector",
            memory="maps",
            class_heads=GROUPED_HEADS,
            masks=False,
            set_loss=False,
        ),
        Family(
            "lw_detr",
            "LW-DETR (arXiv 2406.03459)",
            "LwDetrConfig",
            "LwDetrForObjectDetection",
            body="model.backbone.backbone",
            encoder="model.backbone.projector",
            memory="maps",
            class_heads=GROUPED_HEADS,
            masks=False,
            set_loss=False,
        ),
        Family(
            "dab-detr",
            "DAB-DETR (arXiv 2201.12329)",
            "DabDetrConfig",
            "DabDetrForObjectDetection",
            body="model.backbone.conv_encoder.model",
            encoder="model.encoder",
            memory="one",
            class_heads=(r"class_embed\.(weight|bias)",),
            set_loss=False,
        ),
        Family(
            "deimv2",
            "DEIMv2 (arXiv 2509.20787)",
            "Deimv2Config",
            "Deimv2ForObjectDetection",
            body=("model.conv_encoder.model", "model.conv_encoder.backbone"),
            encoder="model.encoder",
            memory="maps",
            class_heads=DENSE_HEADS,
            masks=False,
            set_loss=False,
            size_multiple=32,
        ),
    )
}


def body_path(module: nn.Module, family: Family) -> str:
    """Where the backbone of this module is."""
    if isinstance(family.body, str):
        return family.body
    return next(path for path in family.body if _has(module, path))


def _has(module: nn.Module, path: str) -> bool:
    owner, _, name = path.rpartition(".")
    return hasattr(module.get_submodule(owner), name)


def architecture_name(model_type: str) -> str:
    return "transformers/" + model_type.replace("-", "_")
