"""Small random checkpoints, built once; conversion in this process where the child is not the subject."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from models_store.archs import ARCHITECTURES
from models_store.build import build_module, layers_of
from models_store.conversion import Request, convert_here
from models_store.detector import Detector, TorchvisionDetector
from models_store.limits import Limits
from models_store.load import digest_of
from models_store.manifest import Manifest
from worker.data.canonical import VERSION
from worker.data.dataset import Dataset, open_dataset

torch.set_num_threads(1)
BACKBONE = "torchvision/mobilenet_v2"
RESNET = "torchvision/resnet18"
SIZES = ((48, 64), (64, 48), (48, 64), (60, 60), (48, 64))


def backbone_for(architecture: str) -> str | None:
    """A small backbone that the architecture takes."""
    if not ARCHITECTURES[architecture].places_backbone:
        return None
    return RESNET if architecture == "detrank/maskrcnn_c4" else BACKBONE


def random_module(
    architecture: str, num_classes: int = 3, backbone: str | None = None, seed: int = 0
) -> nn.Module:
    """The architecture with random weights whose norms are not the identity."""
    arch = ARCHITECTURES[architecture]
    module = build_module(
        arch,
        num_classes=num_classes,
        input=arch.input,
        backbone=backbone or backbone_for(architecture),
        options={},
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.1, generator=generator)
    return module


def random_detector(
    architecture: str, backbone: str | None = None, module: nn.Module | None = None
) -> Detector:
    """A detector with random weights, without a file in between; `module` instead of one that is built."""
    arch = ARCHITECTURES[architecture]
    module = (module or random_module(architecture, backbone=backbone)).eval().requires_grad_(False)
    face = arch.face(module) if arch.wrap is None else None
    layers = layers_of(face, ()) if face else arch.layers(module, arch.input, ())
    manifest = Manifest(
        architecture=architecture,
        format="random",
        kind="detector",
        input=arch.input,
        layers=layers,
        backbone=backbone or backbone_for(architecture),
        parameters=0,
        source={},
        weights_sha256="0" * 64,
    )
    return TorchvisionDetector(manifest, module, face) if face else arch.wrap(manifest, module)


Convert = Callable[..., Manifest]


def asked_in(manifest: Manifest) -> tuple[str, ...]:
    """Its warnings but that the networks of these tests were never trained, which they were not."""
    return tuple(warning for warning in manifest.warnings if "look untrained" not in warning)


@pytest.fixture
def convert_inline(tmp_path: Path) -> Convert:
    """``convert`` without its child: the same code, in this process."""

    def run(source: Path, out: Path | None = None, **asked: object) -> Manifest:
        target = out or tmp_path / "converted"
        target.mkdir(exist_ok=True)
        return convert_here(
            Request(
                source=source,
                sha256=digest_of(source),
                uri=str(asked.get("uri") or source.name),
                out=target,
                architecture=asked.get("architecture"),
                kind=asked.get("kind"),
                overrides=asked.get("overrides") or {},
                limits=Limits(),
            )
        )

    return run


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five images of three shapes; annotation ids run against image ids."""
    rng = np.random.default_rng(2)
    root = tmp_path / "dataset"
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for index, (height, width) in enumerate(SIZES):
        name = f"images/{index}.png"
        PIL.Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(root / name)
        images.append(
            {"id": index + 1, "file_name": name, "width": width, "height": height, "split": "train"}
        )
        for number in range(2):
            x, y = (float(v) for v in rng.uniform(2, 20, 2))
            annotations.append(
                {
                    "id": 100 - 10 * index - number,
                    "image_id": index + 1,
                    "category_id": 1 + (index + number) % 2,
                    "bbox": [x, y, 16.5, 14.25],
                    "area": 16.5 * 14.25,
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {"supervision": "boxes", "detrank_version": VERSION, "digest": "coded"},
        "images": images,
        "annotations": sorted(annotations, key=lambda one: one["id"]),
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (root / "annotations.json").write_text(json.dumps(document))
    return open_dataset(root)
