"""A backbone with a feature pyramid over it: FPN where it has several strides, the simple one where it has one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from models_store.archs.layout import HELP, Layout, extra_block
from models_store.archs.necks import Neck, TopDown, probe_neck
from models_store.bodies.build import TimmBody, build_body
from models_store.bodies.norms import NormLayer, layer_of, set_body_norms, set_eps
from models_store.errors import Unusable

OUT_CHANNELS = 256
PYRAMID_STAGES = ("c2", "c3", "c4", "c5")


class SimplePyramid(nn.Module):
    """Maps at strides 4, 8, 16 and 32 from one map of about stride 16 (arXiv 2203.16527, section 3)."""

    def __init__(self, in_channels: int, out_channels: int = OUT_CHANNELS) -> None:
        super().__init__()
        half, quarter = max(in_channels // 2, 1), max(in_channels // 4, 1)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(in_channels, half, 2, 2),
            nn.GroupNorm(1, half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.up2 = nn.ConvTranspose2d(in_channels, half, 2, 2)
        self.lateral = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, bias=False),
                nn.GroupNorm(1, out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                nn.GroupNorm(1, out_channels),
            )
            for channels in (quarter, half, in_channels, in_channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.level(x, index) for index in range(len(self.lateral))]

    def level(self, x: Tensor, index: int) -> Tensor:
        """The map at stride 4 * 2**index."""
        scale = (self.up4, self.up2, nn.Identity(), partial(F.max_pool2d, kernel_size=2, stride=2))[index]
        return self.lateral[index](scale(x))


class PyramidBackbone(nn.Module):
    """``forward(x)`` gives OrderedDict('0'.., then the names of ``extra``) as torchvision's detectors expect.

    Keys are ``body.*`` with the classifier's own names and ``fpn.*``. ``finest``: the first stage the pyramid reads.
    ``norm`` is the body's and, with ``norm_in_neck``, a feature pyramid's; the simple one has norms of its own.
    ``channels``: of every map of the pyramid. ``layout`` decides otherwise where the pyramid reads and what it adds, or
    that there is none: ``single`` is then the name of the one stage.
    """

    single: str | None = None
    names: tuple[str, ...]

    def __init__(
        self,
        backbone: str,
        *,
        norm: str | None = None,
        norm_in_neck: bool = False,
        finest: str = PYRAMID_STAGES[0],
        extra: ExtraFPNBlock | None = None,
        channels: int = OUT_CHANNELS,
        layout: Layout | None = None,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.body = build_body(backbone)
        set_body_norms(self.body, norm)
        set_eps(self.body, norm_eps)
        if layout is not None:
            self._lay_out(layout, channels, layer_of(norm) if norm_in_neck else None)
            return
        stages = {stage.name: stage for stage in self.body.stages}
        first = PYRAMID_STAGES.index(finest)
        several = tuple(name for name in PYRAMID_STAGES[first:] if name in stages)
        self.out_channels = channels
        self.skipped = 0
        extra = extra or LastLevelMaxPool()
        if len(several) > 1:
            self.takes = several
            norm_layer: NormLayer | None = layer_of(norm) if norm_in_neck else None
            self.fpn: nn.Module = FeaturePyramidNetwork(
                [stages[name].channels for name in several], channels, extra, norm_layer
            )
            self.levels = len(several)
            self.first_stride = stages[several[0]].stride
            self.divisor = 32
        else:
            deepest = self.body.stages[-1]
            self.takes = (deepest.name,)
            self.fpn = SimplePyramid(deepest.channels, channels)
            self.beyond = extra
            self.skipped = first
            self.levels = 4 - first
            self.first_stride = max(1, deepest.stride * 2**first // 4)
            self.divisor = deepest.stride * 2
        self.names = (*(str(i) for i in range(self.levels)), *_ends(extra))

    def _lay_out(self, layout: Layout, channels: int, norm_layer: NormLayer | None) -> None:
        taken = _taken(self.body, layout)
        self.takes = tuple(name for name, _, _ in taken)
        self.levels, self.first_stride, self.divisor, self.skipped = len(taken), taken[0][1], 32, 0
        if layout.single:
            self.single, self.out_channels, self.fpn = self.takes[0], taken[0][2], nn.Identity()
            self.names = ("0",)
            return
        extra = extra_block(layout.extra, channels, taken[-1][2])
        self.out_channels = channels
        self.fpn = FeaturePyramidNetwork([c for _, _, c in taken], channels, extra, norm_layer)
        self.names = (*(str(i) for i in range(self.levels)), *_ends(extra))

    def neck(self, maps: list[Tensor]) -> list[Tensor]:
        """Body maps in the order of ``takes`` to pyramid maps, coarsest last."""
        if self.single:
            return maps
        if isinstance(self.fpn, SimplePyramid):
            levels = self.fpn(maps[0])[self.skipped :]
            return self.beyond(levels, levels, [str(i) for i in range(len(levels))])[0]
        return list(self.fpn(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())

    def asked(self, maps: Mapping[str, Tensor], wanted: Collection[int]) -> dict[int, Tensor]:
        """Pyramid maps by index, as ``necks.Neck.run``: no level that is not asked for."""
        if not isinstance(self.fpn, SimplePyramid):
            return self.down.run(maps, wanted)
        x, last = maps[self.takes[0]], self.levels - 1
        levels = {min(index, last) for index in wanted}
        found = {index: self.fpn.level(x, index + self.skipped) for index in levels}
        if any(index > last for index in wanted):
            more, _ = self.beyond([found[last]], [found[last]], ["last"])
            found |= {index: more[index - last] for index in wanted if index > last}
        return found

    def probed(self, pixels: int) -> Neck:
        """The neck with its maps named, after one run on a small input."""
        down = None if isinstance(self.fpn, SimplePyramid) else self.down
        return probe_neck(
            self.body.run,
            self.takes,
            self.asked,
            down.needs if down else lambda wanted: self.takes if wanted else (),
            self,
            count=len(self.names),
            last=down.last if down else (),
            pixels=pixels,
        )

    @property
    def down(self) -> TopDown:
        return TopDown(self.fpn, self.takes)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.body.run(x, self.takes)
        outputs = self.neck([maps[name] for name in self.takes])
        return OrderedDict(zip(self.names, outputs, strict=True))


def _ends(extra: ExtraFPNBlock | None) -> tuple[str, ...]:
    if extra is None:
        return ()
    return ("pool",) if isinstance(extra, LastLevelMaxPool) else ("p6", "p7")


def _taken(body: nn.Module, layout: Layout) -> list[tuple[str, int, int]]:
    """(name, stride, channels) of each map that is read; the body is cut behind the last. Raises Unusable ``bad_override``."""
    try:
        if isinstance(body, TimmBody):
            stages = {stage.name: stage for stage in body.stages}
            return [(name, stages[name].stride, stages[name].channels) for name in layout.takes]
        indices = [body.index_of(name) for name in layout.takes]
    except KeyError as missing:
        raise Unusable("bad_override", f"the body has no {missing}; {HELP}") from None
    shapes = body.shapes
    body.cut_behind(max(indices))
    names = {stage.index: stage.name for stage in body.stages}
    return [(names.get(index, f"#{index}"), *shapes[index]) for index in indices]
