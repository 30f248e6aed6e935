"""What can be asked of the workers, as data for the service: `python -m worker.catalogue` writes app/catalogue.json.

The service does not import the science; it reads names, help and defaults from that file, and a test fails
when the file is older than the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from models_store.archs import ARCHITECTURES
from models_store.pretraining import pretrainable_architectures
from models_store.shelf import shelf
from models_store.trainable import POLICIES
from worker.data.formats import READERS
from worker.features.layers import (
    DEFAULT_LEVELS,
    LAYER_HELP,
    LEVEL_HELP,
    LEVELS,
    SOURCE_HELP,
    SOURCE_LAYER,
)
from worker.features.regions import RegionSampling
from worker.metrics.registry import METRICS, OF_SOURCE
from worker.pretraining.pretrain import LEAST_PICTURES
from worker.pretraining.proposals import SEARCHED, STRATEGIES
from worker.pretraining.recipe import DEFAULTS as PRETRAINING_DEFAULTS
from worker.pretraining.recipe import recipes as pretraining_recipes
from worker.pseudo_boxes.image_label_teacher import ImageLabelSettings
from worker.pseudo_boxes.self_training import MEAN_DECAY
from worker.ranking.rule import (
    DEFAULT_LAYER,
    MATCHED_MAPS,
    PREFERRED_LAYERS,
    PREFERRED_METRICS,
    SIZE_MATCHED,
    SIZE_PER_STRIDE,
    default_layers,
)
from worker.training.plan import PRECISIONS
from worker.training.recipe import DEFAULTS as DEFAULT_RECIPES
from worker.training.recipe import recipes

PATH = Path(__file__).resolve().parent.parent / "app" / "catalogue.json"

# What orders the candidates, then the five published ones and the box term that stands alone where there is one category.
DEFAULT_METRICS = (
    "detection_evidence_single",
    "tlogme",
    "logme",
    "logme_boxes",
    "h_score",
    "h_score_regularized",
    "transrate",
)
DEFAULT_MAX_IMAGES = 500
DEFAULT_IMAGE_SIZE = 320
# What a request may say of how regions are drawn.
OF_REGIONS = ("jittered", "background", "hard", "shift", "scale")

CHECKPOINT_FORMATS = {
    "dinov2": "DINOv2's and DINOv3's ViTs, with or without registers",
    "mae": "MAE's ViT; its decoder is dropped",
    "moco_v3": "MoCo v3's ViT or ResNet: base_encoder is placed",
    "byol": "BYOL's online encoder",
    "simsiam": "SimSiam's encoder",
    "mmpretrain": "mmpretrain's (mmselfsup's) ResNet",
    "lightly": "lightly's backbone; its projection head is dropped",
    "rt_detr_original": "original release of RT-DETR (ResNet-vd), the average of its weights first",
    "rt_detr_v2_original": "original release of RT-DETRv2 (ResNet-vd)",
    "d_fine_original": "original release of D-FINE (HGNetV2); DEIM's D-FINE has the same names",
    "rf_detr_original": "original release of RF-DETR or its fine-tuning; the Large of 2025 is refused",
    "lw_detr_original": "original release of LW-DETR",
    "conditional_detr_original": "original release of Conditional DETR",
    "dab_detr_original": "original release of DAB-DETR",
    "yolox": "YOLOX nano to x, published or fine-tuned by its own code",
    "densecl": "OpenSelfSup's files of DenseCL: the first encoder is placed",
    "mmdetection": "a detector of mmdetection: its body and a pyramid over C2 to C5 are placed; its heads are new",
    "torchvision_detection": "state dict of a torchvision detector, also assembled over another body; architecture and classes are read from keys and shapes (also .ptch)",
    "detr": "checkpoint of the published DETR code; read from keys and shapes, heads from its arguments",
    "deformable_detr": "checkpoint of the published Deformable DETR code: plain, with box refinement, two-stage",
    "detreg_detr": "DETReg's pretrained DETR, with its embedding head",
    "detreg_deformable_detr": "DETReg's pretrained Deformable DETR, with its embedding head",
    "detr_wsod": "DETR_WSOD's DETR; its instance and refinement classifiers are dropped",
    "transformers": "folder of a transformers object detector (config.json and weights, also in parts), as a folder, .zip or .tar.gz",
    "torchvision_classifier": "state dict of a torchvision classifier, whose backbone is placed in a Faster R-CNN with FPN",
    "timm_classifier": "state dict of a timm classifier or its folder from a hub, whose backbone is placed in a Faster R-CNN with FPN",
    "pycontrast": "PyContrast's InstDis, PIRL, MoCo v1/v2 or InfoMin: the encoder is placed, heads and memory are dropped",
    "moco": "official MoCo v1/v2: encoder_q is placed; its head, encoder_k and the queue are dropped",
    "swav": "SwAV's ResNet; projection head and prototypes are dropped",
    "dino": "DINO's ResNet or ViT, alone or as a full checkpoint, of which the teacher is taken",
    "detectron2": "a ResNet under detectron2's names, .pkl of numpy arrays or torch file, also written (convert --to detectron2); Faster and Mask R-CNN with a pyramid whole",
}


def catalogue() -> dict[str, Any]:
    """Metrics, layers, levels, architectures, recipes, formats and defaults, as plain JSON values."""
    return {
        "shelf": shelf(),
        "metrics": [
            {
                "name": metric.name,
                "title": metric.title,
                "summary": metric.summary,
                "formula": metric.formula,
                "needs": sorted(metric.needs),
                "rows": metric.rows,
                "paper": metric.paper,
                "null": metric.null,
                "higher_is_better": metric.higher_is_better,
                "pool_relative": metric.pool_relative,
                "terms": list(metric.terms),
                "default": metric.name in DEFAULT_METRICS,
            }
            for metric in METRICS.values()
        ],
        "layers": [
            {"name": name, "help": text, "default": name in default_layers()}
            for name, text in LAYER_HELP.items()
        ]
        # scored by these metrics alone, and not to be asked for
        + [{"name": SOURCE_LAYER, "help": SOURCE_HELP, "default": False, "metrics": list(OF_SOURCE)}],
        "levels": list(LEVELS),
        "level_help": LEVEL_HELP,
        "architectures": [
            {
                "name": architecture.name,
                "title": architecture.title,
                "family": architecture.family,
                "kind": "backbone" if architecture.places_backbone else "detector",
                "norms": list(architecture.norms),
                "notes": list(architecture.notes),
            }
            for _, architecture in sorted(ARCHITECTURES.items())
        ],
        "recipes": [
            {
                "name": recipe.name,
                "title": recipe.title,
                "source": recipe.source,
                "help": recipe.help,
                "families": list(recipe.families),
                "architectures": list(recipe.architectures),
                "optimiser": recipe.optimiser,
                "epochs": None if recipe.iterations else recipe.epochs,
                "iterations": recipe.iterations,
                "batch_size": recipe.batch_size,
                "image_size": recipe.image_size,
                "evaluations": recipe.evaluations,
                "patience": recipe.patience,
                "ema": recipe.ema,
                "data_dependent_init": recipe.data_dependent_init,
            }
            for recipe in recipes().values()
        ],
        "training": {
            "freeze": list(POLICIES),
            "precisions": list(PRECISIONS),
            "default_recipes": list(DEFAULT_RECIPES),
        },
        "pretraining": {
            "recipes": [
                {
                    "name": name,
                    "title": one.training.title,
                    "source": one.training.source,
                    "help": one.training.help,
                    "architectures": list(one.training.architectures),
                    "epochs": one.training.epochs,
                    "batch_size": one.training.batch_size,
                    "image_size": one.training.image_size,
                    "evaluations": one.training.evaluations,
                    "ema": one.training.ema,
                    "proposals": one.regions.proposals,
                    "max_proposals": one.regions.max_proposals,
                    "embedding_layer": one.regions.embedding_layer,
                }
                for name, one in pretraining_recipes().items()
            ],
            "defaults": list(PRETRAINING_DEFAULTS),
            "proposals": list(STRATEGIES),
            "searched": sorted(SEARCHED),
            "architectures": pretrainable_architectures(),
            "least_pictures": LEAST_PICTURES,
            "mean_decay": MEAN_DECAY,
        },
        "image_labels": {"least_pictures": ImageLabelSettings().least_pictures},
        "formats": {
            "datasets": [{"name": name, "title": reader.TITLE} for name, reader in READERS.items()],
            "checkpoints": [{"name": name, "title": title} for name, title in CHECKPOINT_FORMATS.items()],
        },
        "defaults": {
            "level": DEFAULT_LEVELS[0],
            "max_images": DEFAULT_MAX_IMAGES,
            "image_size": DEFAULT_IMAGE_SIZE,
            "seed": 0,
            "regions": {name: getattr(RegionSampling(), name) for name in OF_REGIONS},
            "size_matched": {
                "name": SIZE_MATCHED,
                "layers": list(MATCHED_MAPS),
                "size_per_stride": SIZE_PER_STRIDE,
                "rule": "the map whose stride is nearest to the median side of an object in the input divided by size_per_stride, "
                "of those where every candidate has a value and trained weights",
            },
            "rank_by": {
                "layer": DEFAULT_LAYER,
                "metrics": list(PREFERRED_METRICS),
                "layers": list(PREFERRED_LAYERS),
                "rule": "the first of these layers and metrics that is defined for every candidate with scores, "
                "else for most; its gain where every candidate has one, else its value",
            },
        },
    }


def text() -> str:
    """The file's content: the same code gives the same bytes."""
    return json.dumps(catalogue(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    PATH.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"wrote {PATH}\n")


if __name__ == "__main__":
    main()
