"""Tiny configurations of every query-based family, for random modules that run in a fraction of a second."""

import re

import torch
import transformers
from torch import nn

from models_store.detr.families import FAMILIES, Family

CLASSES = 3
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
TRANSFORMER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 6,
}
ONE_MAP = {
    **TRANSFORMER,
    "use_timm_backbone": False,
    "backbone_config": {**RESNET, "out_features": ["stage4"]},
}
DEFORMABLE = {**TRANSFORMER, "use_timm_backbone": False, "backbone_config": RESNET, "num_feature_levels": 4}
HYBRID = {
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "num_queries": 6,
    "decoder_layers": 2,
    "decoder_ffn_dim": 16,
    "decoder_attention_heads": 4,
    "num_denoising": 4,
    "encoder_in_channels": [12, 16, 20],
    "decoder_in_channels": [32, 32, 32],
    "feat_strides": [8, 16, 32],
    "hidden_expansion": 1.0,
}
RT_RESNET = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 12, 16, 20],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [12, 16, 20, 24],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [12, 16, 20, 24],
    "embedding_size": 8,
    "out_features": ["stage2", "stage3", "stage4"],
}
CONFIGS = {
    "detr": ONE_MAP,
    "table-transformer": ONE_MAP,
    "conditional_detr": ONE_MAP,
    "deformable_detr": DEFORMABLE,
    "deformable_detr_two_stage": {
        **DEFORMABLE,
        "with_box_refine": True,
        "two_stage": True,
        "two_stage_num_proposals": 6,
    },
    "yolos": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 16,
        "image_size": [64, 96],
        "patch_size": 16,
        "num_detection_tokens": 6,
    },
    "rt_detr": {**HYBRID, "backbone_config": RT_RESNET},
    "rt_detr_v2": {**HYBRID, "backbone_config": RT_RESNET},
    "d_fine": {
        **HYBRID,
        "decoder_n_points": [3, 6, 3],
        "backbone_config": HGNET,
        "encoder_in_channels": [16, 20, 24],
    },
    "rf_detr": {
        "backbone_config": {
            "model_type": "rf_detr_dinov2",
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "patch_size": 8,
            "image_size": 64,
            "num_windows": 2,
            "out_features": ["stage2", "stage4"],
        },
        "d_model": 32,
        "num_queries": 6,
        "decoder_layers": 2,
        "decoder_ffn_dim": 16,
        "decoder_self_attention_heads": 4,
        "decoder_cross_attention_heads": 4,
        "group_detr": 2,
        "hidden_expansion": 0.5,
        "c2f_num_blocks": 1,
    },
    "lw_detr": {
        "backbone_config": {
            "model_type": "lw_detr_vit",
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "patch_size": 8,
            "image_size": 64,
            "pretrain_image_size": 32,
            "num_windows": 4,
            "window_block_indices": [0, 2],
            "out_indices": [1, 3],
        },
        "projector_scale_factors": [2.0, 0.5],
        "d_model": 32,
        "num_queries": 6,
        "decoder_layers": 2,
        "decoder_ffn_dim": 16,
        "decoder_self_attention_heads": 4,
        "decoder_cross_attention_heads": 4,
        "group_detr": 2,
        "c2f_num_blocks": 1,
    },
    "dab-detr": {
        "hidden_size": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 6,
        "use_timm_backbone": False,
        "backbone_config": {**RESNET, "out_features": ["stage4"]},
    },
    "deimv2": {
        **HYBRID,
        "decoder_n_points": [3, 6, 3],
        "backbone_config": HGNET,
        "encoder_in_channels": [16, 20, 24],
    },
    "deimv2_lite": {
        **HYBRID,
        "decoder_n_points": [3, 6],
        "backbone_config": {**HGNET, "out_features": ["stage3"]},
        "encoder_in_channels": [20],
        "encoder_type": "lite",
        "num_feature_levels": 2,
        "decoder_in_channels": [32, 32],
        "feat_strides": [16, 32],
        "use_gateway": False,
        "share_bbox_head": True,
    },
    "deimv2_dinov3": {
        **HYBRID,
        "decoder_n_points": [3, 6, 3],
        "backbone_config": {
            "model_type": "dinov3_vit",
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "patch_size": 16,
            "num_register_tokens": 2,
            "out_features": ["stage1", "stage2", "stage3"],
        },
        "encoder_in_channels": [32, 32, 32],
        "encoder_has_trailing_conv": False,
        "spatial_tuning_adapter_inplanes": 4,
    },
}


def family_of(name: str) -> Family:
    """Of one of the configurations, which are named by their family and what is special in them."""
    return FAMILIES[re.sub(r"_(two_stage|lite|dinov3)$", "", name)]


def random_detr(name: str, num_classes: int = CLASSES, seed: int = 0) -> nn.Module:
    """transformers' own module, every tensor random: heads that start at zero would hide mistakes."""
    family = family_of(name)
    torch.manual_seed(seed)
    config = getattr(transformers, family.config_class)(
        **CONFIGS[name], id2label={i: f"thing {i}" for i in range(num_classes)}, num_labels=num_classes
    )
    module = getattr(transformers, family.module_class)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point() and tensor.dim() < 2:
                tensor.add_(torch.empty_like(tensor).normal_(0, 0.05, generator=generator))
            elif tensor.is_floating_point() and tensor.abs().max() == 0:
                tensor.normal_(0, 0.05, generator=generator)
    return module
