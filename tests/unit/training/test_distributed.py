"""Two processes with gloo are one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_training import MOBILENET, fresh, fresh_detr, ids, losses_of, recipe, saved, small_plan

from models_store import load_detector
from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.training.fine_tune import train
from worker.training.inputs import Ids
from worker.training.recipe import Phase

# A small rate: what two-stage detectors propose is a choice, and larger steps soon turn rounding into another choice.
SGD = {
    "optimiser": "sgd",
    "phases": (Phase(1, 3e-4),),
    "schedule": "constant",
    "warmup_iterations": 0,
    "init_band": 1.0,
}


def two_stage() -> Detector:
    return fresh("detrank/fasterrcnn_fpn", MOBILENET, norm="frozen")


def detr() -> Detector:
    return fresh_detr("detr", dropout=0.0)


# With 8 proposals of an image every image fills its quota, so that the mean over a batch is the mean over its images.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "changes"),
    [(two_stage, {"rois": 8}), (detr, {"clip_norm": 0.1, "ema": 0.9, "phases": (Phase(1, 0.03),)})],
)
def test_two_processes_are_one(make, changes: dict, toy: Dataset, tmp_path: Path) -> None:
    # other classes, so that its head is fresh; with a band of 1 it begins at the scale of the images
    checkpoint = saved(make(), tmp_path / "checkpoint", ("a", "b", "c"))
    # five images a batch: parts of three and two, and in the last of an epoch of two and two
    plan = small_plan(make(), 14, recipe(**SGD | changes), iterations=3, evaluations=1, batch_size=5)
    data = {"train_ids": ids(toy, "train"), "val_ids": ids(toy, "val")[:1], "test_ids": ids(toy, "test")[:1]}
    job = {
        "checkpoint": str(checkpoint),
        "dataset": str(toy.root),
        "plan": plan.to_json(),
        "device": "cpu",
        "folder": str(tmp_path / "state"),
        "result": str(tmp_path / "result"),
        "save_every_s": 0.0,
        "annotation_ids": None,
        **data,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "worker.training.distributed",
            str(tmp_path / "job.json"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    several = json.loads((tmp_path / "result" / "trained.json").read_text())
    alone = train(load_detector(checkpoint), toy, plan, Ids(*data.values()), tmp_path / "alone")
    assert several["finished"] == "completed"
    assert several["start"]["factors"] == alone.start["factors"] != {}
    for one, other in zip(losses_of(several["curves"]), losses_of(alone.curves), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-7)
    ours = load_detector(tmp_path / "result" / "checkpoint").module.state_dict()
    begun = load_detector(checkpoint).module.state_dict()
    moved = apart = 0.0
    for name, tensor in alone.detector.module.state_dict().items():
        np.testing.assert_allclose(ours[name], tensor, rtol=1e-5, atol=1e-5, err_msg=name)
        moved += float((tensor - begun[name]).double().square().sum())
        apart += float((tensor - ours[name]).double().square().sum())
    assert moved > 1e-8
    assert apart < 1e-4 * moved
    assert several["val"]["box"] == pytest.approx(alone.val.to_json()["box"], abs=1e-4)
    assert several["test"]["images"] == 1
