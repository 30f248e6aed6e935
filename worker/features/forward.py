"""One forward pass of a batch: only the maps needed, then vectors of every layer and level from them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from models_store.detector import Detector
from models_store.manifest import Layer
from worker.features.cost import Cost, measure
from worker.features.grouping import Picture
from worker.features.layers import SOURCE_LAYER, SOURCE_LEVEL
from worker.features.pool import global_vectors, local_vectors

_BATCH_SIZE = {"cpu": 4, "cuda": 16}


class Reader:
    """Reads vectors of batches from one detector on one device; remembers how large a batch fits."""

    def __init__(
        self,
        detector: Detector,
        layers: Sequence[Layer],
        levels: Sequence[str],
        image_size: int | None,
        device: torch.device,
        precision: str,
        source_maps: Sequence[str] = (),
    ) -> None:
        """`source_maps`: what source probabilities are computed from; empty where they are not asked for."""
        self.detector = detector
        self.layers = tuple(layers)
        self.levels = tuple(levels)
        self.image_size = image_size
        self.device = device
        self.dtype = getattr(torch, precision)
        self.batch_size = _BATCH_SIZE.get(device.type, 4)
        self.maps = tuple(dict.fromkeys(name for layer in layers for name in detector.map_layers(layer.name)))
        self.source_maps = tuple(source_maps)
        self.run_maps = tuple(dict.fromkeys((*self.maps, *self.source_maps)))
        self.warnings: list[str] = []
        self._fits: int | None = None
        detector.module.eval()
        detector.module.to(device=device, memory_format=torch.channels_last)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which an image of this size is resized, before padding."""
        return self.detector.resized(height, width, self.image_size)

    def read(
        self, batch: Sequence[Picture], clock: dict[str, float]
    ) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
        """Rows (n,) and, by layer and level, their vectors (n, D) float32, for pictures of one target size.

        Source probabilities are among them, under `SOURCE_LAYER` and `SOURCE_LEVEL`.
        Out of memory on the device halves the batch, for the batches after it too; a single picture that does
        not fit raises torch.OutOfMemoryError.
        """
        rows: list[np.ndarray] = []
        parts: list[dict[tuple[str, str], np.ndarray]] = []
        waiting = list(batch)
        while waiting:
            size = min(len(waiting), self._fits or len(waiting))
            try:
                part = self._read(waiting[:size], clock)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self._fits = size // 2
                self.warnings.append(
                    f"the device ran out of memory with {size} images; went on with {self._fits}"
                )
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            rows.extend(picture.rows for picture in waiting[:size])
            parts.append(part)
            del waiting[:size]
        return np.concatenate(rows), {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }

    def cost(self, picture: Picture) -> Cost:
        """What one image costs through the layers that are read."""
        pixels = self._pixels([picture])
        with self._mode():
            return measure(
                lambda: self.detector.feature_maps(pixels, self.maps),
                self.detector.module,
                self.device,
                tuple(pixels.shape[2:]),
                "forward pass to " + ", ".join(self.maps),
            )

    def _read(self, batch: Sequence[Picture], clock: dict[str, float]) -> dict[tuple[str, str], np.ndarray]:
        begin = time.perf_counter()
        pixels = self._pixels(batch)
        image_hw = self.target_size(*batch[0].pixels.shape[:2])
        boxes = [self._boxes(picture, image_hw) for picture in batch]
        counts = [len(picture.rows) for picture in batch]
        with self._mode():
            maps = self.detector.feature_maps(pixels, self.run_maps)
            self._wait()
            clock["forward"] += time.perf_counter() - begin
            begin = time.perf_counter()
            vectors = {
                (layer.name, level): self._vectors(
                    layer, level, maps, boxes, image_hw, tuple(pixels.shape[2:]), counts
                )
                for layer in self.layers
                for level in self.levels
            }
            if self.source_maps:
                vectors[SOURCE_LAYER, SOURCE_LEVEL] = self.detector.source_probabilities(
                    maps, boxes, image_hw
                )
            out = {name: values.float().cpu().numpy() for name, values in vectors.items()}
        clock["pool"] += time.perf_counter() - begin
        for name, values in out.items():
            if len(values) != sum(counts):
                raise AssertionError(
                    f"{name[0]} ({name[1]}) gave {len(values)} vectors for {sum(counts)} objects"
                )
        return out

    def _vectors(
        self,
        layer: Layer,
        level: str,
        maps: dict[str, Tensor],
        boxes: list[Tensor],
        image_hw: tuple[int, int],
        input_hw: tuple[int, int],
        counts: list[int],
    ) -> Tensor:
        if level == "global":
            # A layer that has no map is represented by the coarsest map it reads, as in the published system.
            source = (
                maps[layer.name] if layer.kind == "map" else maps[self.detector.map_layers(layer.name)[-1]]
            )
            whole = global_vectors(source, image_hw, input_hw)
            return whole.repeat_interleave(torch.tensor(counts, device=whole.device), dim=0)
        if layer.kind == "map":
            return local_vectors(maps[layer.name], boxes, input_hw)
        return self.detector.object_features(maps, boxes, image_hw, layer.name)

    def _pixels(self, batch: Sequence[Picture]) -> Tensor:
        pixels = self.detector.prepare([picture.pixels for picture in batch], self.image_size)
        return pixels.to(self.device, memory_format=torch.channels_last)

    def _boxes(self, picture: Picture, image_hw: tuple[int, int]) -> Tensor:
        height, width = picture.pixels.shape[:2]
        scale = np.array([image_hw[1] / width, image_hw[0] / height] * 2)
        return torch.from_numpy(picture.boxes * scale).to(self.device, torch.float32)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextlib.contextmanager
    def _mode(self) -> Iterator[None]:
        """No gradients, the chosen precision, and on CUDA kernels that give the same numbers each time."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.device.type == "cuda":
                stack.enter_context(
                    torch.backends.cudnn.flags(
                        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                    )
                )
            if self.dtype != torch.float32:
                stack.enter_context(torch.autocast(self.device.type, dtype=self.dtype))
            yield
