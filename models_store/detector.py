"""The one face that every checkpoint gets: maps by layer name, object features, losses, predictions, new head."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models_store.archs.face import Face
from models_store.archs.initialise import initialise
from models_store.archs.necks import MERGED
from models_store.bodies.norms import statistics_move
from models_store.build import architecture_of, build_module, fill, layers_of
from models_store.errors import Unusable
from models_store.manifest import WEIGHTS_FILE, Layer, Manifest
from models_store.pixels import stacked
from models_store.sizes import Size, size_limits
from models_store.source import NoSourceClasses, no_source_classes

ROI_LAYERS = ("neck.roi", "head.penultimate")


class Detector(Protocol):
    """Any detector, ready for reading features. ``module`` is in evaluation mode and frozen."""

    manifest: Manifest
    module: nn.Module
    layers: tuple[Layer, ...]

    def resized(self, height: int, width: int, image_size: Size | None) -> tuple[int, int]:
        """(h', w') that an image of ``height`` x ``width`` gets.

        ``image_size`` None: as the detector itself does. An int: the shorter side has that many pixels and
        the longer at most twice as many, or as many as a second int says; a detector of one fixed size gets a square
        of the first.
        """
        ...

    def prepare(self, images: Sequence[np.ndarray], image_size: Size | None = None) -> Tensor:
        """(B,3,H,W) float32, channels last, from uint8 (h,w,3) RGB pictures that share one target size.

        Resized (bilinear, not antialiased, as torchvision's detectors), normalised, padded right and bottom
        with zeros to the detector's divisor. Raises ValueError when target sizes differ.
        """
        ...

    def map_layers(self, layer: str) -> tuple[str, ...]:
        """The map layers that ``layer`` is computed from; a map layer needs itself. Raises KeyError."""
        ...

    def feature_maps(self, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """{layer: (B,C,h,w)} of map layers; no proposals, no suppression, nothing deeper than asked."""
        ...

    def before(self, layer: str) -> tuple[str, nn.Module] | None:
        """Where ``layer`` is one 3x3 convolution of another map (and a frozen norm): that map's name, and these modules.

        Whatever is linear in the layer, such as a mean over places, can be had from that map without running the
        convolution everywhere. None for a layer of another kind.
        """
        ...

    def object_features(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int], layer: str
    ) -> Tensor:
        """(sum n_i, D) for ``neck.roi`` (mean over 7x7) or ``head.penultimate`` (with its ReLUs).

        Of a dense head the latter is the mean over the 7x7 cells of its classification tower's map.

        ``maps``: of ``map_layers(layer)``; ``boxes``: per image (n_i, 4) xyxy in prepared pixels;
        ``image_hw``: the target size before padding.
        """
        ...

    def source_maps(self) -> tuple[str, ...] | NoSourceClasses:
        """The maps that ``source_probabilities`` is computed from, or why its head says nothing about classes."""
        ...

    def source_probabilities(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> Tensor:
        """(sum n_i, C) float32: the detector's own classes for each object, background left out, rows sum to 1.

        ``maps``: of ``source_maps()``; the rest as for ``object_features``. Raises ValueError where
        ``source_maps`` gives a reason against it.
        """
        ...

    def losses(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[Mapping[str, Any]],
        *,
        image_size: Size | None = None,
    ) -> dict[str, Tensor]:
        """Training losses by name, of images resized as ``resized`` says.

        Targets: ``boxes`` (n,4) xyxy in the image's own pixels, ``labels`` (n,) from 0; for a mask branch also
        ``masks`` (n,h,w) uint8, without which that branch is not trained. Running statistics of norms move only
        where the option ``norm`` is ``bn`` or ``syncbn``.
        """
        ...

    def predictions(
        self, images: Sequence[np.ndarray], *, image_size: Size | None = None
    ) -> list[dict[str, Tensor]]:
        """Per image ``boxes`` (n,4) xyxy in its own pixels, ``scores`` (n,), ``labels`` (n,) int64 from 0.

        A mask branch also gives ``masks`` (n,1,h,w) float32 in [0, 1].
        """
        ...

    def replace_head(self, num_classes: int, seed: int) -> None:
        """A fresh, seeded head for ``num_classes`` categories; everything else stays."""
        ...


# What a branch of a two-stage detector pools with, and the target that it learns from.
BRANCHES = {"mask_roi_pool": "masks", "keypoint_roi_pool": "keypoints"}


@contextlib.contextmanager
def learnable_branches(module: nn.Module, targets: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Within, mask and keypoint branches whose targets are not all there are off, as in a Faster R-CNN."""
    heads = getattr(module, "roi_heads", None)
    kept = {
        pool: getattr(heads, pool)
        for pool, name in BRANCHES.items()
        if getattr(heads, pool, None) is not None and not all(name in target for target in targets)
    }
    for pool in kept:
        setattr(heads, pool, None)
    try:
        yield
    finally:
        for pool, module_ in kept.items():
            setattr(heads, pool, module_)


@contextlib.contextmanager
def resizing(module: nn.Module, image_size: Size | None) -> Iterator[None]:
    """Within, the module's own transform resizes to ``image_size``; None leaves it as it is."""
    if image_size is None:
        yield
        return
    transform = module.transform
    kept = transform.min_size, transform.max_size, transform.fixed_size
    low, high = size_limits(image_size)
    transform.min_size, transform.max_size = (low,), high
    if transform.fixed_size is not None:
        transform.fixed_size = (low, low)
    try:
        yield
    finally:
        transform.min_size, transform.max_size, transform.fixed_size = kept


class TorchvisionDetector:
    """A Detector over a module with torchvision's detection interface."""

    def __init__(self, manifest: Manifest, module: nn.Module, face: Face) -> None:
        self.manifest = manifest
        self.module = module.eval().requires_grad_(False)
        self.face = face
        self.layers = manifest.layers
        self._layer = {layer.name: layer for layer in manifest.layers}

    def resized(self, height: int, width: int, image_size: Size | None) -> tuple[int, int]:
        spec = self.manifest.input
        low, high = (spec.min_size, spec.max_size) if image_size is None else size_limits(image_size)
        if spec.fixed_size is not None:
            return spec.fixed_size if image_size is None else (low, low)
        scale = min(low / min(height, width), high / max(height, width))
        return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))

    def prepare(self, images: Sequence[np.ndarray], image_size: Size | None = None) -> Tensor:
        targets = {self.resized(image.shape[0], image.shape[1], image_size) for image in images}
        if len(targets) != 1:
            raise ValueError(f"the images of one batch must share one target size, found {sorted(targets)}")
        height, width = targets.pop()
        spec = self.manifest.input
        rows, columns = (math.ceil(side / spec.divisor) * spec.divisor for side in (height, width))
        return stacked(
            images,
            (height, width),
            (rows, columns),
            mean=spec.mean,
            std=spec.std,
            device=next(self.module.parameters()).device,
            mode="bilinear",
        )

    def map_layers(self, layer: str) -> tuple[str, ...]:
        self._known(layer)
        return self.face.roi_levels if layer in ROI_LAYERS else (layer,)

    def feature_maps(self, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        for layer in layers:
            if self._known(layer.removesuffix(MERGED)).kind != "map":
                raise KeyError(f"{layer!r} is no map: ask for {self.map_layers(layer)}, then object_features")
        with torch.inference_mode():
            return self.face.maps(pixels, layers)

    def before(self, layer: str) -> tuple[str, nn.Module] | None:
        return self.face.before(layer)

    def object_features(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int], layer: str
    ) -> Tensor:
        if layer not in ROI_LAYERS:
            raise KeyError(f"{layer!r} has no object features of its own: pool its map")
        channels = self._known(layer).channels
        with torch.inference_mode():
            if not sum(len(b) for b in boxes):
                return torch.zeros(0, channels, device=next(self.module.parameters()).device)
            if layer == "head.penultimate" and self.face.tower is not None:
                towers = {name: self.face.tower(maps[name]) for name in self.face.roi_levels}
                return self.face.regions(towers, boxes, image_hw).mean(dim=(2, 3))
            regions = self.face.regions(dict(maps), boxes, image_hw)
            if layer == "neck.roi":
                return regions.mean(dim=(2, 3))
            return self.face.box_head(regions)  # type: ignore[misc]

    def source_maps(self) -> tuple[str, ...] | NoSourceClasses:
        source = self.face.source
        if reason := no_source_classes(self.manifest, source.parts if source else ()):
            return reason
        if source is None:
            return NoSourceClasses(
                "no_source_head",
                f"class scores of given boxes cannot be read from {self.manifest.architecture}",
            )
        return source.maps

    def source_probabilities(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> Tensor:
        names = self.source_maps()
        if isinstance(names, NoSourceClasses):
            raise ValueError(names.detail)
        with torch.inference_mode():
            if not sum(len(b) for b in boxes):
                return torch.zeros(
                    0, self.manifest.num_classes or 0, device=next(self.module.parameters()).device
                )
            return self.face.source.probabilities({name: maps[name] for name in names}, boxes, image_hw)  # type: ignore[union-attr]

    def losses(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[Mapping[str, Any]],
        *,
        image_size: Size | None = None,
    ) -> dict[str, Tensor]:
        offset = int(self.manifest.has_background)
        shifted = [
            dict(target)
            | {"boxes": target["boxes"].float().view(-1, 4), "labels": target["labels"].long() + offset}
            for target in targets
        ]
        self.module.train()
        if not statistics_move(self.module):
            for part in self.module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        try:
            with (
                learnable_branches(self.module, shifted),
                resizing(self.module, image_size),
            ):
                return self.module(self._plain(images), shifted)
        finally:
            self.module.eval()

    def predictions(
        self, images: Sequence[np.ndarray], *, image_size: Size | None = None
    ) -> list[dict[str, Tensor]]:
        offset = int(self.manifest.has_background)
        with torch.inference_mode(), resizing(self.module, image_size):
            outputs = self.module(self._plain(images))
        found = [dict(output) | {"labels": output["labels"] - offset} for output in outputs]
        # A dense head may score its reserved output, which is no category.
        return [{name: values[one["labels"] >= 0] for name, values in one.items()} for one in found]

    def replace_head(self, num_classes: int, seed: int) -> None:
        if num_classes < 1:
            raise ValueError(f"a head needs at least one class, not {num_classes}")
        family = architecture_of(self.manifest.architecture).family
        device = next(self.module.parameters()).device
        fresh = self.face.replace_head(num_classes)  # type: ignore[misc]
        initialise(self.module, fresh, seed, focal=family == "one_stage")
        self.module.to(device).requires_grad_(False)
        kept = tuple(key for key in self.manifest.initialised_keys if key not in fresh)
        # A fresh dense head counts labels from 1, whatever the old one did.
        options = {key: value for key, value in self.manifest.options.items() if key != "labels_from"}
        self.manifest = self.manifest.but(
            num_classes=num_classes,
            class_names=None,
            initialised_keys=tuple(sorted({*kept, *fresh})),
            has_background=architecture_of(self.manifest.architecture).has_background,
            options=options,
        )

    def _plain(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        device = next(self.module.parameters()).device
        return [
            torch.from_numpy(np.ascontiguousarray(i)).to(device).permute(2, 0, 1).float().div_(255.0)
            for i in images
        ]

    def _known(self, layer: str) -> Layer:
        if layer not in self._layer:
            raise KeyError(f"{self.manifest.architecture} has no layer {layer!r}: {', '.join(self._layer)}")
        return self._layer[layer]


def load_detector(folder: Path, *, device: str | torch.device = "cpu") -> Detector:
    """The converted checkpoint in ``folder``, frozen, on ``device``.

    Raises Unusable ``missing`` or ``corrupt`` when the folder is not what ``convert`` wrote.
    """
    folder = Path(folder)
    try:
        manifest = Manifest.read(folder)
        raw = (folder / WEIGHTS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise Unusable("missing", f"{Path(error.filename).name} is not in the checkpoint's folder") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable("corrupt", f"manifest.json cannot be read: {error}") from None
    if hashlib.sha256(raw).hexdigest() != manifest.weights_sha256:
        raise Unusable(
            "corrupt", f"{WEIGHTS_FILE} is not the file that manifest.json describes: convert again"
        )
    del raw
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise Unusable("corrupt", f"{WEIGHTS_FILE} cannot be read: {error}") from None
    architecture = architecture_of(manifest.architecture)
    as_built = architecture.family == "detr"
    module = build_module(
        architecture,
        num_classes=manifest.num_classes,
        input=manifest.input,
        backbone=manifest.backbone,
        options=manifest.options,
        filled_later=not as_built,
    )
    fill(
        module,
        tensors,
        manifest.initialised_keys,
        manifest.initialisation_seed,
        focal=architecture.family == "one_stage",
        as_built=as_built,
    )
    return wrapped(manifest, module, device)


def wrapped(manifest: Manifest, module: nn.Module, device: str | torch.device) -> Detector:
    """A filled module as the Detector that ``manifest`` describes. Raises Unusable ``corrupt`` where it has other layers."""
    architecture = architecture_of(manifest.architecture)
    if architecture.wrap is not None:
        return architecture.wrap(manifest, module.to(device))
    face = architecture.face_of(module)
    if layers_of(face, manifest.initialised_keys) != manifest.layers:
        raise Unusable(
            "corrupt", "the layers of this version differ from the manifest's: convert the checkpoint again"
        )
    return TorchvisionDetector(manifest, module.to(device), face)
