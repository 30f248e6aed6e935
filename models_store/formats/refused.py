"""Files that are recognised by name and refused with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterable

from models_store.errors import Unusable
from models_store.formats.state import StateDict

ADAPTER = re.compile(
    r"(^|\.)(lora_[AB]|lora_(down|up)|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|hada_w[12]_[ab])(\.|$)"
)
INSTEAD = "choose a family that is read: torchvision's, the DETR family (RT-DETR, D-FINE, RF-DETR), YOLOX"
# What a pickled network's first names are; (pattern of a global, what it is).
NETWORKS = (
    (
        r"ultralytics\..*",
        "a pickled network of Ultralytics (YOLOv8 and later, AGPL-3.0)",
    ),
    (
        r"models\.(yolo|common|experimental)\..*",
        "a pickled network of YOLOv5, YOLOv7 or YOLOv9 (AGPL-3.0 or GPL-3.0)",
    ),
    (r"(yolov5|yolov6|yolov7|yolov9)\..*", "a pickled network of the YOLO family (AGPL-3.0 or GPL-3.0)"),
    (r"yolo_world.*|super_gradients\..*", "a pickled network of a YOLO library"),
)
# What no recogniser knew, by keys that nobody else has; (pattern of a key, what it is and what to do instead).
KEYS = (
    (
        r"(.*\.)?\d+\.(dfl\.conv\.weight|anchors|anchor_grid|cv[23]\.\d+\.\d+\..+)",
        f"the weights of a network of Ultralytics, YOLOv5, YOLOv7 or YOLOv9 (AGPL-3.0 or GPL-3.0), which is not read here; {INSTEAD}",
    ),
    (
        r"(.*\.)?module_list\.\d+\.(Conv2d|conv_\d+|batch_norm_\d+|BatchNorm2d)\..+",
        f"a port of Darknet's YOLO, which is not read; {INSTEAD}",
    ),
    (
        r"(.*\.)?label_enc\.weight",
        "DINO, DN-DETR or one of their kin, whose decoder is not read; of one over a ResNet options take=body takes the body "
        f"alone, else {INSTEAD}",
    ),
    (
        r"((module|model)\.)?visual\.(conv1|class_embedding|proj|attnpool|trunk|transformer)\b.*",
        "a network of pictures and words (CLIP), which is not read as it is; its picture half is in timm's form: give "
        "timm://<name>, listed by timm.list_models('*clip*'), or its file",
    ),
    (
        r".+\._(mean|variance)|StructuredToParameterName@@",
        "PaddlePaddle's, whose layers have other names and turned weights, and is not read: send the same network's "
        "weights of its release for torch",
    ),
)


def known_by_keys(state: StateDict) -> Unusable | None:
    """The refusal of a network that is known by name and not read."""
    for pattern, said in KEYS:
        if any(re.fullmatch(pattern, key) for key in (*state.tensors, *state.dropped)):
            return Unusable("unsuitable", f"the file is {said}")
    return None


def refuse_adapters(state: StateDict) -> None:
    """Raises Unusable ``unsuitable`` for adapters, which are no weights of their own."""
    adapters = [key for key in state.tensors if ADAPTER.search(key)]
    if adapters:
        raise Unusable(
            "unsuitable",
            f"{len(adapters)} of {len(state.tensors)} tensors are an adapter's (LoRA or its kin: {adapters[0]}): merge it into its base "
            "model first (peft: model.merge_and_unload(), then save_pretrained) and send the merged weights",
        )


def network_named(names: Iterable[str]) -> str | None:
    """What a pickle with these globals is, and what to do instead; None for no known network."""
    for name in names:
        for pattern, title in NETWORKS:
            if re.fullmatch(pattern, name):
                return f"{title}: its network is not read here, also not from its state dict; {INSTEAD}"
    return None
