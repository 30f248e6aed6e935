"""What differs between transformers' open-vocabulary detectors, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

KIND: Literal["open_vocabulary"] = "open_vocabulary"
Rule = Literal["phrases", "queries", "classes"]


@dataclass(frozen=True)
class Family:
    """One ``model_type`` of transformers.

    ``rule``: how words are asked. ``phrases``: all in one text, each ends with a period; ``queries``: a text each; ``classes``:
    a text each and a task that names them all. ``template``: how the name of a class becomes a prompt. ``confidence``: what
    transformers' own processor asks of a box where nobody says. ``parts``: model types that config.json may name for the
    networks inside. ``fixed``: pictures have one size.
    """

    model_type: str
    title: str
    config_class: str
    module_class: str
    image_processor: str
    rule: Rule
    template: str
    confidence: float
    parts: Mapping[str, tuple[str, ...]]
    fixed: bool = True


_BACKBONES = ("swin", "resnet", "convnext", "timm_backbone")
_GROUNDED = {"backbone_config": _BACKBONES, "text_config": ("bert",)}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "grounding-dino",
            "Grounding DINO (arXiv 2303.05499)",
            "GroundingDinoConfig",
            "GroundingDinoForObjectDetection",
            "GroundingDinoImageProcessor",
            rule="phrases",
            template="{}",
            confidence=0.25,
            parts=_GROUNDED,
            fixed=False,
        ),
        Family(
            "mm-grounding-dino",
            "MM-Grounding-DINO (arXiv 2401.02361)",
            "MMGroundingDinoConfig",
            "MMGroundingDinoForObjectDetection",
            "GroundingDinoImageProcessor",
            rule="phrases",
            template="{}",
            confidence=0.25,
            parts=_GROUNDED,
            fixed=False,
        ),
        Family(
            "owlvit",
            "OWL-ViT (arXiv 2205.06230)",
            "OwlViTConfig",
            "OwlViTForObjectDetection",
            "OwlViTImageProcessor",
            rule="queries",
            template="a photo of a {}",
            confidence=0.1,
            parts={"text_config": ("owlvit_text_model",), "vision_config": ("owlvit_vision_model",)},
        ),
        Family(
            "owlv2",
            "OWLv2 (arXiv 2306.09683)",
            "Owlv2Config",
            "Owlv2ForObjectDetection",
            "Owlv2ImageProcessor",
            rule="queries",
            template="a photo of a {}",
            confidence=0.1,
            parts={"text_config": ("owlv2_text_model",), "vision_config": ("owlv2_vision_model",)},
        ),
        Family(
            "omdet-turbo",
            "OmDet-Turbo (arXiv 2403.06892)",
            "OmDetTurboConfig",
            "OmDetTurboForObjectDetection",
            "DetrImageProcessor",
            rule="classes",
            template="{}",
            confidence=0.3,
            parts={"backbone_config": _BACKBONES, "text_config": ("clip_text_model",)},
        ),
    )
}


def architecture_name(family: Family) -> str:
    return "transformers/" + family.model_type.replace("-", "_")


BY_ARCHITECTURE = {architecture_name(family): family for family in FAMILIES.values()}


def family_of(config: Mapping[str, Any] | None) -> Family | None:
    """Of a config.json; None where it is of another kind."""
    return FAMILIES.get(str((config or {}).get("model_type")))
