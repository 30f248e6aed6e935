"""A dataset whose pixels say which image and which place they are, and a detector that only averages them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from models_store.manifest import Input, Layer, Manifest
from models_store.source import NoSourceClasses
from worker.data.canonical import VERSION
from worker.data.dataset import Dataset, open_dataset

SIZES = ((96, 128), (128, 96), (100, 140), (96, 128), (77, 121), (96, 128))


def coded(image_id: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: red is ten times the image's number, green the column, blue the row."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = 10 * image_id
    pixels[..., 1] = np.arange(width)[None, :]
    pixels[..., 2] = np.arange(height)[:, None]
    return pixels


def write_dataset(root: Path, count: int = 12, per_image: int = 3) -> Dataset:
    """Canonical form on disk; annotation ids run against the image ids, so that nothing pairs by accident."""
    rng = np.random.default_rng(5)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    total = count * per_image
    for index in range(count):
        image_id = index + 1
        height, width = SIZES[index % len(SIZES)]
        name = f"images/{image_id:03d}.png"
        PIL.Image.fromarray(coded(image_id, height, width)).save(root / name)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height, "split": "train"})
        for number in range(per_image):
            w, h = (round(float(rng.uniform(25, 50)), 2) for _ in range(2))
            x, y = float(rng.uniform(8, width - w - 8)), float(rng.uniform(8, height - h - 8))
            annotations.append(
                {
                    "id": total - (number * count + index),
                    "image_id": image_id,
                    "category_id": 1 + image_id % 2,
                    "bbox": [round(x, 2), round(y, 2), w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    annotations.append(
        {
            "id": total + 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 50, 50],
            "area": 2500,
            "iscrowd": 1,
        }
    )
    document = {
        "info": {"supervision": "boxes", "detrank_version": VERSION, "digest": "coded"},
        "images": images,
        "annotations": sorted(annotations, key=lambda one: one["id"]),
        "categories": [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}],
    }
    (root / "annotations.json").write_text(json.dumps(document))
    return open_dataset(root)


class Averager(nn.Module):
    """Maps of strides 4, 8, 16 (means of the pixels, then some random convolutions) and 32 (untrained)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = nn.Conv2d(3, 13, 3, padding=1)

    def maps(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        c2 = nn.functional.avg_pool2d(pixels, 4)
        c3 = nn.functional.avg_pool2d(pixels, 8)
        c4 = torch.cat(
            [nn.functional.avg_pool2d(pixels, 16), nn.functional.avg_pool2d(self.mix(c3), 2)], dim=1
        )
        return {
            "backbone.c2": c2,
            "backbone.c3": c3,
            "backbone.c4": c4,
            "backbone.c5": nn.functional.avg_pool2d(c4, 2),
        }


class TinyDetector:
    """The Detector protocol over `Averager`; doubles or keeps the size of an image, pads to a multiple of 32."""

    def __init__(self, oom_above: int | None = None) -> None:
        self.module = Averager().eval().requires_grad_(False)
        self.layers = (
            Layer("backbone.c2", 4, 3, "map", True),
            Layer("backbone.c3", 8, 3, "map", True),
            Layer("backbone.c4", 16, 16, "map", True),
            Layer("backbone.c5", 32, 16, "map", False),
            Layer("neck.roi", None, 3, "vector", True),
        )
        self.manifest = Manifest(
            architecture="test/averager",
            format="test",
            kind="backbone",
            input=Input(),
            layers=self.layers,
            parameters=0,
            source={},
            weights_sha256=hashlib.sha256(b"averager").hexdigest(),
        )
        self.oom_above = oom_above
        self.no_source: NoSourceClasses | None = None
        self.batches: list[tuple[int, ...]] = []
        self.forwards = 0

    def resized(self, height: int, width: int, image_size: int | None) -> tuple[int, int]:
        factor = 1 if image_size is None else image_size / min(height, width)
        return round(height * factor), round(width * factor)

    def prepare(self, images: list[np.ndarray], image_size: int | None) -> torch.Tensor:
        sizes = {self.resized(*image.shape[:2], image_size) for image in images}
        assert len(sizes) == 1, "a batch holds one target size"
        ((height, width),) = sizes
        out = torch.zeros(len(images), 3, math.ceil(height / 32) * 32, math.ceil(width / 32) * 32)
        for row, image in enumerate(images):
            whole = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
            out[row, :, :height, :width] = nn.functional.interpolate(
                whole, size=(height, width), mode="bilinear"
            )[0]
        return out

    def map_layers(self, layer: str) -> tuple[str, ...]:
        return ("backbone.c2", "backbone.c3") if layer == "neck.roi" else (layer,)

    def before(self, layer: str) -> None:
        return None

    def feature_maps(self, pixels, layers):
        self.forwards += 1
        self.batches.append(tuple(pixels.shape))
        if self.oom_above is not None and len(pixels) > self.oom_above:
            raise torch.OutOfMemoryError("out of memory")
        maps = self.module.maps(pixels)
        return {name: maps[name] for name in layers}

    def object_features(self, maps, boxes, image_hw, layer):
        """Mean of the cells under each box of the stride-4 map."""
        found = []
        for whole, of_image in zip(maps["backbone.c2"], boxes, strict=True):
            for x1, y1, x2, y2 in (of_image / 4).tolist():
                found.append(whole[:, round(y1) : round(y2), round(x1) : round(x2)].mean((1, 2)))
        return torch.stack(found)

    def source_maps(self):
        return ("backbone.c2",) if self.no_source is None else self.no_source

    def source_probabilities(self, maps, boxes, image_hw):
        """Three classes: shares of image, column and row in the mean under the box."""
        means = self.object_features(maps, boxes, image_hw, "neck.roi")
        return means / means.sum(1, keepdim=True)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return write_dataset(tmp_path / "dataset")


@pytest.fixture
def detector() -> TinyDetector:
    return TinyDetector()


@pytest.fixture
def make_detector():
    return TinyDetector
