"""One forward pass of a batch: only the maps needed, then vectors of every layer and level from them.

torch.compile is not used. On a CPU MobileNetV3 with a pyramid, folded, took 49 ms for two pictures of 320 x 448, 51
compiled and 40 with its constants frozen, after 113 and 23 seconds of compiling: more than reading thousands of pictures
gives back, for each candidate. On CUDA it is not measured.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models_store.detector import Detector
from models_store.errors import out_of_memory
from models_store.fold import folded
from models_store.manifest import Layer
from worker.features.cost import Meter
from worker.features.grouping import DecodedImage
from worker.features.layers import REGIONS, SOURCE_LAYER, SOURCE_LEVEL, of_regions
from worker.features.memory import free_bytes
from worker.features.pool import (
    global_vectors,
    global_vectors_before,
    local_vectors,
    local_vectors_before,
)

# The most images of a batch: powers of two, so that parts of whole batches are parts of smaller ones too.
BATCH_SIZE = {"cpu": 4, "cuda": 64}
# Their pixels together. On a CPU larger batches leave its caches: MobileNetV3 in 800 x 800 pixels takes 131 ms an image
# alone and 177 in fours, in 320 x 320 pixels 20 and 17. On CUDA they fill the card.
_BATCH_PIXELS = {"cpu": 800 * 800, "cuda": 16 * 1024 * 1024}
# Of the free memory, what a batch may take.
_SHARE = 0.6
_PROBE_HW = (96, 128)
_PROBE_SIZE = 96
Ready = Callable[[Hashable, Callable[[], Tensor]], Tensor]


@dataclass(frozen=True)
class Loaded:
    """Pictures of one target size on the device: pixels (B, 3, H, W), None where they had no room together."""

    pictures: Sequence[DecodedImage]
    image_hw: tuple[int, int]
    pixels: Tensor | None
    ready: torch.cuda.Event | None = None


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
        regions: bool = False,
        ready: Ready | None = None,
    ) -> None:
        """`source_maps`: what source probabilities are computed from; empty where they are not asked for.

        `regions`: whether pictures have regions that are to be read. `ready`: gives a batch that is prepared already, by the
        ids of its images, or what it is told to make; on a CPU only.
        """
        self.detector = detector
        self.layers = tuple(layers)
        self.levels = tuple(levels)
        self.image_size = image_size
        self.device = device
        self.dtype = getattr(torch, precision)
        self.source_maps = tuple(source_maps)
        self.region_layers = of_regions(self.layers) if regions else ()
        self.before = _before(detector, self.layers, self.source_maps)
        named = [name for layer in layers for name in detector.map_layers(layer.name)]
        run = [self.before[name][0] if name in self.before else name for name in named]
        self.run_maps = tuple(dict.fromkeys((*run, *self.source_maps)))
        self.ready = ready if device.type == "cpu" else None
        self.warnings: list[str] = []
        self.meter = Meter(
            detector.module, device, "forward pass to " + ", ".join(dict.fromkeys(named)), precision
        )
        self._fits: int | None = None
        self._rooms: dict[int, int | None] = {}
        self._ahead = torch.cuda.Stream(device) if device.type == "cuda" else None
        detector.module.eval()
        detector.module.to(device=device, memory_format=torch.channels_last)
        with self._mode(torch.float32):
            self.weights = folded(detector.module, self._probe, self.dtype)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which an image of this size is resized, before padding."""
        return self.detector.resized(height, width, self.image_size)

    def batch_size(self, image_hw: tuple[int, int]) -> int:
        """How many images of a target size go together at best: a power of two that follows the size alone."""
        most = BATCH_SIZE.get(self.device.type, 4)
        pixels = _BATCH_PIXELS.get(self.device.type, _BATCH_PIXELS["cpu"])
        return _power_of_two(min(most, pixels // (image_hw[0] * image_hw[1])))

    def load(self, batch: Sequence[DecodedImage]) -> Loaded:
        """Pictures of one target size resized, normalised and on the device; from another thread, too, on CUDA."""
        image_hw = self.target_size(*batch[0].pixels.shape[:2])
        if self._ahead is None:
            ids = tuple(picture.image_id for picture in batch)
            made = partial(self._pixels, batch)
            return Loaded(batch, image_hw, self.ready(ids, made) if self.ready else made())
        try:
            with torch.cuda.stream(self._ahead):
                pixels = self._pixels(batch)
                return Loaded(batch, image_hw, pixels, self._ahead.record_event())
        except torch.OutOfMemoryError:
            return Loaded(batch, image_hw, None)

    def read(
        self, loaded: Loaded, clock: dict[str, float]
    ) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
        """Rows (n,) and, by layer and level, their vectors (n, D) float32.

        Source probabilities are among them, under `SOURCE_LAYER` and `SOURCE_LEVEL`, and (m, D) of the m regions, picture by
        picture, under their layer and `REGIONS`.
        Out of memory on the device halves the batch, for the batches after it too; a single picture that does
        not fit raises torch.OutOfMemoryError.
        """
        if loaded.ready is not None and loaded.pixels is not None:
            torch.cuda.current_stream(self.device).wait_event(loaded.ready)
            loaded.pixels.record_stream(torch.cuda.current_stream(self.device))
        parts: list[dict[tuple[str, str], np.ndarray]] = []
        done, count = 0, len(loaded.pictures)
        while done < count:
            size = min(count - done, self._fits or self._room(loaded))
            try:
                parts.append(self._read(loaded, slice(done, done + size), clock))
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)) or size == 1:
                    raise
                self._fits = size // 2
                self.warnings.append(
                    f"the device ran out of memory with {size} images; went on with {self._fits}"
                )
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            done += size
        rows = np.concatenate([picture.rows for picture in loaded.pictures])
        return rows, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _read(
        self, loaded: Loaded, which: slice, clock: dict[str, float]
    ) -> dict[tuple[str, str], np.ndarray]:
        pictures = loaded.pictures[which]
        pixels = self._pixels(pictures) if loaded.pixels is None else loaded.pixels[which]
        out = self._vectors_of(pictures, pixels, loaded.image_hw, self.dtype, clock)
        if self.dtype == torch.float16 and not all(np.isfinite(values).all() for values in out.values()):
            note = "values above float16's range were read again in float32"
            self.warnings += [note] if note not in self.warnings else []
            out = self._vectors_of(pictures, pixels, loaded.image_hw, torch.float32, clock)
        objects = sum(len(picture.rows) for picture in pictures)
        regions = sum(len(picture.region_rows) for picture in pictures)
        for name, values in out.items():
            count = regions if name[1] == REGIONS else objects
            if len(values) != count:
                raise AssertionError(f"{name[0]} ({name[1]}) gave {len(values)} vectors for {count} boxes")
        return out

    def _vectors_of(
        self,
        pictures: Sequence[DecodedImage],
        pixels: Tensor,
        image_hw: tuple[int, int],
        dtype: torch.dtype,
        clock: dict[str, float],
    ) -> dict[tuple[str, str], np.ndarray]:
        boxes = [self._boxes(picture, picture.boxes, image_hw) for picture in pictures]
        regions = [self._boxes(picture, picture.regions, image_hw) for picture in pictures]
        counts = [len(picture.rows) for picture in pictures]
        input_hw = (pixels.shape[2], pixels.shape[3])
        inside = self.weights if dtype == self.dtype else contextlib.nullcontext()
        with self._mode(dtype), inside:
            with _timed(clock, "forward"):
                maps = self.meter.run(
                    lambda: self.detector.feature_maps(pixels, self.run_maps), len(pictures), input_hw
                )
            with _timed(clock, "pool"):
                vectors = {
                    (layer.name, level): self._vectors(layer, level, maps, boxes, image_hw, input_hw, counts)
                    for layer in self.layers
                    for level in self.levels
                }
                # Apart from the objects, whose numbers are the same with regions and without.
                vectors |= {
                    (layer.name, REGIONS): self._local(layer, maps, regions, image_hw, input_hw)
                    for layer in self.region_layers
                }
                if self.source_maps:
                    vectors[SOURCE_LAYER, SOURCE_LEVEL] = self.detector.source_probabilities(
                        maps, boxes, image_hw
                    )
                return {name: values.float().cpu().numpy() for name, values in vectors.items()}

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
        if level == "local":
            return self._local(layer, maps, boxes, image_hw, input_hw)
        name, last = self.before.get(layer.name, (layer.name, None))
        # A layer that has no map is represented by the coarsest map it reads, as in the published system.
        source = maps[name] if layer.kind == "map" else maps[self.detector.map_layers(layer.name)[-1]]
        whole = (
            global_vectors(source, image_hw, input_hw)
            if last is None
            else global_vectors_before(source, last, image_hw, input_hw)
        )
        return whole.repeat_interleave(torch.tensor(counts, device=whole.device), dim=0)

    def _local(
        self,
        layer: Layer,
        maps: dict[str, Tensor],
        boxes: list[Tensor],
        image_hw: tuple[int, int],
        input_hw: tuple[int, int],
    ) -> Tensor:
        name, last = self.before.get(layer.name, (layer.name, None))
        if last is not None:
            return local_vectors_before(maps[name], last, boxes, input_hw)
        if layer.kind == "map":
            return local_vectors(maps[name], boxes, input_hw)
        return self.detector.object_features(maps, boxes, image_hw, layer.name)

    def _pixels(self, batch: Sequence[DecodedImage]) -> Tensor:
        pixels = self.detector.prepare([picture.pixels for picture in batch], self.image_size)
        return pixels.to(self.device, memory_format=torch.channels_last)

    def _boxes(self, picture: DecodedImage, boxes: np.ndarray, image_hw: tuple[int, int]) -> Tensor:
        height, width = picture.pixels.shape[:2]
        scale = np.array([image_hw[1] / width, image_hw[0] / height] * 2)
        return torch.from_numpy(boxes * scale).to(self.device, torch.float32)

    def _room(self, loaded: Loaded) -> int:
        """How many images of this size the free memory holds, as far as the first pass showed what one takes."""
        pixels = loaded.pixels
        if pixels is None:
            return 1
        if self.device.type == "cuda" and self.meter.image_hw is None:
            # Alone, so that a full batch is not tried blindly.
            with self._mode(self.dtype), self.weights:
                self.meter.run(
                    lambda: self.detector.feature_maps(pixels[:1], self.run_maps), 1, tuple(pixels.shape[2:])
                )
        if self.meter.image_hw is None:
            return len(loaded.pictures)
        area = pixels.shape[2] * pixels.shape[3]
        if area not in self._rooms:
            measured = self.meter.image_hw[0] * self.meter.image_hw[1]
            each = max(1, self.meter.bytes_per_image * area // measured)
            free = free_bytes(self.device)
            self._rooms[area] = None if free is None else _power_of_two(int(_SHARE * free / each))
        return self._rooms[area] or len(loaded.pictures)

    def _probe(self) -> dict[str, Tensor]:
        """The maps of a small picture: what is run for the real ones, but for what needs larger inputs."""
        known = {layer.name for layer in self.detector.layers if layer.kind == "map"}
        maps = [name for name in self.run_maps if name in known or name in self._merged]
        if len(maps) < len(self.run_maps):
            maps = sorted(known)
        noise = np.random.default_rng(0).integers(0, 256, (*_PROBE_HW, 3), dtype=np.uint8)
        pixels = self.detector.prepare([noise], _PROBE_SIZE).to(
            self.device, memory_format=torch.channels_last
        )
        return self.detector.feature_maps(pixels, maps)

    @property
    def _merged(self) -> set[str]:
        return {name for name, _ in self.before.values()}

    @contextlib.contextmanager
    def _mode(self, dtype: torch.dtype) -> Iterator[None]:
        """No gradients, the chosen precision, and on CUDA kernels that give the same numbers each time."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.device.type == "cuda":
                stack.enter_context(
                    torch.backends.cudnn.flags(
                        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                    )
                )
            if dtype != torch.float32:
                stack.enter_context(torch.autocast(self.device.type, dtype=dtype))
            yield


@contextlib.contextmanager
def _timed(clock: dict[str, float], step: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        clock[step] += time.perf_counter() - begin


def _before(
    detector: Detector, layers: Sequence[Layer], source_maps: Sequence[str]
) -> dict[str, tuple[str, torch.nn.Module]]:
    """By map layer: the map before its last convolution, with that convolution, where nobody needs the layer itself."""
    needed = set(source_maps)
    for layer in layers:
        needed |= set() if layer.kind == "map" else set(detector.map_layers(layer.name))
    found = {
        layer.name: detector.before(layer.name)
        for layer in layers
        if layer.kind == "map" and layer.name not in needed
    }
    return {name: before for name, before in found.items() if before is not None}


def _power_of_two(number: int) -> int:
    """The largest that is not above `number`, at least 1."""
    return 1 << max(0, number.bit_length() - 1)
