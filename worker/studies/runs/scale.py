"""How large the synthetic benchmark is, as data: one TOML file each in `scales/`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from worker.features.layers import LEVELS
from worker.studies.errors import StudyRefused
from worker.studies.measures.scoring import ON_OBJECTS
from worker.training.recipe import Phase, Recipe, recipes

FOLDER = Path(__file__).parent / "scales"
RANDOM = "random"


@dataclass(frozen=True)
class Scale:
    """One size of the benchmark.

    backbone: in `detrank/fasterrcnn_fpn` with `options`. body: where its weights come from (a file, a name to fetch,
    or "random"), body_sha256: what they must be. image_size, min_size, max_size in pixels of the scenes, max_objects in
    one; network_size: shorter and longest side the detector resizes to. train_images: of which val_share are for
    validation. feature_images: at most so many are scored. pretraining: step 1 and 2 of the simulated pretrained
    models; transfer: from a source to a target, with `transfer_seeds` seeds each: the noise of mAP shows with two.
    """

    name: str
    title: str
    help: str
    backbone: str
    body: str
    image_size: int
    network_size: tuple[int, int]
    min_size: int
    max_size: int
    max_objects: int
    train_images: int
    val_share: float
    test_images: int
    feature_images: int
    batch_size: int
    pretraining_evaluations: int
    transfer_evaluations: int
    layers: tuple[str, ...]
    pretraining: tuple[Phase, ...]
    transfer: tuple[Phase, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[str, ...] = LEVELS
    metrics: tuple[str, ...] = ON_OBJECTS
    body_sha256: str | None = None
    transfer_seeds: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def recipe(self, kind: str) -> Recipe:
        """The published recipe with this scale's phases. kind: "pretraining" or "transfer"."""
        phases: tuple[Phase, ...] = getattr(self, kind)
        published = recipes()["frcnn_full" if kind == "pretraining" else "frcnn_head"]
        return replace(
            published,
            phases=phases,
            batch_size=self.batch_size,
            evaluations=getattr(self, f"{kind}_evaluations"),
        )


def scales() -> dict[str, Scale]:
    """All scales by name."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.toml"))}


def scale_named(name: str) -> Scale:
    """Raises StudyRefused `unknown_scale`."""
    known = scales()
    if name not in known:
        raise StudyRefused("unknown_scale", f"there is no scale {name!r}: {', '.join(known)}")
    return known[name]


def _read(path: Path) -> Scale:
    raw: dict[str, Any] = {"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))}
    for name in ("pretraining", "transfer"):
        raw[name] = tuple(Phase(**phase) for phase in raw[name])
    for name in ("layers", "levels", "metrics", "network_size"):
        if name in raw:
            raw[name] = tuple(raw[name])
    return Scale(**raw)
