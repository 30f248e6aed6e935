"""Every query-based family of transformers: converted exactly, read by layer, trained a step, predicting."""

import copy
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detr_configs import CLASSES, CONFIGS, family_of, random_detr
from safetensors.torch import save_file
from torch import nn

from models_store import Unusable, archives, convert, load_detector
from models_store.detr.maps import MATCHED, QUERIES
from tests.unit.models_store.family_table import furthest, measured

torch.set_num_threads(1)
SIZES = {
    "rf_detr": (64, 64),
    "lw_detr": (64, 64),
    **dict.fromkeys(("deimv2", "deimv2_lite", "deimv2_dinov3"), (64, 64)),
}
SQUARES = (*SIZES, "rt_detr", "rt_detr_v2", "d_fine")
SHORT = 64


def pictures(count: int = 2, height: int = 50, width: int = 70, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def write_folder(module: nn.Module, folder: Path, size: dict | None = None) -> Path:
    """A transformers folder under the module's own names in memory."""
    folder.mkdir()
    module.config.save_pretrained(folder)
    save_file({k: v.clone() for k, v in module.state_dict().items()}, folder / "model.safetensors")
    if size is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, convert_folder):
    """name -> (transformers' module, our Detector), each made once."""
    cache = {}

    def make(name: str):
        if name not in cache:
            module = random_detr(name)
            size = (
                {"height": SHORT, "width": SHORT}
                if name in SQUARES
                else {"shortest_edge": SHORT, "longest_edge": 2 * SHORT}
            )
            folder = write_folder(module, tmp_path_factory.mktemp("folder") / "model", size)
            cache[name] = module, load_detector(convert_folder(folder))
        return cache[name]

    return make


@pytest.fixture(scope="module")
def convert_folder(tmp_path_factory):
    """A folder converted in this process."""
    from models_store.conversion import Request, convert_here
    from models_store.limits import Limits
    from models_store.load import digest_of

    def run(folder: Path, **overrides: object) -> Path:
        beside = tmp_path_factory.mktemp("converted")
        packed = archives.pack(folder, beside) if folder.is_dir() else folder
        out = beside / "out"
        out.mkdir()
        convert_here(Request(packed, digest_of(packed), "folder", out, None, None, overrides, Limits()))
        return out

    return run


@pytest.mark.parametrize("name", CONFIGS)
def test_the_converted_module_is_the_same_function(name: str, made) -> None:
    module, detector = made(name)
    height, width = SIZES.get(name, (64, 96))
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs, ours = module(pixel_values=pixels), detector.module(pixel_values=pixels)
    assert float(theirs.logits.std()) > 0.01
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.pred_boxes, theirs.pred_boxes, atol=1e-6, rtol=1e-6)
    if family_of(name).model_type == name:
        measured(
            family_of(name).title,
            "transformers' folder",
            "transformers' module",
            logits=furthest(ours.logits, theirs.logits),
            boxes=furthest(ours.pred_boxes, theirs.pred_boxes),
        )
    manifest = detector.manifest
    assert manifest.num_classes == CLASSES
    assert manifest.class_names == ("thing 0", "thing 1", "thing 2")
    assert not manifest.has_background
    assert manifest.dropped_keys == manifest.initialised_keys == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_have_the_channels_and_strides_they_state(name: str, made) -> None:
    _, detector = made(name)
    images = pictures()
    pixels = detector.prepare(images)
    maps = [layer for layer in detector.layers if layer.kind == "map"]
    assert any(layer.name.startswith("backbone.c") for layer in maps)
    together = detector.feature_maps(pixels, [layer.name for layer in maps])
    for layer in maps:
        found = together[layer.name]
        assert found.shape[:2] == (2, layer.channels)
        for axis in (-2, -1):
            assert abs(pixels.shape[axis] / layer.stride - found.shape[axis]) <= 1
        alone = detector.feature_maps(pixels, [layer.name])[layer.name]
        torch.testing.assert_close(alone, found)
    if family_of(name).memory != "none":
        assert sum(layer.name.startswith("encoder.memory") for layer in maps) in (1, 2, 3, 4)


def test_nothing_deeper_than_asked_is_run(made) -> None:
    _, detector = made("deformable_detr")
    ran = []
    handles = [
        detector.module.model.get_submodule(part).register_forward_hook(
            lambda *_, part=part: ran.append(part)
        )
        for part in ("input_proj.0", "encoder.layers.0", "decoder.layers.0")
    ]
    pixels = detector.prepare(pictures())
    try:
        detector.feature_maps(pixels, ["backbone.c3"])
        assert ran == []
        detector.feature_maps(pixels, ["encoder.memory.l1"])
        assert ran == ["input_proj.0", "encoder.layers.0"]
        detector.feature_maps(pixels, [QUERIES])
        assert ran[2:] == ["input_proj.0", "encoder.layers.0", "decoder.layers.0"]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", CONFIGS)
def test_matched_query_is_the_state_of_the_query_that_predicts_the_box(name: str, made) -> None:
    _, detector = made(name)
    images = pictures(2)
    pixels = detector.prepare(images)
    hw = tuple(pixels.shape[-2:])
    with torch.no_grad():
        outputs = detector.module(pixel_values=pixels)
    queries = outputs.pred_boxes.shape[1]
    states = outputs.last_hidden_state[:, -queries:]
    scale = torch.tensor([hw[1], hw[0], hw[1], hw[0]])
    order = [torch.tensor([4, 1, 3]), torch.tensor([0, 5])]
    boxes = []
    for image, chosen in enumerate(order):
        cx, cy, w, h = outputs.pred_boxes[image, chosen].unbind(-1)
        boxes.append(torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1) * scale)
    maps = detector.feature_maps(pixels, detector.map_layers(MATCHED))
    found = detector.object_features(maps, boxes, hw, MATCHED)
    wanted = torch.cat([states[i, chosen] for i, chosen in enumerate(order)])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    probabilities = detector.source_probabilities(
        detector.feature_maps(pixels, detector.source_maps()), boxes, hw
    )
    assert probabilities.shape == (5, CLASSES)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    logits = torch.cat([outputs.logits[i, chosen] for i, chosen in enumerate(order)])
    family = detector.family
    raw = logits.softmax(-1)[:, :-1] if family.no_object else logits.sigmoid()
    torch.testing.assert_close(probabilities, raw / raw.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_a_new_head_has_no_source_classes(made) -> None:
    detector = copy.deepcopy(made("detr")[1])
    assert detector.source_maps() == (QUERIES,)
    detector.replace_head(4, seed=0)
    assert detector.source_maps().code == "untrained_head"
    with pytest.raises(ValueError, match="not trained"):
        detector.source_probabilities({}, [], (32, 32))


def test_more_objects_than_queries_all_get_a_vector(made) -> None:
    _, detector = made("detr")
    pixels = detector.prepare(pictures(1))
    hw = tuple(pixels.shape[-2:])
    boxes = [torch.tensor([[4.0, 4, 30, 30]]).repeat(14, 1) + torch.arange(14)[:, None]]
    maps = detector.feature_maps(pixels, detector.map_layers(MATCHED))
    found = detector.object_features(maps, boxes, hw, MATCHED)
    assert found.shape == (14, 32)
    # Six queries in three rounds: each serves two or three of the fourteen objects.
    assert sorted(found.unique(dim=0, return_counts=True)[1].tolist()) == [2, 2, 2, 2, 3, 3]


def test_no_object_at_all(made) -> None:
    _, detector = made("detr")
    pixels = detector.prepare(pictures(1))
    maps = detector.feature_maps(pixels, detector.map_layers(MATCHED))
    assert detector.object_features(maps, [torch.zeros(0, 4)], (64, 90), MATCHED).shape == (0, 32)
    losses = detector.losses(pictures(1), [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}])
    assert all(bool(torch.isfinite(v)) for v in losses.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_one_step_of_training_and_predictions_inside_the_image(name: str, tmp_path, convert_folder) -> None:
    folder = write_folder(random_detr(name), tmp_path / "model", {"height": 96, "width": 96})
    detector = load_detector(convert_folder(folder))
    detector.replace_head(2, seed=1)
    images = pictures(2)
    targets = [
        {"boxes": torch.tensor([[5.0, 6, 30, 40]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[10.0, 6, 40, 30], [40, 20, 60, 45]]), "labels": torch.tensor([0, 1])},
    ]
    detector.module.requires_grad_(True)
    head = [p for n, p in detector.module.named_parameters() if n in detector.manifest.initialised_keys]
    assert head
    optimizer = torch.optim.SGD(detector.module.parameters(), lr=1e-3)
    torch.manual_seed(0)
    before = sum(detector.losses(images, targets).values())
    before.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in head)
    nn.utils.clip_grad_norm_(detector.module.parameters(), 1.0)
    optimizer.step()
    torch.manual_seed(0)
    after = sum(detector.losses(images, targets).values())
    assert bool(torch.isfinite(after))
    # The others' own losses match anew and draw noise at each step, so one step may raise them.
    if detector.family.set_loss:
        assert float(after.detach()) < float(before.detach())
    assert not detector.module.training
    for found, image in zip(detector.predictions(images), images, strict=True):
        assert found["boxes"].shape == (len(found["scores"]), 4)
        assert len(found["labels"]) > 0
        assert 0 <= int(found["labels"].min()) <= int(found["labels"].max()) <= 1
        assert float(found["boxes"].min()) >= 0
        assert float(found["boxes"][:, 2].max()) <= image.shape[1]
        assert float(found["boxes"][:, 3].max()) <= image.shape[0]
        assert bool((found["scores"].diff() <= 0).all())


@pytest.mark.parametrize("name", ["rt_detr", "d_fine", "deformable_detr"])
def test_training_after_reading_features(name: str, made) -> None:
    """transformers keeps anchors between calls; what reading left behind must not stop training."""
    _, detector = made(name)
    # A size that nothing has asked for before.
    pixels = detector.prepare(pictures(2, 90, 90, seed=9), 160)
    detector.feature_maps(pixels, [QUERIES])
    detector.module.requires_grad_(True).train()
    try:
        detector.module(pixel_values=pixels).logits.sum().backward()
    finally:
        detector.module.requires_grad_(False).eval()
        detector.module.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "rt_detr"])
def test_legacy_names_on_disk_are_read(name: str, tmp_path, convert_folder) -> None:
    module = random_detr(name)
    module.save_pretrained(tmp_path / "model")
    written = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert b".out_proj." in written or b".fc1." in written
    assert not any(".out_proj." in key for key in module.state_dict())
    detector = load_detector(convert_folder(tmp_path / "model"))
    pixels = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(
            detector.module(pixel_values=pixels).logits, module(pixel_values=pixels).logits
        )


def test_refined_heads_of_each_layer_stay_their_own(tmp_path, convert_folder) -> None:
    """transformers ties them at construction; loading must not write one into all."""
    module = random_detr("deformable_detr_two_stage")
    module.config.tie_word_embeddings = False
    state = {k: v.clone() for k, v in module.state_dict().items()}
    for key in state:
        head = key.removeprefix("model.decoder.")
        if head.startswith(("class_embed.", "bbox_embed.")):
            generator = torch.Generator().manual_seed(hash(head) % 1000)
            state[key] = torch.empty_like(state[key]).normal_(0, 0.1, generator=generator)
    folder = write_folder(module, tmp_path / "model")
    save_file(state, folder / "model.safetensors")
    detector = load_detector(convert_folder(folder))
    ours = detector.module.state_dict()
    for key, tensor in state.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=0)
    assert detector.module.model.decoder.bbox_embed is detector.module.bbox_embed
    assert not torch.equal(ours["class_embed.0.weight"], ours["class_embed.1.weight"])


def test_as_many_proposals_as_published(tmp_path, convert_folder) -> None:
    module = random_detr("deformable_detr_two_stage")
    module.config.two_stage_num_proposals = 300
    detector = load_detector(convert_folder(write_folder(module, tmp_path / "model")))
    pixels = detector.prepare(pictures(1), 128)
    assert detector.feature_maps(pixels, [QUERIES])[QUERIES].shape[2] == 300


def test_unrefined_heads_are_one_module(made) -> None:
    _, detector = made("deformable_detr")
    assert detector.module.class_embed[0] is detector.module.class_embed[1]
    _, two_stage = made("deformable_detr_two_stage")
    assert two_stage.module.class_embed[0] is not two_stage.module.class_embed[1]


