"""One training on several devices: `torchrun --nproc-per-node N -m worker.training.distributed JOB.json`.

JOB.json: `checkpoint` (folder of load_detector), `dataset` (canonical folder), `folder` (of the state), `plan`
(Plan.to_json), `train_ids`, `annotation_ids` (or null), `val_ids`, `test_ids`, `device` (`cuda` or `cpu`),
`result` (a folder for `trained.json` and the best weights, as a checkpoint), `save_every_s` and `decode_threads` where they differ.

Every process sees the same subset and takes its part of each batch; the sum of their gradients is the whole batch's.
With frozen norms and no dropout N processes are one process with the same batch, to rounding; with `norm: bn` each
process has the statistics of its own images, with `syncbn` (CUDA only) of all. The first process writes and evaluates.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from models_store import load_detector
from models_store.save import save_detector
from worker.data.dataset import open_dataset
from worker.training.errors import Untrainable
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids
from worker.training.plan import Plan
from worker.training.trained import Trained

# The others wait while the first one evaluates.
LONGEST_WAIT = datetime.timedelta(hours=6)


@contextlib.contextmanager
def joined(kind: str) -> Iterator[torch.device]:
    """This process as one of those that torchrun started, on its device: `cuda`, one for each process, or `cpu`."""
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def run(job: dict[str, Any]) -> Trained:
    """One process's part; torchrun's variables say which. Raises what `train` raises."""
    with joined(job["device"]) as device:
        detector = load_detector(Path(job["checkpoint"]))
        if device.type != "cuda" and any(
            isinstance(part, nn.SyncBatchNorm) for part in detector.module.modules()
        ):
            raise Untrainable(
                "bad_plan",
                "syncbn works on CUDA devices only: load with norm bn or frozen, or use one process",
            )
        return train(
            detector,
            open_dataset(Path(job["dataset"])),
            Plan.from_json(job["plan"]),
            Ids(job["train_ids"], job["val_ids"], job["test_ids"], job.get("annotation_ids")),
            Path(job["folder"]),
            Host(device, job.get("decode_threads", 2), job.get("save_every_s", 60.0)),
        )


def keep(job: dict[str, Any], trained: Trained) -> None:
    """Writes the best weights and `trained.json` into the job's result folder."""
    found = {
        "finished": trained.finished,
        "iterations": trained.iterations,
        "seconds": trained.seconds,
        "best": trained.best,
        "curves": trained.curves,
        "warnings": trained.warnings,
        "start": trained.start,
        "val": trained.val.to_json(),
        "test": None if trained.test is None else trained.test.to_json(),
    }
    folder = Path(job["result"])
    names = open_dataset(Path(job["dataset"])).categories
    lineage = {"dataset": job["dataset"], "plan": job["plan"]}
    save_detector(
        trained.detector,
        folder / "checkpoint",
        class_names=names,
        lineage=lineage,
        image_size=job["plan"]["image_size"],
    )
    write_result(folder / "trained.json", found)


def write_result(path: Path, found: dict[str, Any]) -> None:
    """A file that is there is whole."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(found), encoding="utf-8")
    os.replace(beside, path)


Made = TypeVar("Made")


def command(
    arguments: list[str],
    usage: str | None,
    run: Callable[[dict[str, Any]], Made],
    keep: Callable[[dict[str, Any], Made], None],
) -> int:
    """`run` in every process for the job whose JSON file is named, then `keep` in the first; the exit code."""
    if len(arguments) != 1:
        sys.stderr.write(f"{usage}\n")
        return 2
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    made = run(job)
    if int(os.environ.get("RANK", "0")) == 0:
        keep(job, made)
    return 0


def main(arguments: list[str]) -> int:
    return command(arguments, __doc__, run, keep)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
