"""Scoring on a worker's device: the same numbers wherever the work is done."""

import numpy as np
import pytest
import torch

from worker.handlers.ranking import scorable
from worker.metrics import FeatureSet, score
from worker.metrics.on_device import score_on_device

ASKED = {"permutations": 4, "groups": 6, "seed": 1}
METRICS = ["logme", "logme_boxes", "h_score", "transrate"]


@pytest.fixture
def features() -> FeatureSet:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    x = rng.standard_normal((200, 16)).astype(np.float32) + labels[:, None]
    return FeatureSet(x, labels, rng.random((200, 4)), None, np.arange(200) // 4)


def agree(found, expected) -> None:
    for name in METRICS:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-9)
        assert found[name].interval.replicates == pytest.approx(expected[name].interval.replicates, rel=1e-9)
        assert found[name].null.mean == pytest.approx(expected[name].null.mean, rel=1e-9)


def test_a_cuda_worker_scores_on_its_device_and_can_be_stopped(features, monkeypatch):
    devices, checks = [], []

    def on_device(given, metrics, *, device, **asked):
        devices.append(device)
        return score_on_device(given, metrics, device="cpu", **asked)

    monkeypatch.setattr(scorable, "score_on_device", on_device)
    found = scorable.compute(features, METRICS, "cuda:1", check=lambda: checks.append(1), **ASKED)
    assert devices == ["cuda:1"]
    assert len(checks) == 16  # 4 permutations and 6 groups, and what they share
    agree(found, score(features, METRICS, **ASKED))
    scorable.compute(features, METRICS, "cpu", **ASKED)
    assert devices == ["cuda:1"]


def test_a_device_without_room_leaves_it_to_the_cpu(features, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scorable, "score_on_device", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    agree(scorable.compute(features, METRICS, "cuda", **ASKED), score(features, METRICS, **ASKED))


@pytest.mark.gpu
def test_on_a_card(features):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    agree(scorable.compute(features, METRICS, "cuda", **ASKED), score(features, METRICS, **ASKED))
