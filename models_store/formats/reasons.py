"""Why a tensor of a file is not used, in words for the checkpoint's page."""

from __future__ import annotations

import re
from collections.abc import Iterable

ANY: tuple[tuple[str, str], ...] = (
    (
        r"optimizer.*|lr_scheduler.*|scheduler|scaler|amp|(.*[._])?epoch|iteration|args|opt|arch|best_acc.*|meta|hyper_parameters",
        "the state of a training run, not weights",
    ),
    (r"contrast(\..*)?|.*\bqueue(_ptr)?", "the memory of negatives that the pretraining compared with"),
    (r"__author__|matching_heuristics", "about the file, not weights"),
    (r".+\.(relative_position_index|relative_coords_table|attn_mask)", "computed anew from the sizes"),
    (r"(model_)?ema|state_dict_ema|model_ema", "a running average of the weights that were taken"),
    (
        r"student|(.*\.)?encoder_k\..*|momentum_encoder\..*",
        "a second encoder; the one that the method keeps was taken",
    ),
)
SELF_SUPERVISED = (
    (
        r"(.*\.)?(mask_token|decoder_.+|rope_embed\..+|.+\.bias_mask)",
        "of masks, positions or the decoder of the pretraining",
    ),
    (
        r"(target_encoder|target_generator|momentum_encoder)\..*",
        "a second encoder; the one that the method keeps was taken",
    ),
    (r"(.*\.)?(predictor|prediction_head|neck|online_projector|projector)\..*", "a head of the pretraining"),
    (r"encoder_q\.1\..*", "a head of the pretraining"),
    (r".*head_jig\..*", "the projection head of the jigsaw task"),
    (r"(.*\.)?(head|projection_head|fc)\..*", "the projection head of the pretraining"),
    (r"(.*\.)?prototypes.*", "the prototypes that the pretraining assigned pictures to"),
    (r"loss.*|.*loss", "the state of the pretraining's loss"),
)
BY_FORMAT: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        (
            "pycontrast",
            "moco",
            "densecl",
            "swav",
            "dino",
            "dinov2",
            "mae",
            "moco_v3",
            "byol",
            "simsiam",
            "mmpretrain",
            "lightly",
        ),
        SELF_SUPERVISED,
    ),
    "transformers_backbone": (
        (r"decoder\..+|(.*\.)?mask_token", "of masks, positions or the decoder of the pretraining"),
        (
            r"(cls_|distillation_)classifier\..+|(.*\.)?pooler\..+",
            "the classifier of the pretraining's classes",
        ),
        (r"hidden_states_norms\..+", "norms of a detector that transformers places it in"),
    ),
    "mmdetection": (
        (r"(backbone\.)?norm[0-3]\..+", "a norm between a stage of the body and the pyramid"),
        (
            r"(rpn_head|roi_head|bbox_head|mask_head|panoptic_head|neck)\..*",
            "a part of mmdetection's detector, which is built otherwise",
        ),
    ),
    "detectron2": (
        (
            r"(proposal_generator|roi_heads|backbone\.(fpn|top)|pixel_).*",
            "a part of detectron2's detector, which is built otherwise",
        ),
        (r"(.*\.)?(stem\.fc|linear|fc)\..*", "the classifier of the pretraining's classes"),
    ),
    "detr_wsod": ((r".*(mil|refinement_agents)\..*", "an instance classifier of weak supervision"),),
    "detr": ((r".*(mask_head|bbox_attention)\..*", "DETR's panoptic head"),),
}
CLASSIFIER = (
    (
        r"(.*\.)?(_?fc|head|heads|classifier|classifiers|head_dist|last_linear|aux1|aux2|AuxLogits|pre_logits)\..*",
        "the classifier of the pretraining's classes; a detector has its own head",
    ),
)
UNKNOWN = "it has no place in the architecture"


def grouped(format: str, keys: Iterable[str]) -> tuple[dict[str, object], ...]:
    """[{``why``, ``keys``}] over ``keys``, in the order of the first of each."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(why_dropped(format, key), []).append(key)
    return tuple({"why": why, "keys": keys} for why, keys in found.items())


def why_dropped(format: str, key: str) -> str:
    for pattern, why in (*BY_FORMAT.get(format, ()), *ANY, *CLASSIFIER):
        if re.fullmatch(pattern, key):
            return why
    return UNKNOWN


def why_initialised(key: str, *, placed_in: str) -> str:
    """Why a tensor of the detector was not in the file of a backbone."""
    if re.search(r"predictor|cls_logits|bbox_reg|class_embed|bbox_embed", key):
        return "the last layers of a head wait for the target's classes"
    if key.startswith("roi_heads.") and key.removesuffix(key.rsplit(".", 1)[-1]).endswith(".norm."):
        return f"{placed_in} has a norm here that starts as the identity"
    return f"a backbone brings no tensors for the rest of {placed_in}"


def grouped_initialised(keys: Iterable[str], placed_in: str) -> tuple[dict[str, object], ...]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(why_initialised(key, placed_in=placed_in), []).append(key)
    return tuple({"why": why, "keys": keys} for why, keys in found.items())
