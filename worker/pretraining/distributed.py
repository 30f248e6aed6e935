"""One pretraining on several devices: `torchrun --nproc-per-node N -m worker.pretraining.distributed JOB.json`.

JOB.json: `checkpoint` (folder of load_detector: what it starts from), `encoder` (another such folder), `dataset` (canonical
folder), `plan` (PretrainingPlan.to_json), `proposals` (a file that `worker.pretraining.proposals.save` wrote, or null with
random ones), `train_ids`, `val_ids`, `folder` (of the state), `device` (`cuda` or `cpu`), `result` (a folder for
`pretrained.json` and the last weights, as a checkpoint), `save_every_s` and `decode_threads` where they differ.

Every process takes its part of each batch, as in worker/training/distributed.py; the first one looks, writes and saves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from models_store import load_detector
from models_store.pretraining import OBJECT
from models_store.save import save_detector
from worker.data.dataset import open_dataset
from worker.pretraining.pretrain import PretrainedDetector, prepared, pretrain
from worker.pretraining.proposals import load
from worker.pretraining.recipe import PretrainingPlan
from worker.training.distributed import command, joined, write_result
from worker.training.inputs import Host, Ids


def run(job: dict[str, Any]) -> PretrainedDetector:
    """One process's part; torchrun's variables say which. Raises what `pretrain` raises."""
    plan = PretrainingPlan.from_json(job["plan"])
    sizes = None if plan.training.image_size else plan.regions.sizes
    with joined(job["device"]) as device:
        detector = prepared(
            load_detector(Path(job["checkpoint"])),
            load_detector(Path(job["encoder"])),
            plan.regions.embedding_layer,
            sizes,
            plan.training.seed,
        )
        return pretrain(
            detector,
            open_dataset(Path(job["dataset"])),
            plan,
            Ids(job["train_ids"], job["val_ids"], []),
            None if job["proposals"] is None else load(Path(job["proposals"])),
            Path(job["folder"]),
            Host(device, job.get("decode_threads", 2), job.get("save_every_s", 60.0)),
        )


def keep(job: dict[str, Any], made: PretrainedDetector) -> None:
    """Writes the last weights and `pretrained.json` into the job's result folder."""
    folder = Path(job["result"])
    names = made.detector.manifest.class_names or OBJECT
    lineage = {"dataset": job["dataset"], "plan": job["plan"], "method": "detreg"}
    save_detector(made.detector, folder / "checkpoint", class_names=names, lineage=lineage)
    found = {
        "finished": made.finished,
        "iterations": made.iterations,
        "seconds": made.seconds,
        "curves": made.curves,
        "start": made.start,
        "end": made.end.to_json(),
        "warnings": made.warnings,
    }
    write_result(folder / "pretrained.json", found)


def main(arguments: list[str]) -> int:
    return command(arguments, __doc__, run, keep)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
