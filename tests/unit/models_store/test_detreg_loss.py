"""DETReg's objective against its formulas written out plainly, and what a detector needs to be pretrained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detr_configs import random_detr
from plain_detreg import total_loss
from test_detr_families import pictures
from typer.testing import CliRunner

from app.cli.main import build
from models_store import Unusable, load_detector
from models_store.detr.detreg_loss import detreg_loss
from models_store.detr.embedding import add_embedding_head
from models_store.detr.families import FAMILIES
from models_store.detr.layerwise import layerwise
from models_store.detr.loss import Target
from models_store.pretraining import Pretrained, encoder_of, made_pretrainable, placed_over
from models_store.save import save_detector
from tests.small_detr import small_detr

torch.set_num_threads(1)
SMALL = {
    **small_detr(32),
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}


def regions(seed: int, counts: tuple[int, ...] = (4, 2)) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(n, 4, generator=g) * 0.3 + 0.2 for n in counts]


@pytest.mark.parametrize("name", ["deformable_detr", "detr", "table-transformer"])
def test_the_total_is_that_of_the_published_formulas(name: str) -> None:
    module = random_detr(name)
    family = FAMILIES[name]
    add_embedding_head(module, 7)
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    wanted = regions(2)
    vectors = [torch.rand(len(each), 7) for each in wanted]
    with torch.no_grad():
        outputs = layerwise(module, family, pixels, torch.ones(2, 64, 96, dtype=torch.long))
        embedded = module.feature_embed(outputs.states)
        targets = [Target(each, torch.ones(len(each), dtype=torch.long)) for each in wanted]
        found = detreg_loss(outputs, embedded, targets, vectors, no_object=family.no_object)
    plain = total_loss(
        *(x.double().numpy() for x in (outputs.logits, outputs.boxes, embedded)),
        [x.double().numpy() for x in wanted],
        [x.double().numpy() for x in vectors],
        1,
        focal=not family.no_object,
    )
    assert sum(found.values()).item() == pytest.approx(plain, rel=1e-5)
    # the last layer plain, the one before as auxiliary, the embedding of the last alone
    assert set(found) == {
        *(f"loss_{part}{layer}" for part in ("ce", "bbox", "giou") for layer in ("", "_0")),
        "loss_embedding",
    }


def test_the_states_are_those_that_the_heads_read() -> None:
    for name in ("deformable_detr", "detr", "table-transformer"):
        module = random_detr(name)
        with torch.no_grad():
            outputs = layerwise(
                module, FAMILIES[name], torch.rand(1, 3, 64, 96), torch.ones(1, 64, 96, dtype=torch.long)
            )
            head = module.class_embed[-1] if name == "deformable_detr" else module.class_labels_classifier
            torch.testing.assert_close(head(outputs.states), outputs.logits[-1])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory):
    import torchvision

    from models_store.conversion import Request, convert_here
    from models_store.limits import Limits
    from models_store.load import digest_of

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    path = folder / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    (folder / "converted").mkdir()
    convert_here(Request(path, digest_of(path), path.name, folder / "converted", None, None, {}, Limits()))
    return load_detector(folder / "converted")


@pytest.mark.parametrize("model_type", ["detr", "deformable_detr"])
def test_a_fresh_detector_around_a_backbone_can_be_pretrained(backbone, model_type: str) -> None:
    placed = placed_over(backbone, model_type, config=SMALL, seed=3)
    body = placed.module.model.backbone.model.body.state_dict()
    own = backbone.module.backbone.body.state_dict()
    assert all(torch.equal(body[key], own[key]) for key in body)
    encoder = encoder_of(backbone, "backbone.c3")
    ready = made_pretrainable(placed, encoder.width, seed=3)
    detector = Pretrained(ready, encoder)
    images = pictures(2)
    g = torch.Generator().manual_seed(0)
    targets = [
        {
            "boxes": torch.tensor([[5.0, 5.0, 30.0, 30.0], [10.0, 2.0, 50.0, 40.0]]),
            "labels": torch.zeros(2, dtype=torch.long),
            "crops": torch.randint(0, 255, (2, 3, 64, 64), generator=g, dtype=torch.uint8),
        }
        for _ in images
    ]
    detector.module.requires_grad_(True)
    detector.module.model.backbone.requires_grad_(False)
    losses = detector.losses(images, targets, image_size=64)
    sum(losses.values()).backward()
    assert detector.module.feature_embed.layers[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in detector.module.model.backbone.parameters())
    again = made_pretrainable(placed_over(backbone, model_type, config=SMALL, seed=3), encoder.width, seed=3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.module.parameters(), detector.module.parameters(), strict=True)
    )


def test_a_new_head_leaves_the_pretraining_behind(backbone) -> None:
    placed = made_pretrainable(placed_over(backbone, "deformable_detr", config=SMALL), 128, seed=0)
    assert placed.manifest.options["embedding"] == 128
    placed.replace_head(5, seed=0)
    assert not hasattr(placed.module, "feature_embed")
    assert not {"embedding", "object_class"} & set(placed.manifest.options)


def test_what_cannot_be_pretrained_says_so(backbone) -> None:
    with pytest.raises(Unusable, match="no queries") as refusal:
        made_pretrainable(backbone, 128, seed=0)
    assert refusal.value.code == "no_branch"
    with pytest.raises(Unusable, match=r"backbone\.c3") as refusal:
        encoder_of(backbone, "backbone.c9")
    assert refusal.value.code == "no_embedding"
    backbone_less = backbone.manifest.but(backbone=None)
    other = type("Other", (), {"manifest": backbone_less})()
    with pytest.raises(Unusable) as refusal:
        placed_over(other, "detr")
    assert refusal.value.code == "no_body"


def test_the_vector_of_a_crop_is_the_mean_of_the_map(backbone) -> None:
    crops = torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8)
    encoder = encoder_of(backbone, "backbone.c3")
    images = [np.ascontiguousarray(crop.permute(1, 2, 0).numpy()) for crop in crops]
    pixels = backbone.prepare(images, 64)
    maps = backbone.feature_maps(pixels, ["backbone.c3"])["backbone.c3"]
    torch.testing.assert_close(encoder.vectors(crops), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["deformable_detr", "detr"])
def test_ours_is_written_as_detregs_code_has_it_and_read_again(
    backbone, tmp_path: Path, convert_inline, model_type: str
) -> None:
    ours = made_pretrainable(placed_over(backbone, model_type, config=SMALL, seed=1), 128, seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in ours.module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        # A body whose norms never saw a picture is read as one from Caffe.
        for name, buffer in ours.module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.1 * torch.rand_like(buffer))
    save_detector(ours, tmp_path / "saved", class_names=("object",), lineage={})
    invoked = CliRunner().invoke(
        build(),
        ["checkpoints", "convert", str(tmp_path / "saved"), str(tmp_path / "ours.pth"), "--to", "detreg"],
    )
    assert invoked.exit_code == 0, invoked.output
    manifest = convert_inline(tmp_path / "ours.pth")
    assert manifest.format == {"deformable_detr": "detreg_deformable_detr", "detr": "detreg_detr"}[model_type]
    assert (manifest.num_classes, manifest.options["object_class"], manifest.options["embedding"]) == (
        91,
        1,
        128,
    )
    again = load_detector(tmp_path / "converted")
    pixels = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        a, b = (each.module(pixel_values=pixels) for each in (ours, again))
    torch.testing.assert_close(a.pred_boxes, b.pred_boxes, rtol=1e-4, atol=1e-5)
    if model_type == "detr":
        theirs = b.logits.softmax(-1)[..., [1, -1]]
        torch.testing.assert_close(a.logits.softmax(-1), theirs, rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(a.logits[..., 0], b.logits[..., 1], rtol=1e-4, atol=1e-4)
    assert torch.equal(
        again.module.feature_embed.layers[1].weight, ours.module.feature_embed.layers[1].weight
    )
