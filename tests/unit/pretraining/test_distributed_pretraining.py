"""Two processes with gloo are one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_pretrain import detector_of, ids, plan_for, run

from models_store import load_detector
from models_store.save import save_detector
from worker.data.dataset import Dataset
from worker.pretraining.proposals import save

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


@pytest.mark.slow
def test_two_processes_are_one(toy: Dataset, found: dict, backbone_folder: Path, tmp_path: Path) -> None:
    start = detector_of(backbone_folder, **NO_DROPOUT)
    save_detector(start, tmp_path / "start", class_names=("object",), lineage={})
    save(tmp_path / "found.safetensors", found)
    plan = plan_for(start, 24, iterations=4, evaluations=1, batch_size=5)
    job = {
        "checkpoint": str(tmp_path / "start"),
        "encoder": str(backbone_folder),
        "dataset": str(toy.root),
        "plan": plan.to_json(),
        "proposals": str(tmp_path / "found.safetensors"),
        "train_ids": ids(toy, "train"),
        "val_ids": ids(toy, "val"),
        "folder": str(tmp_path / "state"),
        "device": "cpu",
        "result": str(tmp_path / "result"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "worker.pretraining.distributed", str(tmp_path / "job.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    several = json.loads((tmp_path / "result" / "pretrained.json").read_text())
    alone = run(start, toy, found, tmp_path / "alone", plan)
    assert several["finished"] == "completed"
    losses, expected = [p["loss"] for p in several["curves"]], [p["loss"] for p in alone.curves]
    assert losses[:2] == pytest.approx(expected[:2], rel=1e-5)
    # from here on the rounding of the first steps shows, as it does in the weights below
    assert losses == pytest.approx(expected, rel=1e-3)
    assert several["start"] == alone.start
    ours = load_detector(tmp_path / "result" / "checkpoint").module.state_dict()
    begun = load_detector(tmp_path / "start").module.state_dict()
    moved = apart = 0.0
    for name, tensor in alone.detector.module.state_dict().items():
        moved += float((tensor - begun[name]).double().square().sum())
        apart += float((tensor - ours[name]).double().square().sum())
    assert moved > 1e-4
    # AdamW's first steps have the size of the rate whatever the gradient's: rounding is visible where that is next to none
    assert apart < 1e-2 * moved
