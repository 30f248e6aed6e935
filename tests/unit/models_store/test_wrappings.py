"""Whatever weights are wrapped in, the same tensors are found; what cannot run is dropped, what could is refused."""

import collections
import datetime
import pathlib
import pickle
import sys
import types
from argparse import Namespace

import numpy as np
import pytest
import torch
import torchvision

from models_store import Unusable, formats
from models_store.conversion import read
from models_store.formats.wrappings import unwrap
from models_store.limits import Limits
from tests.unit.models_store.conftest import random_module
from tests.unit.models_store.state_dicts import State, lead, moved

KEY = "backbone.body.features.0.weight"


@pytest.fixture(scope="module")
def plain() -> State:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


@pytest.fixture(scope="module")
def detector() -> State:
    return random_module("detrank/ssdlite_mobilenet_v2").state_dict()


PREFIXES = (
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model._orig_mod.module.net.",
    "detector.model.",
    "_fsdp_wrapped_module.model._fsdp_wrapped_module.",
    "_forward_module.module.model.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("what", ["plain", "detector"])
def test_modules_in_modules_in_any_order(plain, detector, prefix, what):
    state = {"plain": plain, "detector": detector}[what]
    found = formats.recognise(unwrap(lead(prefix, state), ordered=True))
    assert found.kind == ("backbone" if what == "plain" else "detector")
    first = next(iter(state.values()))
    assert any(value is first for value in found.tensors.values())


WRAPPED = {
    "Lightning": lambda s: {
        "state_dict": lead("model.", s) | {"criterion.weight": torch.ones(4)},
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.4",
    },
    "DeepSpeed": lambda s: {"module": lead("module.", s), "optimizer": None, "dp_world_size": 2},
    "mmengine": lambda s: {
        "message_hub": {"log_scalars": {}},
        "state_dict": s,
        "ema_state_dict": lead("module.", moved(s)) | {"steps": torch.zeros(1)},
    },
    "mmcv's average beside": lambda s: {
        "state_dict": s | {"ema_" + k.replace(".", "_"): v for k, v in moved(s).items()},
    },
    "torch's average": lambda s: {
        "model": moved(s),
        "model_ema": {"n_averaged": torch.tensor(3)} | lead("module.", s),
    },
    "RT-DETR's solver": lambda s: {"model": moved(s), "ema": {"module": s, "updates": 9}, "last_epoch": 1},
    "shadow": lambda s: {"shadow": s, "params": moved(s)},
    "two modules": lambda s: (
        lead("model.", moved(s)) | lead("ema_model.module.", s) | {"initted": torch.ones(1)}
    ),
    "deep": lambda s: {"checkpoint": 1, "model": {"model_state_dict": {"state_dict": lead("net.", s)}}},
}


@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.parametrize("what", ["plain", "detector"])
def test_what_people_wrap_weights_in(plain, detector, case, what):
    state = {"plain": plain, "detector": detector}[what]
    found = formats.recognise(unwrap(WRAPPED[case](state), ordered=True))
    first = next(iter(state.values()))
    assert found.kind == ("backbone" if what == "plain" else "detector")
    assert any(value is first for value in found.tensors.values())


@pytest.mark.parametrize("case", ["torch's average", "RT-DETR's solver", "two modules"])
def test_the_weights_beside_the_average_can_be_chosen(plain, case):
    wrapped = WRAPPED[case](plain)
    average = formats.recognise(unwrap(wrapped, ordered=True))
    other = formats.recognise(unwrap(wrapped, ordered=True, weights="model"))
    assert torch.equal(average.tensors[KEY] + 1, other.tensors[KEY])
    assert any("options weights=model" in note for note in average.notes)
    with pytest.raises(Unusable, match=r"ema \| model"):
        unwrap(wrapped, ordered=True, weights="both")


def test_an_average_that_is_not_there_cannot_be_chosen(plain):
    with pytest.raises(Unusable, match="leave options weights out"):
        unwrap({"model": plain, "net": plain}, ordered=True, weights="ema")


def made_up(module: str, name: str, base: type = object) -> type:
    """A class as a library's pickles name it, importable while it is written and not while it is read."""
    made = type(name, (base,), {"__module__": module, "__qualname__": name})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, made)
    return made


@pytest.fixture
def history():
    made = made_up("mmengine.logging.history_buffer", "HistoryBuffer")()
    made.values = np.arange(3.0)
    yield made
    for name in [n for n in sys.modules if n.split(".")[0] == "mmengine"]:
        del sys.modules[name]


@pytest.mark.parametrize("legacy", [False, True])
def test_harmless_objects_beside_the_weights_are_dropped(plain, history, legacy, tmp_path):
    file = {
        "state_dict": dict(plain),
        "meta": {
            "path": pathlib.PurePosixPath("/a/b"),
            "when": datetime.datetime(2026, 1, 1),
            "took": datetime.timedelta(seconds=3),
            "best": np.float64(0.5),
            "history": history,
            "counts": collections.defaultdict(list, {"a": [1]}),
            "last": collections.deque([1, 2], maxlen=3),
            "table": np.arange(6).reshape(2, 3),
        },
        "args": Namespace(lr=np.float32(0.5), out=pathlib.PurePosixPath("x"), arch="squeezenet1_1"),
    }
    source = tmp_path / "x.pth"
    torch.save(file, source, _use_new_zipfile_serialization=not legacy)
    state = read(source, Limits())
    assert formats.recognise(state).backbone == "torchvision/squeezenet1_1"
    assert state.arguments["lr"] == 0.5
    assert all(name in state.notes[0] for name in ("HistoryBuffer", "PurePosixPath", "datetime"))


def test_arrays_in_the_place_of_tensors_are_read(plain, tmp_path):
    torch.save({k: v.numpy() for k, v in plain.items()}, tmp_path / "x.pth")
    found = formats.recognise(read(tmp_path / "x.pth", Limits()))
    assert torch.equal(found.tensors[KEY], plain["features.0.weight"])


class Harm:
    def __init__(self, call: tuple) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    "call",
    [(eval, ("1",)), (exec, ("1",)), (open, ("/tmp/x", "w")), (pickle.loads, (b".",)), (np.load, ("x",))],
)
def test_what_could_run_stays_refused_by_name(plain, call, tmp_path):
    torch.save({"state_dict": dict(plain), "meta": Harm(call)}, tmp_path / "x.pth")
    with pytest.raises(Unusable, match=call[0].__name__) as refusal:
        read(tmp_path / "x.pth", Limits())
    assert refusal.value.code == "unsafe_pickle"


def test_getattr_looks_nothing_up(plain, tmp_path):
    """mmengine's histories name it; here it answers with nothing, and nothing can be called through it."""
    torch.save({"state_dict": dict(plain), "x": Harm((getattr, ("text", "upper")))}, tmp_path / "x.pth")
    assert len(read(tmp_path / "x.pth", Limits()).tensors) == len(plain)


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("ultralytics.nn.tasks", "DetectionModel", "Ultralytics.*AGPL"),
        ("models.yolo", "Model", "YOLOv5, YOLOv7 or YOLOv9"),
    ],
)
def test_pickled_networks_are_named_with_what_to_do(plain, module, name, words, tmp_path):
    made = made_up(module, name)
    try:
        torch.save({"model": made(), "epoch": 1}, tmp_path / "x.pt")
    finally:
        for known in [n for n in sys.modules if n.split(".")[0] == module.split(".")[0]]:
            del sys.modules[known]
    with pytest.raises(Unusable, match=words) as refusal:
        read(tmp_path / "x.pt", Limits())
    assert refusal.value.code == "unsafe_pickle"
    assert "choose a family that is read" in refusal.value.detail


def test_an_adapter_is_refused_with_the_way_to_merge_it(plain):
    tensors = plain | {"base_model.model.layer.lora_A.weight": torch.zeros(2, 2)}
    with pytest.raises(Unusable, match="merge_and_unload") as refusal:
        formats.recognise(unwrap(tensors, ordered=True))
    assert refusal.value.code == "unsuitable"
