"""The torch path gives the numbers of the numpy path, on the CPU here and on a GPU where there is one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from plain_metrics import draw

from worker.metrics import METRICS, FeatureSet, Options, score
from worker.metrics.on_device import Tensors, score_on_device

SINGLE = [m.name for m in METRICS.values() if not m.pool_relative and m.name != "n_leep"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.mark.parametrize("shape", [(260, 12, 4), (40, 60, 3), (64, 60, 3), (230, 10, 30)], ids=str)
def test_same_numbers_as_numpy(device, shape):
    f = draw(*shape)
    a = score(f, SINGLE, permutations=3, groups=6)
    b = score_on_device(f, SINGLE, device=device, permutations=3, groups=6)
    for name in SINGLE:
        assert a[name].undefined == b[name].undefined
        if a[name].value is not None:
            assert b[name].value == pytest.approx(a[name].value, rel=1e-9, abs=1e-10), name
            assert (a[name].null is None) == (b[name].null is None)
            assert (a[name].interval is None) == (b[name].interval is None)
            if a[name].interval:
                assert b[name].interval.std == pytest.approx(a[name].interval.std, rel=1e-5, abs=1e-9), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_features_that_lie_on_the_device(device, dtype):
    f = draw(120, 20, 3)
    tensor = torch.as_tensor(f.features, device=device, dtype=dtype)
    stored = FeatureSet(tensor.cpu().double().numpy(), f.labels, f.boxes)
    before = tensor.clone()
    got = score_on_device(f, ["logme", "transrate"], device=device, tensors=Tensors(tensor))
    for name, s in score(stored, ["logme", "transrate"]).items():
        assert got[name].value == pytest.approx(s.value, rel=1e-9)
    assert torch.equal(tensor, before)


def test_float32_products(device):
    f = draw(500, 24, 6)
    exact = score_on_device(f, ["logme"], device=device)["logme"].value
    mixed = score_on_device(f, ["logme"], device=device, options=Options(gram_precision="float32"))[
        "logme"
    ].value
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=1e-4)


def test_broken_features_on_the_device(device):
    f = draw(60, 8, 3)
    x = f.features.copy()
    x[3, 3] = np.nan
    s = score_on_device(FeatureSet(x, f.labels), ["logme"], device=device)["logme"]
    assert "1 of 60 objects hold NaN" in s.undefined


def test_the_library_does_not_import_torch_or_scikit_learn():
    code = "import sys, worker.metrics; print([m for m in ('torch', 'sklearn', 'scipy.stats') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
