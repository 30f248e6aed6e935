"""Where a training stands, on disk: `state.json` names the tensor files that belong to it and is renamed into place last."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.training.errors import Untrainable
from worker.training.plan import Plan
from worker.training.schedule import Plateau

STATE_FILE = "state.json"
SCHEMA = 1


@dataclass
class Position:
    """All that a training knows besides tensors; JSON round trip.

    `iteration` steps are done in `seconds` of training. `iterations`: how many there will be, None until a budget's
    pace is known. `window`: sums of the losses by name of the `window_steps` steps since the last point of `curves`.
    `evaluated`: iteration of the last evaluation on schedule. `best`: iteration, epoch, map and ap50 of the best one.
    `bad`: evaluations since it. `precision`: what `auto` was resolved to. `start`: see
    Trained. `finished`: why training ended, None while it may go on.
    """

    iteration: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    iterations: int | None = None
    stretch: int | None = None
    evaluated: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    best: dict[str, Any] | None = None
    bad: int = 0
    curves: list[dict[str, Any]] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)
    window_steps: int = 0
    precision: str | None = None
    micro_batch: int | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    finished: str | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Position:
        return cls(**(dict(raw) | {"plateau": Plateau(**raw["plateau"])}))


@dataclass(frozen=True, eq=False)
class KeptState:
    """What `read` found. `tensors` are the training's, `best` the best weights so far (None where none were evaluated)."""

    position: Position
    tensors: dict[str, Tensor]
    best: dict[str, Tensor] | None


def write(
    folder: Path,
    who: Mapping[str, Any],
    position: Position,
    tensors: Mapping[str, Tensor],
    best: Mapping[str, Tensor] | None,
) -> None:
    """Replace the state in `folder`. Killed at any moment, either the old state or the new one is there, whole.

    `who` says which training it is: its `plan` (Plan.identity) and more JSON, compared by `read`. `best` is written only when its iteration is not on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"tensors": f"state-{position.iteration}.safetensors"}
    _save(folder / files["tensors"], tensors)
    if best is not None and position.best is not None:
        files["best"] = f"best-{position.best['iteration']}.safetensors"
        if not (folder / files["best"]).exists():
            _save(folder / files["best"], best)
    content = {"schema": SCHEMA, "who": who, "files": files, "position": asdict(position)}
    with _beside(folder / STATE_FILE) as path:
        # repr round trips floats, so sums go on from the very same numbers.
        path.write_text(json.dumps(content), encoding="utf-8")
    for other in folder.iterdir():
        if other.name not in (STATE_FILE, *files.values()) and other.name.startswith(("state-", "best-")):
            other.unlink(missing_ok=True)


def read(folder: Path, who: Mapping[str, Any]) -> KeptState | None:
    """The state in `folder`, None where there is none.

    Raises Untrainable `other_plan` when it is another training's, `broken_state` when it cannot be read.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        # What this version knows more of a plan was not asked for then.
        found = content["who"] | {"plan": Plan.from_json(content["who"]["plan"]).identity()}
        position = Position.from_json(content["position"])
        tensors = load_file(folder / content["files"]["tensors"])
        best = load_file(folder / content["files"]["best"]) if "best" in content["files"] else None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Untrainable(
            "broken_state", f"the state in {folder.name} cannot be read ({error}): remove it to begin anew"
        ) from None
    if differing := [
        name for name in sorted({*found, *who}) if found.get(name) != json.loads(json.dumps(who)).get(name)
    ]:
        raise Untrainable(
            "other_plan",
            f"the folder holds the state of another training (other {', '.join(differing)}): give each its own folder",
        )
    return KeptState(position, tensors, best)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with _beside(path) as beside:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file to write, on disk and under its own name when the block ends."""
    beside = path.with_name(f".{path.name}.partial")
    yield beside
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)
