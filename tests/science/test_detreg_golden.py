"""DETReg's own files: its objective on what its code computed, written back as they were, and pretrained further."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_golden_detectors import converted, golden, original_file  # noqa: F401  a fixture

from models_store import Unusable, load_detector
from models_store.detr.detreg_loss import detreg_loss
from models_store.detr.layerwise import Layerwise, layerwise
from models_store.detr.loss import Target
from models_store.export_detreg import to_detreg_file
from models_store.pretraining import made_pretrainable
from tests.unit.models_store.plain_detreg import total_loss

torch.set_num_threads(1)
CASES = ["detreg_deformable", "detreg_detr_prenorm"]


@pytest.mark.parametrize("case", CASES)
def test_the_objective_on_the_outputs_of_the_original_code(golden: Path, tmp_path: Path, case: str) -> None:  # noqa: F811
    path, io = original_file(golden, case, tmp_path)
    detector = converted(path)
    softmax = detector.family.no_object
    ours = layerwise(detector.module, detector.family, io["pixel_values"], io["pixel_mask"].long())
    theirs = Layerwise(
        torch.stack([io["aux0_logits"], io["pred_logits"]]),
        torch.stack([io["aux0_boxes"], io["pred_boxes"]]),
        states=ours.states,
    )
    g = torch.Generator().manual_seed(0)
    wanted = [torch.rand(n, 4, generator=g) * 0.3 + 0.3 for n in (10, 6)]
    vectors = [torch.rand(len(each), 128, generator=g) for each in wanted]
    targets = [Target(each, torch.ones(len(each), dtype=torch.long)) for each in wanted]
    with torch.no_grad():
        embedded = detector.module.feature_embed(ours.states)
        found = sum(detreg_loss(theirs, embedded, targets, vectors, no_object=softmax).values()).item()
        again = sum(detreg_loss(ours, embedded, targets, vectors, no_object=softmax).values()).item()
    # the embedding head read from the file by hand
    file = torch.load(path, weights_only=False)["model"]
    hidden = ours.states.detach().double().numpy() @ file["feature_embed.layers.0.weight"].double().numpy().T
    hidden = np.maximum(hidden + file["feature_embed.layers.0.bias"].double().numpy(), 0)
    by_hand = hidden @ file["feature_embed.layers.1.weight"].double().numpy().T
    by_hand += file["feature_embed.layers.1.bias"].double().numpy()
    plain = total_loss(
        theirs.logits.double().numpy(),
        theirs.boxes.double().numpy(),
        by_hand,
        [each.double().numpy() for each in wanted],
        [each.double().numpy() for each in vectors],
        1,
        focal=not softmax,
    )
    assert found == pytest.approx(plain, rel=1e-5)
    assert again == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_published_file_is_written_back_tensor_for_tensor(golden: Path, tmp_path: Path, case: str) -> None:  # noqa: F811
    path, _ = original_file(golden, case, tmp_path)
    converted(path)
    out = tmp_path / "again" / "checkpoint.pth"
    written = to_detreg_file(tmp_path / "converted", out)
    before, after = (torch.load(each, weights_only=False) for each in (path, out))
    kept = {k: v for k, v in before["model"].items() if not k.endswith("num_batches_tracked")}
    assert set(after["model"]) == set(kept)
    assert written == len(kept)
    assert all(torch.equal(after["model"][key], tensor) for key, tensor in kept.items())
    for name, value in vars(after["args"]).items():
        if hasattr(before["args"], name):
            assert getattr(before["args"], name) == value, name


def test_a_published_file_can_be_pretrained_further(golden: Path, tmp_path: Path) -> None:  # noqa: F811
    path, _ = original_file(golden, "detreg_deformable", tmp_path)
    detector = converted(path)
    head = detector.module.feature_embed.layers[1].weight.clone()
    ready = made_pretrainable(detector, 128, seed=0)
    # its class among 91 and its embedding head are what it goes on with
    assert (ready.manifest.num_classes, ready.manifest.options["object_class"]) == (91, 1)
    assert torch.equal(ready.module.feature_embed.layers[1].weight, head)
    made_pretrainable(detector, 64, seed=0)
    assert detector.module.feature_embed.layers[1].weight.shape == (64, 64)


def test_what_is_no_pretraining_is_not_written(golden: Path, tmp_path: Path) -> None:  # noqa: F811
    path, _ = original_file(golden, "deformable_detr", tmp_path)
    converted(path)
    with pytest.raises(Unusable, match="no embedding head"):
        to_detreg_file(tmp_path / "converted", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
    assert load_detector(tmp_path / "converted").manifest.format == "deformable_detr"
