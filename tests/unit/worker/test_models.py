"""Detectors kept between jobs: one load for each content and device, bounded, and never a changed one."""

from pathlib import Path

import pytest
import torch
import torchvision

import models_store
from worker import models as module
from worker.models import Models, size_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted MobileNet backbone."""
    root = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), root / "weights.pth")
    models_store.convert(root / "weights.pth", root / "ready", architecture="torchvision/mobilenet_v3_small")
    return root / "ready"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done, real = [], models_store.load_detector

    def load(folder: Path, *, device: str = "cpu"):
        done.append(device)
        return real(folder, device=device)

    monkeypatch.setattr(models_store, "load_detector", load)
    return done


class Desk:
    """Models with the one checkpoint's arguments filled in; another `name` is another checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.models, self.folder = Models(), folder
        self.manifest = models_store.Manifest.read(folder)

    def load(self, name: str = "a", *, max_bytes: int = 1 << 30, device: str = "cpu"):
        manifest = self.manifest.but(class_names=(name,)) if name != "a" else self.manifest
        return self.models.load(self.folder, manifest, device=device, max_bytes=max_bytes)


def test_the_same_checkpoint_is_loaded_once_and_read_many_times(folder, loads):
    desk = Desk(folder)
    first = desk.load()
    for _ in range(3):
        found = desk.load()
        assert found is first
        maps = found.feature_maps(
            found.prepare([torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()]), ["backbone.c4"]
        )
        assert maps["backbone.c4"].isfinite().all()
    assert len(loads) == 1
    [held] = desk.models.held()
    assert held["size_bytes"] == size_of(first)
    assert held["weights_sha256"] == desk.manifest.weights_sha256


@pytest.mark.parametrize(
    "change",
    [
        lambda detector: detector.replace_head(3, 0),
        lambda detector: torch.nn.init.zeros_(next(detector.module.parameters())),
        lambda detector: detector.module.train(),
        lambda detector: detector.module.requires_grad_(True),
        lambda detector: setattr(detector.module, "backbone", torch.nn.Identity()),
    ],
    ids=["head", "weights", "train", "gradients", "part"],
)
def test_a_detector_that_somebody_changed_is_not_handed_out(folder, loads, change):
    desk = Desk(folder)
    changed = desk.load()
    change(changed)
    again = desk.load()
    assert again is not changed
    assert len(loads) == 2
    assert desk.load() is again


def test_who_was_used_longest_ago_makes_room(folder, loads):
    desk = Desk(folder)
    size = size_of(desk.load("a"))
    room = 2 * size + folder.joinpath("weights.safetensors").stat().st_size // 2
    for name in ("b", "a", "c"):
        desk.load(name, max_bytes=room)
    assert len(loads) == 3
    assert len(desk.models.held()) <= 2
    desk.load("c", max_bytes=room)
    assert len(loads) == 3
    desk.load("b", max_bytes=room)
    assert len(loads) == 4


def test_nothing_is_kept_that_does_not_fit(folder, loads):
    desk = Desk(folder)
    desk.load(max_bytes=1000)
    desk.load(max_bytes=0)
    assert (len(loads), desk.models.held()) == (2, [])


def test_a_damaged_file_is_looked_at_again(folder, loads, tmp_path):
    desk = Desk(folder)
    desk.folder = tmp_path
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    desk.load()
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(models_store.Unusable, match="is not the file"):
        desk.load()


def test_out_of_memory_lets_the_others_go_and_tries_once_more(folder, monkeypatch):
    desk = Desk(folder)
    desk.load("other")
    using = desk.load()
    tries = []

    def work() -> str:
        tries.append(len(desk.models.held()))
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert desk.models.with_room(using, work) == "done"
    assert tries == [2, 1]
    assert desk.load() is using

    def fails() -> None:
        tries.append(0)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        desk.models.with_room(using, fails)
    assert tries == [2, 1, 0], "there was nobody left to let go"
    assert desk.models.forget()
    assert not desk.models.forget()


def test_every_process_has_its_own():
    assert module.models() is module.models()


def test_the_untrained_detector_is_built_once_for_all_candidates_of_an_architecture(folder):
    models, manifest = Models(), models_store.Manifest.read(folder)
    asked = {"device": "cpu", "max_bytes": 1 << 30}
    first = models.initial(manifest, 0, **asked)
    assert first.manifest.weights_sha256 == "untrained:0"
    other = manifest.but(weights_sha256="1" * 64, num_classes=80, licence="MIT", source={"uri": "elsewhere"})
    assert models.initial(other, 0, **asked) is first
    assert models.initial(manifest, 1, **asked) is not first
    assert models.initial(manifest.but(input=manifest.input.__class__(min_size=64)), 0, **asked) is not first
    assert [held["weights_sha256"] for held in models.held()] == ["untrained:0", "untrained:1", "untrained:0"]
    with torch.no_grad():
        next(first.module.parameters()).zero_()
    assert models.initial(manifest, 0, **asked) is not first
    nothing = Models()
    nothing.initial(manifest, 0, device="cpu", max_bytes=1000)
    assert nothing.held() == []


def test_what_inference_costs_is_measured_once_for_equal_architectures(folder, monkeypatch):
    measured, real = [], module.inference_cost

    def counted(*given):
        measured.append(given[2])
        return real(*given)

    monkeypatch.setattr(module, "inference_cost", counted)
    desk = Desk(folder)
    one = desk.load()
    other = desk.models.initial(desk.manifest, 1, device="cpu", max_bytes=1 << 30)
    picture = torch.zeros(64, 80, 3, dtype=torch.uint8).numpy()
    costs = [
        desk.models.inference_cost(each, picture, size, "cpu") for each in (one, other) for size in (64, 96)
    ]
    assert measured == [64, 96]
    assert costs[:2] == costs[2:]
    desk.models.forget()
    desk.models.inference_cost(one, picture, 64, "cpu")
    assert measured == [64, 96, 64]
