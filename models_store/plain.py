"""A checkpoint for people who have torchvision or transformers and nothing of ours."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from models_store.archs.base import ARCHITECTURES
from models_store.detector import load_detector
from models_store.detr import sine
from models_store.detr.build import config_of
from models_store.detr.families import FAMILIES, Family, architecture_name
from models_store.errors import Unusable
from models_store.manifest import WEIGHTS_FILE, Manifest
from models_store.plain_torchvision import code_for
from models_store.save import usual_eps

USE_FILE = "use.py"
TRANSFORMERS_WEIGHTS = "model.safetensors"
RESAMPLE = {"bilinear": 2, "bicubic": 3}
PROCESSOR = "RTDetrImageProcessor"  # of families that transformers gives none of their own


@dataclass(frozen=True)
class PlainUse:
    """`code`: Python for a folder with `files` in it, run there; it leaves the detector, ready, in `model`."""

    library: Literal["torchvision", "transformers"]
    files: tuple[str, ...]
    code: str


def plain_use(manifest: Manifest) -> PlainUse:
    """How to use the checkpoint's files without detrank; the weights alone are enough for torchvision.

    Raises Unusable: ``untrained`` while a part of it has no learned weights, ``unsuitable`` for architectures that
    neither library has, with what is in the way.
    """
    if manifest.initialised_keys or manifest.kind == "backbone":
        raise Unusable(
            "untrained",
            f"{manifest.architecture} has {len(manifest.initialised_keys)} tensors that were never trained: fine-tune it first",
        )
    family = _family(manifest)
    if family is None:
        return PlainUse("torchvision", (WEIGHTS_FILE,), _torchvision_code(manifest))
    files = (TRANSFORMERS_WEIGHTS, "config.json", "preprocessor_config.json")
    return PlainUse("transformers", files, _transformers_code(manifest, family))


def to_plain_folder(folder: Path, out: Path) -> PlainUse:
    """Write the converted checkpoint in ``folder`` into the new folder ``out`` for plain use, with the code as ``use.py``.

    Raises Unusable as ``plain_use`` does.
    """
    manifest = Manifest.read(folder)
    use = plain_use(manifest)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if manifest.options.get("frozen_bn_eps") is None:
        shutil.copyfile(Path(folder) / WEIGHTS_FILE, out / use.files[0])
    else:
        save_file(plain_state_dict(folder), out / use.files[0], metadata={"format": "pt"})
    if family := _family(manifest):
        _config(manifest, family).save_pretrained(out)
        processor = json.dumps(_preprocessor(manifest, family), indent=2)
        (out / "preprocessor_config.json").write_text(processor + "\n", encoding="utf-8")
    (out / USE_FILE).write_text(use.code, encoding="utf-8")
    return use


def plain_state_dict(folder: Path) -> dict[str, Tensor]:
    """The tensors of a converted checkpoint as torchvision's builder or transformers' class takes them, strictly.

    They are those of ``weights.safetensors``; only where its frozen norms have another epsilon than torchvision's
    builders give them (the published COCO weights, which ``save_detector`` has brought to the usual one) scales differ.
    """
    manifest = Manifest.read(folder)
    tensors = load_file(Path(folder) / WEIGHTS_FILE)
    if manifest.options.get("frozen_bn_eps") is not None:
        tensors |= usual_eps(load_detector(folder).module)
    return tensors


def _family(manifest: Manifest) -> Family | None:
    architecture = ARCHITECTURES[manifest.architecture]
    if architecture.family != "detr":
        return None
    if architecture.places_backbone:
        raise Unusable(
            "unsuitable",
            f"transformers has no {architecture.title}: its backbone stands in the place of transformers' own; load it "
            "with models_store.load_detector",
        )
    return next(f for f in FAMILIES.values() if architecture_name(f.model_type) == architecture.name)


def _torchvision_code(manifest: Manifest) -> str:
    built = code_for(manifest)
    read = "tensors = load_file('weights.safetensors')\n"
    if "\nrename = " in built:
        read += (
            "for old, new in rename:\n"
            "    tensors = {key.replace(old, new, 1): tensor for key, tensor in tensors.items()}\n"
        )
    return (
        f"{_about(manifest)}from safetensors.torch import load_file\n{built}{read}"
        "model.load_state_dict(tensors)\nmodel.eval()\n"
        "# model([image])[0] has boxes (xyxy), scores and labels: image is float (3, height, width), RGB in [0, 1], and\n"
        "# label n is CLASSES[n - 1].\n"
        f"CLASSES = {list(manifest.class_names or ())!r}\n"
    )


def _transformers_code(manifest: Manifest, family: Family) -> str:
    lines = [
        _about(manifest) + "from transformers import AutoImageProcessor, AutoModelForObjectDetection",
        "",
        'model = AutoModelForObjectDetection.from_pretrained(".").eval()',
        'processor = AutoImageProcessor.from_pretrained(".")',
    ]
    if manifest.options.get("centred_sine"):
        half = int(_config(manifest, family).d_model) // 2
        owner = "model.model.backbone" if family.model_type == "table-transformer" else "model.model"
        lines = [
            "from __future__ import annotations",
            "import math",
            "import torch",
            "from torch import Tensor, nn",
            f"TEMPERATURE = {sine.TEMPERATURE}",
            inspect.getsource(sine.CentredSine),
            *lines,
            f"{owner}.position_embedding = CentredSine({half})",
        ]
    return "\n".join(lines) + "\n"


def _about(manifest: Manifest) -> str:
    return f"# {ARCHITECTURES[manifest.architecture].title}, {manifest.num_classes} classes\n"


def _config(manifest: Manifest, family: Family) -> PretrainedConfig:
    config = config_of(family, manifest.options["config"], int(manifest.num_classes or 1))
    if family.model_type == "deformable_detr":
        config.tie_word_embeddings = False
    names = manifest.class_names or tuple(f"LABEL_{i}" for i in range(config.num_labels))
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.architectures = [family.module_class]
    return config


def _preprocessor(manifest: Manifest, family: Family) -> dict[str, Any]:
    spec = manifest.input
    known = IMAGE_PROCESSOR_MAPPING_NAMES.get(family.model_type) or {}
    size = (
        {"height": spec.fixed_size[0], "width": spec.fixed_size[1]}
        if spec.fixed_size is not None
        else {"shortest_edge": spec.min_size, "longest_edge": spec.max_size}
    )
    return {
        "image_processor_type": known.get("torchvision", PROCESSOR),
        "do_resize": True,
        "size": size,
        "resample": RESAMPLE[str(manifest.options.get("resample", "bilinear"))],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }
