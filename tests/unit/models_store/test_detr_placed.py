"""Any classifier as the backbone of DETR and Deformable DETR: trained maps, untrained rest, and it learns."""

import pytest
import timm
import torch
import torchvision
from test_detr_families import pictures

from models_store import load_detector
from models_store.detr.maps import MATCHED
from tests.small_detr import small_detr

torch.set_num_threads(1)
SMALL = {"config": small_detr(num_queries=8)}


def classifier(name: str) -> dict:
    torch.manual_seed(0)
    library, _, short = name.partition("/")
    made = timm.create_model(short) if library == "timm" else torchvision.models.get_model(short)
    return made.state_dict()


@pytest.mark.parametrize(
    ("architecture", "backbone", "strides"),
    [
        ("detrank/detr", "torchvision/resnet18", [4, 4, 8, 16, 32]),
        ("detrank/deformable_detr", "torchvision/resnet18", [4, 4, 8, 16, 32]),
        ("detrank/deformable_detr", "timm/mobilenetv3_small_050", [2, 4, 8, 16, 32]),
        ("detrank/deformable_detr", "timm/test_vit", [16]),
    ],
)
def test_a_backbone_placed_in_a_detr(architecture, backbone, strides, tmp_path, convert_inline) -> None:
    state = classifier(backbone)
    torch.save(state, tmp_path / "classifier.pth")
    options = {"options": SMALL, "min_size": 64, "max_size": 128}
    manifest = convert_inline(tmp_path / "classifier.pth", architecture=architecture, overrides=options)
    assert (manifest.architecture, manifest.backbone, manifest.kind) == (architecture, backbone, "backbone")
    detector = load_detector(tmp_path / "converted")
    for key, tensor in detector.module.model.backbone.model.body.state_dict().items():
        torch.testing.assert_close(tensor, state[key.removeprefix("model.")].to(tensor), rtol=0, atol=0)
    maps = [layer for layer in detector.layers if layer.name.startswith("backbone.")]
    assert [layer.stride for layer in maps] == strides
    assert all(layer.trained == layer.name.startswith("backbone.") for layer in detector.layers)

    images = pictures(2)
    pixels = detector.prepare(images)
    names = [layer.name for layer in detector.layers if layer.kind == "map"]
    together = detector.feature_maps(pixels, names)
    for layer in detector.layers:
        if layer.kind == "map":
            assert together[layer.name].shape[1] == layer.channels
            torch.testing.assert_close(
                detector.feature_maps(pixels, [layer.name])[layer.name],
                together[layer.name],
                atol=1e-5,
                rtol=1e-4,
            )
    hw = detector.resized(50, 70, None)
    found = detector.object_features(
        detector.feature_maps(pixels, detector.map_layers(MATCHED)),
        [torch.tensor([[4.0, 4, 40, 40]])] * 2,
        hw,
        MATCHED,
    )
    assert found.shape == (2, 64)
    again = load_detector(tmp_path / "converted")
    assert all(torch.equal(v, again.module.state_dict()[k]) for k, v in detector.module.state_dict().items())

    detector.replace_head(2, seed=0)
    detector.module.requires_grad_(True)
    targets = [{"boxes": torch.tensor([[5.0, 6, 30, 40]]), "labels": torch.tensor([1])}] * 2
    optimizer = torch.optim.AdamW(detector.module.parameters(), lr=2e-4)
    torch.manual_seed(0)
    before = sum(detector.losses(images, targets).values())
    before.backward()
    torch.nn.utils.clip_grad_norm_(detector.module.parameters(), 0.1)
    optimizer.step()
    torch.manual_seed(0)
    assert float(sum(detector.losses(images, targets).values()).detach()) < float(before.detach())
    assert len(detector.predictions(images)) == 2


def test_fresh_deformable_heads_start_as_published(tmp_path, convert_inline) -> None:
    torch.save(classifier("torchvision/resnet18"), tmp_path / "classifier.pth")
    convert_inline(
        tmp_path / "classifier.pth", architecture="detrank/deformable_detr", overrides={"options": SMALL}
    )
    module = load_detector(tmp_path / "converted").module
    torch.testing.assert_close(module.class_embed[0].bias.sigmoid(), torch.full((1,), 0.01))
    last = module.bbox_embed[0].layers[-1]
    assert not last.weight.any()
    assert last.bias.tolist() == [0, 0, -2, -2]
    offsets = module.model.decoder.layers[0].encoder_attn.sampling_offsets
    assert not offsets.weight.any()
    assert offsets.bias.any(), "points start around their reference, in all directions"


def test_a_fresh_deformable_detr_looks_all_over_the_picture(tmp_path, convert_inline) -> None:
    """Like the published code's: transformers' own queries start alike, and then all references are its middle."""
    torch.save(classifier("torchvision/resnet18"), tmp_path / "classifier.pth")
    config = {"config": SMALL["config"] | {"num_queries": 60}}
    options = {"options": config, "min_size": 64, "max_size": 128}
    convert_inline(tmp_path / "classifier.pth", architecture="detrank/deformable_detr", overrides=options)
    module = load_detector(tmp_path / "converted").module.model
    width = module.config.d_model
    queries = module.query_position_embeddings.weight
    references = module.reference_points(queries[:, :width]).sigmoid()
    assert references.std(dim=0).min() > 0.15
    assert queries.std() == pytest.approx(1, abs=0.05)
    projection = module.decoder.layers[0].mlp.fc1.weight
    assert projection.abs().max() <= (6 / sum(projection.shape)) ** 0.5
    assert projection.std() == pytest.approx((2 / sum(projection.shape)) ** 0.5, rel=0.1)