def test_new_class_heads_start_at_one_per_cent_and_keep_the_rest(tmp_path, convert_folder) -> None:
    detector = load_detector(
        convert_folder(write_folder(random_detr("deformable_detr_two_stage"), tmp_path / "m"))
    )
    kept = {k: v.clone() for k, v in detector.module.state_dict().items() if "class_embed" not in k}
    detector.replace_head(5, seed=3)
    head = detector.module.class_embed
    assert [layer.weight.shape for layer in head] == [(5, 32)] * 3
    torch.testing.assert_close(head[0].bias.sigmoid(), torch.full((5,), 0.01))
    assert torch.equal(head[0].weight, head[2].weight)
    assert head[0].weight is not head[2].weight
    assert detector.module.model.decoder.class_embed[1] is head[1]
    assert all(torch.equal(v, detector.module.state_dict()[k]) for k, v in kept.items())
    assert detector.manifest.num_classes == 5
    again = head[0].weight.clone()
    detector.replace_head(5, seed=3)
    assert torch.equal(detector.module.class_embed[0].weight, again)
    detector.replace_head(5, seed=4)
    assert not torch.equal(detector.module.class_embed[0].weight, again)


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "yolos"])
def test_an_image_is_read_alike_alone_and_in_any_batch(name: str, made) -> None:
    _, detector = made(name)
    mixed = [*pictures(2, seed=1), *pictures(1, 90, 50, seed=2), *pictures(1, 50, 70, seed=3)]
    together = detector.predictions(mixed)
    for image, found in zip(mixed, together, strict=True):
        alone = detector.predictions([image])[0]
        torch.testing.assert_close(found["boxes"], alone["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found["scores"], alone["scores"], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="one target size"):
        detector.prepare(mixed)


def test_padding_of_a_training_batch_is_masked(made, monkeypatch) -> None:
    _, detector = made("detr")
    images = [*pictures(1, 50, 70), *pictures(1, 70, 50)]
    pixels, mask = detector._padded(images)
    assert pixels.shape[-2:] == mask.shape[-2:] == (89, 89)
    assert mask.sum((1, 2)).tolist() == [64 * 89, 89 * 64]
    assert bool((pixels[0, :, 64:] == 0).all())
    assert bool((pixels[1, :, :, 64:] == 0).all())
    seen = {}
    forward = type(detector.module).forward

    def watch(self, pixel_values, pixel_mask, **rest):
        seen["mask"] = pixel_mask
        return forward(self, pixel_values, pixel_mask, **rest)

    monkeypatch.setattr(type(detector.module), "forward", watch)
    detector.losses(images, [{"boxes": torch.tensor([[1.0, 1, 20, 20]]), "labels": torch.tensor([0])}] * 2)
    assert torch.equal(seen["mask"], mask)


@pytest.mark.parametrize(
    ("height", "width", "size", "wanted"),
    [
        (480, 640, None, (800, 1066)),
        (640, 480, None, (1066, 800)),
        (300, 900, None, (444, 1332)),
        (480, 640, 320, (320, 426)),
        (100, 400, 320, (160, 640)),
    ],
)
def test_published_resize(
    height: int, width: int, size: int | None, wanted: tuple[int, int], tmp_path, convert_folder
):
    detector = load_detector(convert_folder(write_folder(random_detr("detr"), tmp_path / "m")))
    assert detector.resized(height, width, size) == wanted


@pytest.mark.slow
def test_archives_folders_and_shards_are_one_checkpoint(tmp_path, convert_folder) -> None:
    folder = write_folder(random_detr("detr"), tmp_path / "model")
    tar = tmp_path / "model.tar.gz"
    with tarfile.open(tar, "w:gz") as archive:
        archive.add(folder, "model")
    direct = convert(folder, tmp_path / "direct")
    assert direct.architecture == "transformers/detr"
    assert (
        json.loads((convert_folder(tar) / "manifest.json").read_text())["weights_sha256"]
        == direct.weights_sha256
    )

    whole = folder / "model.safetensors"
    from safetensors.torch import load_file

    tensors = load_file(whole)
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, keys in parts.items():
        save_file({k: tensors[k] for k in keys}, folder / part)
    whole.unlink()
    weight_map = {k: part for part, keys in parts.items() for k in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert (
        json.loads((convert_folder(folder) / "manifest.json").read_text())["weights_sha256"]
        == direct.weights_sha256
    )


def changed_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_refusals_say_what_is_wrong(tmp_path, convert_folder) -> None:
    folder = write_folder(random_detr("detr"), tmp_path / "model")

    def refusal(match: str, **changes: object) -> Unusable:
        original = (folder / "config.json").read_text()
        changed_config(folder, **changes)
        try:
            with pytest.raises(Unusable, match=match) as caught:
                convert_folder(folder)
        finally:
            (folder / "config.json").write_text(original)
        return caught.value

    assert refusal("object detectors that are read", model_type="bert").code == "unknown_architecture"
    assert refusal("missing", encoder_layers=3).code == "missing_keys"
    assert refusal("no place", decoder_layers=1).code == "unmapped_keys"
    assert refusal("another shape", num_queries=7).code == "shape_mismatch"
    assert refusal("d_model", d_model="wide").code == "bad_config"
    timm = {
        "model_type": "timm_backbone",
        "backbone": "hf-hub:someone/model",
        "out_indices": [4],
        "features_only": True,
    }
    assert refusal("no model of timm", backbone_config=timm).code == "bad_config"

    (folder / "model.safetensors").unlink()
    with pytest.raises(Unusable, match="save_pretrained"):
        convert_folder(folder)
    bare = tmp_path / "bare.tar.gz"
    with tarfile.open(bare, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO(b""))
    with pytest.raises(Unusable, match=r"config\.json"):
        convert_folder(bare)


def test_no_code_of_a_folder_is_ever_run(tmp_path, convert_folder) -> None:
    folder = write_folder(random_detr("detr"), tmp_path / "model")
    (folder / "modeling_mine.py").write_text("raise SystemExit('ran')")
    changed_config(folder, auto_map={"AutoModelForObjectDetection": "modeling_mine.Mine"})
    detector = load_detector(convert_folder(folder))
    assert type(detector.module).__module__.startswith("transformers.")
    assert "auto_map" not in json.dumps(detector.manifest.to_json())
