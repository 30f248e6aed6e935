"""Files of self-supervised pretraining: PyContrast, MoCo, SwAV, DINO, MAE and their kin. The encoder is placed as a
classifier's body.

The published code names its encoder's tensors as torchvision or timm does, behind a prefix; the rest are heads,
queues and second encoders of the pretraining.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from models_store.bodies.wide_resnets import name_of
from models_store.errors import Unusable, some
from models_store.formats import classifiers
from models_store.formats.signatures import HEADS
from models_store.formats.state import Recognised, StateDict
from models_store.formats.vit_names import is_vit, timm_names
from models_store.formats.wrappings import inner_modules
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD

IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Scheme:
    """``prefix``: of the encoder's tensors. ``fits`` says from the keys whether a file is of this kind.

    ``a_guess``: it could be another's file too, so a backbone named by the user or by the source goes first.
    """

    format: str
    title: str
    prefix: str
    fits: Callable[[Tensors], bool]
    remark: Callable[[Tensors], str] = lambda tensors: ""
    a_guess: bool = False


def _starts(tensors: Tensors, *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for key in tensors)


def _pycontrast_method(tensors: Tensors) -> str:
    if not _starts(tensors, "head"):
        return ""
    jigsaw = _starts(tensors, "head_jig.")
    perceptron = "head.2.weight" in tensors
    methods = {
        (False, False): "InstDis or MoCo v1",
        (False, True): "MoCo v2",
        (True, False): "PIRL",
        (True, True): "InfoMin",
    }
    return f"the heads are those of {methods[jigsaw, perceptron]}"


SCHEMES = (
    Scheme(
        "moco_v3",
        "MoCo v3",
        "base_encoder.",
        lambda t: _starts(t, "base_encoder."),
        lambda t: "base_encoder was taken, as in the method's own evaluation, not its momentum encoder",
    ),
    Scheme(
        "byol",
        "BYOL",
        "online_encoder.",
        lambda t: _starts(t, "online_encoder.") and _starts(t, "target_encoder."),
    ),
    Scheme(
        "simsiam", "SimSiam", "encoder.", lambda t: _starts(t, "encoder.conv1.") and _starts(t, "predictor.")
    ),
    # before mmpretrain, whose files have a head too
    Scheme("dino", "DINO", "backbone.", lambda t: _starts(t, "head.last_layer.", "head.mlp.")),
    Scheme(
        "mmpretrain",
        "mmpretrain",
        "backbone.",
        lambda t: (
            _starts(t, "backbone.conv1.", "backbone.layer1.")
            and _starts(t, "head.", "neck.", "target_generator.")
        ),
    ),
    Scheme(
        "lightly",
        "lightly",
        "backbone.",
        lambda t: _starts(t, "backbone.") and _starts(t, "projection_head.", "prediction_head."),
    ),
    Scheme("dinov2", "DINOv2", "", lambda t: is_vit(t) and "mask_token" in t and "blocks.0.ls1.gamma" in t),
    Scheme("mae", "MAE", "", lambda t: is_vit(t) and _starts(t, "decoder_embed.", "decoder_blocks.")),
    # OpenSelfSup's: body and neck of the first encoder counted, and the body once more under its own name
    Scheme("densecl", "DenseCL", "encoder_q.0.", lambda t: _starts(t, "encoder_q.0.")),
    Scheme("moco", "MoCo", "encoder_q.", lambda t: _starts(t, "encoder_q.")),
    Scheme(
        "pycontrast",
        "PyContrast",
        "encoder.",
        lambda t: (
            _starts(t, "encoder.conv1.", "encoder.layer1.")
            and all(key.startswith(("encoder.", "head.", "head_jig.")) for key in t)
        ),
        _pycontrast_method,
    ),
    Scheme(
        "swav",
        "SwAV",
        "",
        lambda t: (
            _starts(t, "projection_head.", "prototypes.") and _starts(t, "layer1.", "conv1.", "encoder.")
        ),
    ),
    # DINO's files of the network alone: a ViT under timm's names that never had a classifier.
    Scheme(
        "dino",
        "DINO",
        "",
        lambda t: {"cls_token", "blocks.0.attn.qkv.weight"} <= set(t) and not _starts(t, *HEADS),
        lambda t: (
            "a ViT without a classifier is taken for DINO's, normalised as ImageNet: give mean and std otherwise"
        ),
        a_guess=True,
    ),
)


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are of no such method. Raises Unusable where they are and the encoder cannot be placed.

    ``hint``: the backbone's name, where several have the same keys.
    """
    if _starts(state.tensors, "encoder1.") and _starts(state.tensors, "encoder2."):
        raise Unusable(
            "unsuitable",
            "the file holds CMC's two half-width encoders, which see the L and ab (or Y and DbDr) channels apart: "
            "neither takes an RGB picture; send a file of another method, such as InfoMin or MoCo",
        )
    scheme = next((s for s in SCHEMES if s.fits(state.tensors) and not (s.a_guess and hint)), None)
    return None if scheme is None else _placed(state, scheme, hint)


def _placed(state: StateDict, scheme: Scheme, hint: str | None) -> Recognised:
    encoder = {
        k: v for k, v in state.tensors.items() if k.startswith(scheme.prefix) and not _is_head(k, scheme)
    }
    beside = tuple(k for k in state.tensors if k not in encoder)
    body = {k.removeprefix(scheme.prefix): v for k, v in encoder.items()}
    if is_vit(body):
        body, without = timm_names({k: v for k, v in body.items() if not k.startswith("head.")})
        beside = (*beside, *(scheme.prefix + key for key in without))
    alone = replace(state, tensors=body, dropped=(), notes=())
    found = classifiers.recognise(alone, hint) if body else None
    # byol-pytorch keeps the projector beside the network, inside the encoder.
    found = found or next((f for i in inner_modules(alone) if (f := classifiers.recognise(i, hint))), None)
    if found is None and (wide := name_of(alone.shapes)):
        found = classifiers.recognise(alone, wide)
    if found is None:
        raise Unusable(
            "unknown_architecture",
            f"the file is {scheme.title}'s, but its encoder ({len(body)} tensors: {some(list(body), 3)}) is of no "
            "known network: give architecture=timm/<name> where it is one of theirs",
            [{"key": key, "message": "not recognised"} for key in sorted(body)[:20]],
        )
    remark = scheme.remark(state.tensors)
    remarks = (remark,) if remark else ()
    return replace(
        found,
        # These methods see pictures as ImageNet does, and their networks are torchvision's or plain.
        open_input="",
        warnings=remarks if scheme.a_guess else (),
        format=scheme.format,
        input={**found.input, **IMAGENET},
        dropped=(*state.dropped, *beside, *(scheme.prefix + key for key in found.dropped)),
        notes=(*state.notes, *found.notes, *(() if scheme.a_guess else remarks)),
    )


def _is_head(key: str, scheme: Scheme) -> bool:
    return not scheme.prefix and key.startswith(("projection_head.", "prototypes."))
