"""Maps, memory and queries of a transformers detector by hooks, running no more of it than is asked for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from timm.models._features import FeatureListNet
from torch import Tensor, nn

from models_store.bodies.stages import Stage, find_stages, nearest_stride
from models_store.detr.families import Family, body_path
from models_store.detr.placed import PlacedBody
from models_store.manifest import Layer

QUERIES = "decoder.queries"
MATCHED = "decoder.matched_query"
MEMORY = "encoder.memory"
BODY = "backbone."
PROBE_PIXELS = 128
GRID_TOKENS = 1
# DEIMv2's light encoder gives two, whatever goes in.
LITE_LEVELS = 2


class _Enough(Exception):
    pass


class Maps:
    """Reads named layers of one module.

    ``backbone.c<k>``: backbone maps; ``encoder.memory`` (``.l0`` ... from fine to coarse where there are several):
    the encoder's output as maps; ``decoder.queries``: (B, D + 4 + outputs, Q, 1), the last decoder state, its box
    (cxcywh in [0, 1]) and its class logits, of each query.
    """

    def __init__(self, module: nn.Module, family: Family) -> None:
        self.module, self.family = module, family
        body = module.get_submodule(body_path(module, family))
        # What wraps a timm network has no maps of its own.
        self.body = getattr(body, "_backbone", body)
        self.taps = _taps(self.body)
        self.stages = self._token_stage() if family.tokens else self._find_stages()

    def _placed(self, pixels: Tensor, wanted: Collection[str], mask: Tensor | None) -> dict[str, Tensor]:
        body = self.body
        names = tuple(s.name for s in body.stages if BODY + s.name in wanted)
        if all(name.startswith(BODY) for name in wanted):
            return {BODY + name: x for name, x in body.body.run(pixels, names).items()}
        found: dict[str, Tensor] = {}
        body.also = names
        try:
            with self._reading(pixels, {}, found, True, QUERIES in wanted):
                self._whole(pixels, mask, found)
            found |= {BODY + name: x for name, x in body.remembered.items()}
        finally:
            body.also, body.remembered = (), {}
        return {name: found[name] for name in wanted}

    def _whole(self, pixels: Tensor, mask: Tensor | None, found: dict[str, Tensor]) -> None:
        mask = torch.ones_like(pixels[:, 0], dtype=torch.long) if mask is None else mask
        outputs = self.module(pixel_values=pixels, pixel_mask=mask)
        found[QUERIES] = packed(outputs.last_hidden_state, outputs.pred_boxes, outputs.logits)

    @torch.no_grad()
    def run(self, pixels: Tensor, wanted: Collection[str], mask: Tensor | None = None) -> dict[str, Tensor]:
        """{layer: (B, C, h, w)}. ``mask`` (B, H, W) is 1 where there is image, None for everywhere."""
        if self.family.tokens:
            return self._tokens(pixels, wanted)
        if isinstance(self.body, PlacedBody):
            return self._placed(pixels, wanted, mask)
        stages = {s.name: s.index for s in self.stages if BODY + s.name in wanted}
        deep = any(not name.startswith(BODY) for name in wanted)
        found: dict[str, Tensor] = {}
        with self._reading(pixels, stages, found, deep, QUERIES in wanted):
            if deep:
                self._whole(pixels, mask, found)
            else:
                self.body(pixels)
        return {name: found[name] for name in wanted}

    def layers(self, pixels: Tensor, *, trained: bool = True) -> tuple[Layer, ...]:
        """Every layer, with strides measured on ``pixels`` (1, 3, H, W): the whole module runs once.

        ``trained`` False: what stands behind the backbone was initialised here.
        """
        names = {QUERIES} | {BODY + s.name for s in self.stages}
        maps = self.run(pixels, names | set(self._memory_names()))
        layers = [Layer(BODY + s.name, s.stride, s.channels, "map", True) for s in self.stages]
        for name in self._memory_names():
            stride = nearest_stride(pixels.shape[-2], maps[name].shape[-2])
            layers.append(Layer(name, stride, maps[name].shape[1], "map", trained))
        layers.append(Layer(MATCHED, None, width(self.module), "vector", trained))
        return tuple(layers)

    def _memory_names(self) -> tuple[str, ...]:
        config = self.module.config
        count = {"one": 1, "none": 0}.get(self.family.memory)
        if count is None:
            count = _levels(config, self.family)
        return (MEMORY,) if count == 1 else tuple(f"{MEMORY}.l{i}" for i in range(count))

    @contextlib.contextmanager
    def _reading(
        self, pixels: Tensor, stages: dict[str, int], found: dict[str, Tensor], deep: bool, queries: bool
    ) -> Iterator[None]:
        seen: dict[str, Any] = {}
        last = max(stages.values(), default=-1)

        def tap(index: int, names: list[str]) -> Any:
            def after(_: nn.Module, __: Any, output: Any) -> None:
                found.update({BODY + name: output for name in names})
                if not deep and index == last:
                    raise _Enough

            return after

        def after_body(_: nn.Module, __: Any, output: Any) -> None:
            maps = maps_of(output)
            seen["size"] = maps[-1].shape[-2:]
            if not self.taps:
                found.update({BODY + name: maps[index] for name, index in stages.items()})

        def after_encoder(_: nn.Module, __: Any, kwargs: dict[str, Any], output: Any) -> None:
            sizes = kwargs.get("spatial_shapes_list") or [seen.get("size")]
            found.update(zip(self._memory_names(), memory_maps(output, sizes), strict=True))
            if not queries:
                raise _Enough

        handles = [self.body.register_forward_hook(after_body)]
        for index in set(stages.values()) if self.taps else ():
            names = [name for name, i in stages.items() if i == index]
            handles.append(self.taps[index].register_forward_hook(tap(index, names)))
        if deep:
            encoder = self.module.get_submodule(self.family.encoder)
            handles.append(encoder.register_forward_hook(after_encoder, with_kwargs=True))
        try:
            with contextlib.suppress(_Enough):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _find_stages(self) -> tuple[Stage, ...]:
        if isinstance(self.body, FeatureListNet):
            return find_stages(list(self.body.values()))
        if isinstance(self.body, PlacedBody):
            return self.body.stages
        pixels = probe_pixels(self.module)
        seen: dict[int, Tensor] = {}
        device = next(self.module.parameters()).device
        handles = [
            step.register_forward_hook(lambda _, __, output, index=index: seen.update({index: output}))
            for index, step in enumerate(self.taps)
        ]
        try:
            with torch.no_grad():
                output = self.body(torch.zeros(1, 3, pixels, pixels, device=device))
        finally:
            for handle in handles:
                handle.remove()
        maps = seen if self.taps else dict(enumerate(maps_of(output)))
        deepest = {nearest_stride(pixels, x.shape[-2]): index for index, x in maps.items()}
        return tuple(
            Stage(f"c{int(math.log2(stride))}", index, stride, maps[index].shape[1])
            for stride, index in sorted(deepest.items())
        )

    def _token_stage(self) -> tuple[Stage, ...]:
        config = self.module.config
        patch = _side(config.patch_size)
        return (Stage(f"c{round(math.log2(patch))}", 0, patch, config.hidden_size),)

    def _tokens(self, pixels: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        heads = QUERIES in wanted
        outputs = (self.module if heads else self.body)(pixel_values=pixels)
        sequence, patch = outputs.last_hidden_state, _side(self.module.config.patch_size)
        queries = self.module.config.num_detection_tokens
        rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        grid = sequence[:, GRID_TOKENS : sequence.shape[1] - queries]
        found = {BODY + self.stages[0].name: grid.transpose(1, 2).unflatten(2, (rows, columns))}
        if heads:
            found[QUERIES] = packed(sequence[:, -queries:], outputs.pred_boxes, outputs.logits)
        return {name: found[name] for name in wanted}


def packed(states: Tensor, boxes: Tensor, logits: Tensor) -> Tensor:
    """(B, Q, D), (B, Q, 4), (B, Q, C) as one map (B, D + 4 + C, Q, 1)."""
    return torch.cat([states.float(), boxes.float(), logits.float()], dim=-1).transpose(1, 2)[..., None]


def unpacked(queries: Tensor, states: int) -> tuple[Tensor, Tensor, Tensor]:
    """States (B, Q, D), boxes (B, Q, 4) and logits (B, Q, C) of ``packed``."""
    flat = queries[..., 0].transpose(1, 2)
    return flat[..., :states], flat[..., states : states + 4], flat[..., states + 4 :]


def memory_maps(output: Any, sizes: list[Any]) -> list[Tensor]:
    """The encoder's output as maps: already maps, or a sequence (B, sum h w, D) of the levels' ``sizes``."""
    memory = getattr(output, "last_hidden_state", getattr(output, "feature_maps", output))
    if isinstance(memory, Tensor) and memory.dim() == 4:
        return [memory]
    if not isinstance(memory, Tensor):
        if isinstance(memory, tuple) and len(memory) == 1 and isinstance(memory[0], Tensor):
            return memory_maps(memory[0], sizes)
        return list(memory)
    parts = memory.split([int(h) * int(w) for h, w in sizes], dim=1)
    return [x.transpose(1, 2).unflatten(2, (int(h), int(w))) for x, (h, w) in zip(parts, sizes, strict=True)]


def maps_of(output: Any) -> list[Tensor]:
    return list(getattr(output, "feature_maps", output))


def width(module: nn.Module) -> int:
    """Size of a decoder state."""
    config = module.config
    return int(getattr(config, "d_model", None) or config.hidden_size)


def size_multiple(module: nn.Module, family: Family) -> int:
    """Both sides of an input must be multiples of this."""
    backbone: Any = getattr(module.config, "backbone_config", None)
    body = module.get_submodule(body_path(module, family))
    if isinstance(body, PlacedBody):
        return body.multiple
    if family.model_type in ("rf_detr", "lw_detr"):
        return _cell(backbone)
    if family.tokens:
        return _side(module.config.patch_size)
    return family.size_multiple


def probe_pixels(module: nn.Module) -> int:
    backbone: Any = getattr(module.config, "backbone_config", None)
    if getattr(backbone, "patch_size", None) is None:
        return PROBE_PIXELS
    cell = _cell(backbone)
    return cell * max(1, PROBE_PIXELS // cell)


def _cell(backbone: Any) -> int:
    """Pixels a side of a patch times windows a side: RF-DETR counts windows along a side, LW-DETR all of them."""
    windows = getattr(backbone, "num_windows_side", None) or getattr(backbone, "num_windows", None) or 1
    return _side(backbone.patch_size) * int(windows)


def _taps(body: nn.Module) -> tuple[nn.Module, ...]:
    """Modules whose outputs are the maps, finest first; empty where only the whole body gives them."""
    if isinstance(body, FeatureListNet):
        return tuple(body.values())
    stages = getattr(getattr(body, "encoder", None), "stages", None)
    return tuple(stages) if isinstance(stages, nn.ModuleList) else ()


def _levels(config: Any, family: Family) -> int:
    """Maps of the memory: those that go into the encoder where it mixes them, else those that the decoder reads."""
    if getattr(config, "encoder_type", None) == "lite":
        return LITE_LEVELS
    mixed = getattr(config, "encoder_in_channels", None)
    return config.num_feature_levels if family.memory == "levels" or mixed is None else len(mixed)


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)
