"""A Detector over a transformers module with queries."""

from __future__ import annotations

import contextlib
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models_store.detr.boxes import absolute, per_image, query_of_each, relative
from models_store.detr.embedding import EMBEDDING_HEAD, OF_PRETRAINING
from models_store.detr.families import Family
from models_store.detr.layerwise import layerwise
from models_store.detr.loss import Target, set_loss
from models_store.detr.maps import MATCHED, MEMORY, QUERIES, Maps, size_multiple, unpacked, width
from models_store.manifest import Layer, Manifest
from models_store.pixels import stacked
from models_store.sizes import Size, size_limits
from models_store.source import NoSourceClasses, no_source_classes, normalised_sigmoids

FOCAL_PRIOR = 0.01
HEAD_STD = 0.01
TOP = 100


# Features are read under no_grad, not inference_mode: transformers keeps anchors and position embeddings between calls,
# and what one call leaves behind has to serve training, too.


class DetrDetector:
    """Detector protocol for DETR and its descendants; ``module`` is transformers' own and can be called as such.

    Images are resized as the published code does (shorter side, then the longer one's limit; antialiased) and never
    padded for features and predictions: images of different target sizes go through the module apart, so what is
    read from an image does not depend on its batch. ``losses`` pads and masks, as training did, where the module
    reads masks.

    ``decoder.matched_query``: the last decoder state of the query whose predicted box fits the object's best, by
    Hungarian matching on 5 L1 - 2 GIoU without a class term. An image with more objects than queries is matched in
    rounds (``query_of_each``), so that each object has a vector and queries are shared as little as can be.
    """

    # Whether losses are means over pictures, and not over objects or queries.
    counts_pictures = False

    def __init__(self, manifest: Manifest, module: nn.Module, family: Family) -> None:
        self.manifest, self.family = manifest, family
        self.module = module.eval().requires_grad_(False)
        self.layers = manifest.layers
        self._layer = {layer.name: layer for layer in manifest.layers}
        self._maps = Maps(self.module, family)
        self._multiple = size_multiple(self.module, family)

    def resized(self, height: int, width: int, image_size: Size | None) -> tuple[int, int]:
        spec = self.manifest.input
        low, high = (spec.min_size, spec.max_size) if image_size is None else size_limits(image_size)
        if spec.fixed_size is not None:
            return spec.fixed_size if image_size is None else (self._whole(low),) * 2
        short, long = min(height, width), max(height, width)
        side = low if long / short * low <= high else max(1, round(high * short / long))
        scaled = max(1, int(side * long / short))
        rows, columns = (side, scaled) if height <= width else (scaled, side)
        return self._whole(rows), self._whole(columns)

    def _whole(self, side: int) -> int:
        return max(1, side // self._multiple) * self._multiple

    def prepare(self, images: Sequence[np.ndarray], image_size: Size | None = None) -> Tensor:
        targets = {self.resized(image.shape[0], image.shape[1], image_size) for image in images}
        if len(targets) != 1:
            raise ValueError(f"the images of one batch must share one target size, found {sorted(targets)}")
        height, width = targets.pop()
        spec = self.manifest.input
        return stacked(
            images,
            (height, width),
            (height, width),
            mean=spec.mean,
            std=spec.std,
            device=self._device,
            mode=str(self.manifest.options.get("resample", "bilinear")),
            antialias=True,
        )

    def map_layers(self, layer: str) -> tuple[str, ...]:
        """For ``decoder.matched_query`` its queries, and last the coarsest map that stands for it as a whole."""
        self._known(layer)
        if layer != MATCHED:
            return (layer,)
        maps = [x.name for x in self.layers if x.name.startswith(MEMORY)]
        maps = maps or [x.name for x in self.layers if x.kind == "map"]
        return (QUERIES, maps[-1])

    def feature_maps(self, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        for layer in layers:
            if layer != QUERIES and self._known(layer).kind != "map":
                raise KeyError(f"{layer!r} is no map: ask for {self.map_layers(layer)}, then object_features")
        with torch.no_grad():
            return self._maps.run(pixels, layers)

    def before(self, layer: str) -> tuple[str, nn.Module] | None:
        return None

    def object_features(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int], layer: str
    ) -> Tensor:
        if layer != MATCHED:
            raise KeyError(f"{layer!r} has no object features of its own: pool its map")
        with torch.no_grad():
            states, _ = self._matched(maps, boxes, image_hw)
            return states

    def source_maps(self) -> tuple[str, ...] | NoSourceClasses:
        # Any new tensor is on the way to the class scores, or to the boxes that queries are matched by.
        return no_source_classes(self.manifest, ("",)) or (QUERIES,)

    def source_probabilities(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> Tensor:
        """(sum n_i, C) class probabilities of each object's matched query, summing to 1; "no object" left out.

        Where classes are sigmoids they are divided by their sum.
        """
        names = self.source_maps()
        if isinstance(names, NoSourceClasses):
            raise ValueError(names.detail)
        with torch.no_grad():
            _, logits = self._matched(maps, boxes, image_hw)
            if self.family.no_object:
                return logits[:, :-1].float().softmax(-1)
            return normalised_sigmoids(logits)

    def _matched(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        states, predicted, logits = unpacked(maps[QUERIES], width(self.module))
        wanted = [relative(b.view(-1, 4), image_hw).to(predicted) for b in boxes]
        chosen = per_image(predicted, wanted, query_of_each)
        pick = [(states[i, q], logits[i, q]) for i, q in enumerate(chosen)]
        return torch.cat([s for s, _ in pick]), torch.cat([c for _, c in pick])

    def losses(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[Mapping[str, Any]],
        *,
        image_size: Size | None = None,
    ) -> dict[str, Tensor]:
        """Weighted training losses: their sum is what training minimises.

        DETR, Deformable DETR and their kin: ``set_loss`` over all decoder layers. The others: ``loss``, transformers'
        own for them (denoising, distillation and dense terms included).
        """
        pixels, mask = self._padded(images, image_size)
        wanted = self._wanted(images, targets)
        with self._learning():
            if self.family.set_loss:
                outputs = layerwise(self.module, self.family, pixels, mask).float()
                return set_loss(outputs, wanted, no_object=self.family.no_object)
            labels = [{"class_labels": t.labels, "boxes": t.boxes} for t in wanted]
            return {"loss": self.module(pixel_values=pixels, labels=labels).loss}

    def _wanted(self, images: Sequence[np.ndarray], targets: Sequence[Mapping[str, Any]]) -> list[Target]:
        return [
            Target(
                relative(t["boxes"].to(self._device).view(-1, 4), (i.shape[0], i.shape[1])),
                t["labels"].long().to(self._device).view(-1),
            )
            for i, t in zip(images, targets, strict=True)
        ]

    @contextlib.contextmanager
    def _learning(self) -> Iterator[None]:
        """Within, the module is in training mode but for its batch norms."""
        self.module.train()
        for child in self.module.modules():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                child.eval()
        try:
            yield
        finally:
            self.module.eval()

    def predictions(
        self, images: Sequence[np.ndarray], *, image_size: Size | None = None
    ) -> list[dict[str, Tensor]]:
        """The 100 best (query, class) pairs of an image; with "no object", the best class of each query."""
        found: list[dict[str, Tensor]] = [{} for _ in images]
        with torch.no_grad():
            for rows in self._by_size(images, image_size):
                outputs = self._run(self.prepare([images[i] for i in rows], image_size))
                for row, boxes, logits in zip(rows, outputs.pred_boxes, outputs.logits, strict=True):
                    found[row] = self._prediction(boxes, logits, images[row].shape[:2])
        return found

    def _prediction(self, boxes: Tensor, logits: Tensor, image_hw: tuple[int, int]) -> dict[str, Tensor]:
        if self.family.no_object:
            scores, labels = logits.softmax(-1)[:, :-1].max(-1)
            queries = torch.arange(len(scores), device=scores.device)
        else:
            flat = logits.sigmoid().flatten()
            scores, index = flat.topk(min(TOP, flat.numel()))
            queries, labels = index // logits.shape[-1], index % logits.shape[-1]
        order = scores.argsort(descending=True)[:TOP]
        return {
            "boxes": absolute(boxes[queries[order]], image_hw),
            "scores": scores[order],
            "labels": labels[order],
        }

    def replace_head(self, num_classes: int, seed: int) -> None:
        if num_classes < 1:
            raise ValueError(f"a head needs at least one class, not {num_classes}")
        self._drop_pretraining()
        outputs = num_classes + int(self.family.no_object)
        fresh = replace_class_heads(self.module, self.family, num_classes, outputs, seed)
        self.module.config.num_labels = num_classes
        self.module.to(self._device).requires_grad_(False)
        kept = tuple(key for key in self.manifest.initialised_keys if key not in fresh)
        self.manifest = self.manifest.but(
            num_classes=num_classes, class_names=None, initialised_keys=tuple(sorted({*kept, *fresh}))
        )

    def _drop_pretraining(self) -> None:
        """What only DETReg's pretraining reads goes, as in its own fine-tuning."""
        if hasattr(self.module, EMBEDDING_HEAD):
            delattr(self.module, EMBEDDING_HEAD)
        options = {k: v for k, v in self.manifest.options.items() if k not in OF_PRETRAINING}
        self.manifest = self.manifest.but(options=options)

    def _run(self, pixels: Tensor) -> Any:
        if not self.family.masks:
            return self.module(pixel_values=pixels)
        return self.module(pixel_values=pixels, pixel_mask=torch.ones_like(pixels[:, 0], dtype=torch.long))

    def _by_size(self, images: Sequence[np.ndarray], image_size: Size | None) -> list[list[int]]:
        groups: dict[tuple[int, int], list[int]] = {}
        for row, image in enumerate(images):
            groups.setdefault(self.resized(image.shape[0], image.shape[1], image_size), []).append(row)
        return list(groups.values())

    def _padded(self, images: Sequence[np.ndarray], image_size: Size | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) padded right and bottom with zeros, and (B, H, W) long, 1 where there is image."""
        ready = [self.prepare([image], image_size)[0] for image in images]
        height, width = (max(x.shape[axis] for x in ready) for axis in (-2, -1))
        if not self.family.masks and len({x.shape for x in ready}) > 1:
            raise ValueError(
                f"{self.family.title} reads no mask: give images of one target size, not "
                f"{sorted({tuple(x.shape[-2:]) for x in ready})}"
            )
        pixels = torch.zeros(len(ready), 3, height, width, device=self._device)
        mask = torch.zeros(len(ready), height, width, dtype=torch.long, device=self._device)
        for row, x in enumerate(ready):
            pixels[row, :, : x.shape[-2], : x.shape[-1]] = x
            mask[row, : x.shape[-2], : x.shape[-1]] = 1
        return pixels, mask

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _known(self, layer: str) -> Layer:
        if layer not in self._layer:
            raise KeyError(f"{self.manifest.architecture} has no layer {layer!r}: {', '.join(self._layer)}")
        return self._layer[layer]


def replace_class_heads(
    module: nn.Module, family: Family, num_classes: int, outputs: int, seed: int
) -> tuple[str, ...]:
    """Fresh class layers in place, keeping which of them are one module; the names of their parameters.

    Sigmoid classes start at probability 0.01 each (arXiv 1708.02002, section 3.3), softmax classes equal.
    """
    fresh: list[str] = []
    made: dict[int, nn.Module] = {}
    named = dict(module.named_modules(remove_duplicate=False))
    for name, old in named.items():
        if not any(re.fullmatch(pattern, f"{name}.weight") for pattern in family.class_heads):
            continue
        # Tied layers are two modules around one tensor.
        key = id(old.weight)
        if key not in made:
            device = old.weight.device
            made[key] = _fresh(old, name, num_classes, outputs, family.no_object, seed).to(device)
        owner, _, last = name.rpartition(".")
        parent = module.get_submodule(owner)
        if last.isdigit():
            parent[int(last)] = made[key]
        else:
            setattr(parent, last, made[key])
        fresh += [f"{name}.{leaf}" for leaf, _ in old.named_parameters()]
    return tuple(fresh)


def _fresh(
    old: nn.Module, name: str, num_classes: int, outputs: int, no_object: bool, seed: int
) -> nn.Module:
    # One layer's copies in refining decoders start alike, as published: the index is no part of the seed.
    key = re.sub(r"\d+", "", name.removeprefix("model.decoder."))
    generator = torch.Generator().manual_seed(seed * 0x9E3779B1 + zlib.crc32(key.encode()))
    if isinstance(old, nn.Embedding):
        new: nn.Module = nn.Embedding(num_classes + 1, old.embedding_dim, padding_idx=num_classes)
    else:
        new = nn.Linear(old.in_features, outputs)
    with torch.no_grad():
        new.weight.normal_(0.0, HEAD_STD, generator=generator)
        if isinstance(new, nn.Linear):
            new.bias.fill_(0.0 if no_object else -math.log((1 - FOCAL_PRIOR) / FOCAL_PRIOR))
        else:
            new.weight[num_classes] = 0
    return new
