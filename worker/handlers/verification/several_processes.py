"""A training on several devices of this worker: processes of its own under torchrun, watched from here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models_store
from app.errors import TransientFailure
from worker.data.dataset import Dataset
from worker.evaluation.evaluate import BY_CLASS, RECALL, Evaluation
from worker.training.errors import TrainingDiverged, Untrainable
from worker.training.inputs import Host, Ids, Watch
from worker.training.plan import Plan
from worker.training.state import STATE_FILE
from worker.training.trained import Trained

POLL_S = 0.25
STOP_S = 10.0
LONGEST_TAIL = 1500
# fields of the manifest that the trained checkpoint takes over
OF_PARENT = ("format", "kind", "source", "weights_sha256", "provenance", "published")


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
    ids: Ids,
    folder: Path,
    host: Host,
    watch: Watch,
) -> Trained:
    """As `worker.training.fine_tune.train` with its state in `folder/state`, in so many processes, whose other files lie in `folder`.

    Progress and points are known as often as the state is written. Raises Untrainable and TrainingDiverged as they say,
    TransientFailure where they died otherwise.
    """
    state, result, refusal, log = (
        folder / name for name in ("state", "result", "refusal.json", "processes.log")
    )
    result.mkdir()
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "checkpoint": str(checkpoint),
                "dataset": str(dataset.root),
                "folder": str(state),
                "plan": plan.to_json(),
                "train_ids": list(ids.train),
                "val_ids": list(ids.val),
                "test_ids": list(ids.test),
                "annotation_ids": None if ids.annotations is None else list(ids.annotations),
                "device": torch.device(host.device).type,
                "decode_threads": host.decode_threads,
                "save_every_s": host.save_every_s,
                "result": str(result),
                "refusal": str(refusal),
                "worker_pid": os.getpid(),
            }
        ),
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "-m",
        "worker.handlers.verification.one_process",
        str(job),
    ]
    with _started(command, log) as running:
        seen = _Seen(state)
        while running.poll() is None:
            watch.check()
            seen.tell(watch)
            time.sleep(POLL_S)
    if running.returncode != 0:
        raise _reason(refusal, log, running.returncode)
    seen.tell(watch)
    return _trained(result, manifest, host.device)


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


def _trained(result: Path, manifest: models_store.Manifest, device: str | torch.device) -> Trained:
    found = json.loads((result / "trained.json").read_text(encoding="utf-8"))
    detector = models_store.load_detector(result / "checkpoint", device=device)
    detector.manifest = detector.manifest.but(**{name: getattr(manifest, name) for name in OF_PARENT})
    val, test = (found[name] and evaluation_of(found[name]) for name in ("val", "test"))
    kept = ("curves", "best", "iterations", "seconds", "finished", "warnings", "start")
    return Trained(detector=detector, val=val, test=test, **{name: found[name] for name in kept})


def evaluation_of(told: dict[str, Any]) -> Evaluation:
    """An evaluation from its JSON; curves of single classes are straight between the recalls that it has."""
    plain = {name: value for name, value in told.items() if name != "curves"}
    curves = {iou: np.array(values) for iou, values in told["curves"]["precision"].items()}
    of_classes = {
        name: np.interp(RECALL, RECALL[::BY_CLASS], values)
        for name, values in told["curves"].get("by_class", {}).items()
    }
    return Evaluation(**plain, curves=curves, class_curves=of_classes)
