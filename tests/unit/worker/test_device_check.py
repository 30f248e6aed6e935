"""What a host computes on."""

import pytest
import torch

from worker.device_check import check


def test_the_cpu_computes_in_float32_and_says_how_fast() -> None:
    found = check("cpu")
    assert found["wrong"] == []
    assert "float32" in found["precisions"]
    assert found["images_per_second"] > 0
    assert found["step_seconds"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_said_with_the_way_out() -> None:
    (wrong,) = check("cuda")["wrong"]
    assert "DETRANK_DEVICE=cpu" in wrong
