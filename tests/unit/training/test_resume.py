"""A training that is interrupted anywhere goes on as if nothing had been."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import MOBILENET, fresh, fresh_detr, ids, losses_of, recipe, saved, small_plan, weights_of

from models_store import load_detector
from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.training.errors import Untrainable
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids, Watch
from worker.training.plan import Plan
from worker.training.recipe import Augmentation, Phase
from worker.training.trained import Trained

LIVELY = Augmentation(flip=0.5, scales=(0.75, 1.0), crop=0.5, colour=0.2)


def run(
    detector: Detector,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    watch: Watch = Watch(),
    annotations: list[int] | None = None,
) -> Trained:
    found = Ids(ids(dataset, "train"), ids(dataset, "val")[:2], [], annotations)
    return train(detector, dataset, plan, found, folder, Host(save_every_s=1e9), watch)


def assert_same(a: Trained, b: Trained) -> None:
    assert a.iterations == b.iterations
    assert a.finished == b.finished
    assert a.best == b.best
    assert [p["iteration"] for p in a.curves] == [p["iteration"] for p in b.curves]
    assert [p["lr"] for p in a.curves] == [p["lr"] for p in b.curves]
    for one, other in zip(losses_of(a.curves), losses_of(b.curves), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    theirs = weights_of(b.detector)
    for name, tensor in weights_of(a.detector).items():
        np.testing.assert_allclose(tensor, theirs[name], rtol=1e-6, atol=1e-7, err_msg=name)


def two_stage() -> Detector:
    return fresh("detrank/fasterrcnn_fpn", MOBILENET, norm="bn")


def detr() -> Detector:
    return fresh_detr("detr", dropout=0.1, attention_dropout=0.1)


TWO_PHASES = (Phase(1, 1e-3, "backbone"), Phase(2, 3e-4, "none"))
CASES = {
    # moving norms, two phases with an optimiser each, a plateau, averaged weights
    "two_stage": (
        two_stage,
        (1, 4),
        {
            "optimiser": "sgd",
            "rois": 16,
            "schedule": "plateau",
            "plateau_patience": 0,
            "phases": TWO_PHASES,
            "ema": 0.9,
        },
    ),
    # dropout, adam, cosine
    "detr": (detr, range(1, 6), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_pausing_anywhere_changes_nothing(case: str, toy: Dataset, tmp_path: Path) -> None:
    make, stops, changes = CASES[case]
    wanted = recipe(augmentation=LIVELY, warmup_iterations=2, **changes)
    plan = small_plan(make(), 14, wanted, iterations=6, evaluations=3, batch_size=3)
    whole = run(make(), toy, plan, tmp_path / "whole")
    assert whole.finished == "completed"
    for stop in stops:
        paused = run(make(), toy, dataclasses.replace(plan, stop_at_iterations=stop), tmp_path / "parts")
        assert (paused.finished, paused.iterations, paused.test) == ("paused", stop, None)
    assert_same(run(make(), toy, plan, tmp_path / "parts"), whole)


def test_the_global_generators_decide_nothing_and_stay(toy: Dataset, tmp_path: Path) -> None:
    detector = detr()
    plan = small_plan(detector, 14, iterations=2)
    state = torch.random.get_rng_state()
    run(detector, toy, plan, tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_finished_training_is_not_done_again(toy: Dataset, tmp_path: Path) -> None:
    plan = small_plan(detr(), 14, iterations=3)
    first = run(detr(), toy, plan, tmp_path)
    steps: list[int] = []
    again = run(detr(), toy, plan, tmp_path, Watch(progress=lambda done, total, message: steps.append(done)))
    assert steps == []
    assert_same(again, first)


def test_a_folder_belongs_to_one_plan_and_one_set_of_images(toy: Dataset, tmp_path: Path) -> None:
    plan = small_plan(detr(), 14, iterations=4)
    run(detr(), toy, dataclasses.replace(plan, stop_at_iterations=1), tmp_path)
    with pytest.raises(Untrainable, match="other plan") as refusal:
        run(detr(), toy, dataclasses.replace(plan, seed=9), tmp_path)
    assert refusal.value.code == "other_plan"
    with pytest.raises(Untrainable, match="other images"):
        run(detr(), toy, plan, tmp_path, annotations=toy.annotation_ids.tolist()[:5])
    tensors = next(tmp_path.glob("state-*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(Untrainable) as refusal:
        run(detr(), toy, plan, tmp_path)
    assert refusal.value.code == "broken_state"


def test_a_state_of_a_version_that_knew_less_goes_on(toy: Dataset, tmp_path: Path) -> None:
    plan = small_plan(detr(), 14, recipe(family_lr=()), iterations=2)
    run(detr(), toy, dataclasses.replace(plan, stop_at_iterations=1), tmp_path)
    path = tmp_path / "state.json"
    content = json.loads(path.read_text())
    del content["who"]["plan"]["recipe"]["family_lr"], content["who"]["plan"]["lr_factor"]
    path.write_text(json.dumps(content))
    assert run(detr(), toy, plan, tmp_path).iterations == 2


def test_the_state_has_one_set_of_files(toy: Dataset, tmp_path: Path) -> None:
    plan = small_plan(detr(), 14, iterations=4, evaluations=4)
    written: list[int] = []
    train(
        detr(),
        toy,
        plan,
        Ids(ids(toy, "train"), ids(toy, "val")[:1], []),
        tmp_path,
        Host(save_every_s=0.0),
        Watch(saved=written.append),
    )
    assert written == [1, 2, 3, 4, 4]
    names = sorted(path.name for path in tmp_path.iterdir())
    content = json.loads((tmp_path / "state.json").read_text())
    assert names == sorted(["state.json", *content["files"].values()])


CHILD = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from models_store import load_detector
from worker.data.dataset import open_dataset
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids, Watch
from worker.training.plan import Plan
job = json.loads(Path(sys.argv[1]).read_text())
train(load_detector(Path(job["checkpoint"])), open_dataset(Path(job["dataset"])), Plan.from_json(job["plan"]),
      Ids(job["train_ids"], job["val_ids"], []), Path(job["folder"]), Host(save_every_s=0.0),
      Watch(progress=lambda done, total, message: print(done, flush=True)))
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_uninterrupted(toy: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(int(time.time()))
    checkpoint = saved(detr(), tmp_path / "checkpoint", toy.categories)
    plan = small_plan(detr(), 14, recipe(augmentation=LIVELY, ema=0.9), iterations=40, evaluations=4)
    job = {
        "checkpoint": str(checkpoint),
        "dataset": str(toy.root),
        "plan": plan.to_json(),
        "train_ids": ids(toy, "train"),
        "val_ids": ids(toy, "val")[:2],
        "folder": str(tmp_path / "state"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    reached = 0
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "job.json")],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        target = reached + int(rng.integers(2, 12))
        for line in child.stdout:
            reached = int(line)
            if reached >= target:
                time.sleep(float(rng.uniform(0, 0.05)))  # also in the middle of a step, or of a write
                child.send_signal(signal.SIGKILL)
                break
        child.wait()
        assert child.returncode == -signal.SIGKILL
        child.stdout.close()
    position = json.loads((tmp_path / "state" / "state.json").read_text())["position"]
    assert 0 < position["iteration"] < 40
    went_on = run(load_detector(checkpoint), toy, plan, tmp_path / "state")
    assert_same(went_on, run(load_detector(checkpoint), toy, plan, tmp_path / "whole"))
