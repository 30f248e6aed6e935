"""The same training on a CUDA device: mixed precision, its scaler in the state, averaged weights, resuming."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from small_training import MOBILENET, fresh, fresh_detr, ids, recipe, small_plan

from worker.data.dataset import Dataset
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here"),
]


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "auto"])
@pytest.mark.parametrize("family", ["two_stage", "detr"])
def test_mixed_precision_trains_and_goes_on(
    family: str, precision: str, toy: Dataset, tmp_path: Path
) -> None:
    def make():
        return (
            fresh("detrank/fasterrcnn_fpn", MOBILENET, norm="frozen")
            if family == "two_stage"
            else fresh_detr()
        )

    plan = small_plan(make(), 14, recipe(rois=16, ema=0.9), iterations=6, precision=precision, batch_size=4)
    asked = {"ids": Ids(ids(toy, "train"), ids(toy, "val"), []), "host": Host("cuda")}
    whole = train(make(), toy, plan, **asked, folder=tmp_path / "whole")
    assert all(math.isfinite(point["loss"]) for point in whole.curves)
    assert next(whole.detector.module.parameters()).is_cuda
    train(make(), toy, dataclasses.replace(plan, stop_at_iterations=3), **asked, folder=tmp_path / "parts")
    parts = train(make(), toy, plan, **asked, folder=tmp_path / "parts")
    # CUDA adds in no fixed order; the same pictures, rates and proposals are seen all the same.
    for one, other in zip(parts.curves, whole.curves, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)
        assert one["lr"] == other["lr"]


def test_in_float32_it_is_what_a_cpu_does(toy: Dataset, tmp_path: Path) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        detector = fresh_detr("detr", dropout=0.0)
        plan = small_plan(detector, 14, iterations=2, precision="float32", batch_size=4)
        trained = train(
            detector,
            toy,
            plan,
            Ids(ids(toy, "train"), ids(toy, "val"), []),
            tmp_path / device,
            Host(device),
        )
        losses[device] = trained.curves[0]["loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)
