"""A training on several devices of this worker: processes of its own under torchrun, watched from here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models_store
from app.errors import TransientFailure
from worker.data.dataset import Dataset
from worker.data.subsets import Subset
from worker.evaluation import Evaluation
from worker.training import Plan, Trained, TrainingDiverged, Untrainable
from worker.training.state import STATE_FILE

POLL_S = 0.25
STOP_S = 10.0
LONGEST_TAIL = 1500
# of the checkpoint that was trained, whose lineage goes on
OF_PARENT = ("format", "kind", "source", "weights_sha256", "provenance", "published")


@dataclass(frozen=True)
class Watch:
    """What the worker wants to hear: the arguments of `train` of the same names."""

    progress: Callable[[int, int | None, str], None]
    check: Callable[[], None]
    saved: Callable[[int], None]
    point: Callable[[dict[str, Any]], None]


def processes_for(device: str, asked: int) -> int:
    """How many of `asked` processes have a device of their own here: 1 without several GPUs."""
    if asked < 2 or torch.device(device).type != "cuda":
        return 1
    return max(1, min(asked, torch.cuda.device_count()))


def train_in(
    processes: int,
    checkpoint: Path,
    manifest: models_store.Manifest,
    dataset: Dataset,
    plan: Plan,
    subset: Subset,
    splits: dict[str, list[int]],
    state: Path,
    beside: Path,
    watch: Watch,
    *,
    device: str,
    decode_threads: int,
    save_every_s: float,
) -> Trained:
    """As `worker.training.train`, in so many processes; `beside`: a folder for what they leave.

    Progress and points are known as often as the state is written. Raises Untrainable and TrainingDiverged as they say,
    TransientFailure where they died otherwise.
    """
    result, refusal, log = beside / "result", beside / "refusal.json", beside / "processes.log"
    result.mkdir()
    job = beside / "job.json"
    job.write_text(
        json.dumps({
            "checkpoint": str(checkpoint), "dataset": str(dataset.root), "folder": str(state), "plan": plan.to_json(),
            "train_ids": list(subset.image_ids), "val_ids": splits["val"], "test_ids": splits["test"],
            "annotation_ids": None if subset.annotation_ids is None else list(subset.annotation_ids),
            "device": torch.device(device).type, "decode_threads": decode_threads, "save_every_s": save_every_s,
            "result": str(result), "refusal": str(refusal), "worker_pid": os.getpid(),
        }),
        encoding="utf-8",
    )  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        "-m", "worker.handlers.one_process", str(job),
    ]  # fmt: skip
    with _started(command, log) as running:
        seen = _Seen(state)
        while running.poll() is None:
            watch.check()
            seen.tell(watch)
            time.sleep(POLL_S)
    if running.returncode != 0:
        raise _reason(refusal, log, running.returncode)
    seen.tell(watch)
    return _trained(result, manifest, device)


@contextlib.contextmanager
def _started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """All of it is gone when the block ends, however it does."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield running
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(STOP_S)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


class _Seen:
    """What of the state on disk has been told."""

    def __init__(self, state: Path) -> None:
        self._path = state / STATE_FILE
        self._told = self._points = -1

    def tell(self, watch: Watch) -> None:
        try:
            position = json.loads(self._path.read_text(encoding="utf-8"))["position"]
        except FileNotFoundError:
            return
        if position["iteration"] == self._told:
            return
        self._told = position["iteration"]
        for point in position["curves"]:
            if point["iteration"] > self._points:
                watch.point(point)
                self._points = point["iteration"]
        best = position["best"] and position["best"]["map"]
        watch.progress(self._told, position["iterations"], "" if best is None else f"best mAP {best:.3f}")
        watch.saved(self._told)


def _reason(refusal: Path, log: Path, code: int) -> Exception:
    if refusal.is_file():
        said = json.loads(refusal.read_text(encoding="utf-8"))
        if said["code"] == TrainingDiverged.code:
            return TrainingDiverged(said["detail"])
        return Untrainable(said["code"], said["detail"])
    tail = log.read_text(encoding="utf-8", errors="replace")[-LONGEST_TAIL:]
    return TransientFailure(f"the training processes ended with {code}: {tail}")


def _trained(result: Path, manifest: models_store.Manifest, device: str) -> Trained:
    found = json.loads((result / "trained.json").read_text(encoding="utf-8"))
    detector = models_store.load_detector(result / "checkpoint", device=device)
    detector.manifest = detector.manifest.but(**{name: getattr(manifest, name) for name in OF_PARENT})
    val, test = (found[name] and evaluation_of(found[name]) for name in ("val", "test"))
    kept = ("curves", "best", "iterations", "seconds", "finished", "warnings")
    return Trained(detector=detector, val=val, test=test, **{name: found[name] for name in kept})


def evaluation_of(told: dict[str, Any]) -> Evaluation:
    """An evaluation from its JSON; the curves of single classes are not in it."""
    plain = {name: value for name, value in told.items() if name != "curves"}
    curves = {iou: np.array(values) for iou, values in told["curves"]["precision"].items()}
    return Evaluation(**plain, curves=curves, class_curves={})
