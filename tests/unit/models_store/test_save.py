"""A trained detector saved: loaded again it is the same, and torchvision or transformers alone make the same of it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detr_configs import CONFIGS, family_of, random_detr
from torchvision.ops import FrozenBatchNorm2d

from models_store.archs import ARCHITECTURES
from models_store.build import layers_of
from models_store.detector import Detector, TorchvisionDetector, load_detector
from models_store.detr.detector import DetrDetector
from models_store.detr.families import architecture_name
from models_store.detr.maps import Maps
from models_store.detr.sine import CentredSine
from models_store.errors import Unusable
from models_store.manifest import WEIGHTS_FILE, Manifest
from models_store.plain import plain_state_dict, plain_use, to_plain_folder
from models_store.save import FORMAT, save_detector
from tests.unit.models_store.conftest import backbone_for, random_module

NAMES = ("bolt", "nut")
LINEAGE = {"dataset": {"digest": "d" * 64}, "recipe": "test", "seed": 3, "map": {"val": 0.25, "test": None}}
SIZES = {"rf_detr": (64, 64)}
FEW = {"training": 20, "testing": 20}  # proposals: the heads are the cost
IMAGE = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)
LIGHT = (
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn",
    "torchvision/ssdlite320_mobilenet_v3_large",
    "detrank/fasterrcnn_fpn",
    "detrank/fasterrcnn_fpn_v2",
    "detrank/maskrcnn_fpn",
    "detrank/retinanet",
)
HEAVY = ("torchvision/fasterrcnn_resnet50_fpn", "torchvision/fcos_resnet50_fpn")
OURS_ALONE = ("detrank/maskrcnn_c4", "detrank/ssdlite_mobilenet_v2")

# What a user does: the files in one folder, its use.py, none of our packages.
PLAIN = """
import sys
for ours in ("app", "worker", "models_store"):
    sys.modules[ours] = None
import json, os, torch
torch.set_num_threads(1)
image = torch.load(sys.argv[1])
for number, folder in enumerate(sys.argv[2:]):
    os.chdir(folder)
    space = {}
    exec(open("use.py").read(), space)
    with torch.no_grad():
        if "processor" in space:
            found = space["model"](pixel_values=image["pixels"][number])
            found = {"logits": found.logits, "boxes": found.pred_boxes}
            made = space["processor"](images=image["picture"], return_tensors="pt")["pixel_values"]
            found |= {"size": torch.tensor(made.shape), "prepared": made}
        else:
            if hasattr(space["model"], "rpn"):
                space["model"].rpn._post_nms_top_n = {"training": 20, "testing": 20}
            found = space["model"]([image["image"]])[0]
    torch.save(found, "found.pt")
"""


def run_plain(tmp_path: Path, folders: list[Path], image: dict | None = None) -> list[dict]:
    """What the code of each folder finds in the image, in a process where none of our packages can be imported."""
    image = image or {"image": torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0}
    torch.save(image, tmp_path / "image.pt")
    (tmp_path / "plain.py").write_text(PLAIN)
    command = [
        sys.executable,
        "-I",
        str(tmp_path / "plain.py"),
        str(tmp_path / "image.pt"),
        *map(str, folders),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / "found.pt") for folder in folders]


def trained(name: str, backbone: str | None = None, **options: object) -> Detector:
    """As after training: random weights everywhere, a head for two classes."""
    architecture = ARCHITECTURES[name]
    backbone = backbone or backbone_for(name)
    module = random_module(name, backbone=backbone)
    if options.get("norm"):
        from models_store.build import build_module

        module = build_module(
            architecture, num_classes=3, input=architecture.input, backbone=backbone, options=options
        )
    spec = architecture.input
    if spec.fixed_size is None:
        spec = replace(spec, min_size=64, max_size=128, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
        module.transform.min_size, module.transform.max_size = (64,), 128
        module.transform.image_mean, module.transform.image_std = list(spec.mean), list(spec.std)
    face = architecture.face(module)
    fresh = tuple(k for k in module.state_dict() if k.startswith(("rpn.", "roi_heads.", "head.")))
    manifest = Manifest(
        architecture=name,
        format="pycontrast",
        kind="backbone" if backbone else "detector",
        input=spec,
        layers=layers_of(face, fresh),
        parameters=1,
        source={"uri": "parent"},
        weights_sha256="a" * 64,
        num_classes=3,
        backbone=backbone,
        initialised_keys=fresh,
        options=options,
        published={"coco_box_map": 40.0},
        licence="BSD-3-Clause",
        notes=("its heads are untrained",),
    )
    detector = TorchvisionDetector(manifest, module, face)
    detector.replace_head(len(NAMES), seed=7)
    # Otherwise a random network keeps none of its boxes.
    with torch.no_grad():
        if hasattr(module, "roi_heads"):
            module.rpn._post_nms_top_n = FEW
            module.roi_heads.box_predictor.cls_score.weight.mul_(20)
        elif hasattr(module.head.classification_head, "cls_logits"):
            module.head.classification_head.cls_logits.weight.mul_(20)
            module.head.classification_head.cls_logits.bias.fill_(0.5)
    return detector


def loaded_from(folder: Path) -> Detector:
    detector = load_detector(folder)
    if hasattr(detector.module, "rpn"):
        detector.module.rpn._post_nms_top_n = FEW
    return detector


def same(found: dict, wanted: dict, offset: int = 0, tolerance: float = 1e-5) -> None:
    assert len(wanted["scores"]), "a comparison of nothing"
    # torchvision's one-stage heads may name the output that is reserved; ours leave it out
    found = {key: values[found["labels"] >= offset] for key, values in found.items()}
    for key in ("boxes", "scores"):
        torch.testing.assert_close(found[key], wanted[key], atol=tolerance, rtol=tolerance)
    assert torch.equal(found["labels"] - offset, wanted["labels"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (folder, its predictions before saving), each made once."""
    made: dict[str, tuple[Path, dict]] = {}

    def make(name: str) -> tuple[Path, dict]:
        if name not in made:
            folder = tmp_path_factory.mktemp("saved")
            detector = trained(name)
            save_detector(detector, folder, class_names=NAMES, lineage=LINEAGE)
            made[name] = folder, detector.predictions([IMAGE])[0]
        return made[name]

    return make


@pytest.mark.parametrize("name", [*LIGHT, *OURS_ALONE])
def test_what_was_saved_loads_and_is_the_same(name: str, saved) -> None:
    folder, wanted = saved(name)
    loaded = loaded_from(folder)
    same(loaded.predictions([IMAGE])[0], wanted, tolerance=0)
    manifest = loaded.manifest
    assert manifest.class_names == NAMES
    assert (manifest.kind, manifest.format, manifest.num_classes) == ("detector", FORMAT, 2)
    assert manifest.initialised_keys == ()
    assert all(layer.trained for layer in manifest.layers)
    assert manifest.published == {"trained_parameters": manifest.parameters}
    assert manifest.notes == ()
    assert manifest.licence == "BSD-3-Clause"
    assert manifest.provenance["recipe"] == "test"
    assert manifest.provenance["parent"]["weights_sha256"] == "a" * 64
    assert manifest.provenance["parent"]["published"] == {"coco_box_map": 40.0}
    json.dumps(manifest.to_json(), allow_nan=False)


def test_torchvision_alone_makes_the_same_detector(tmp_path: Path, saved) -> None:
    folders = []
    for name in LIGHT:
        folder, _ = saved(name)
        folders.append(tmp_path / name.replace("/", "_"))
        use = to_plain_folder(folder, folders[-1])
        assert (use.library, use.files) == ("torchvision", (WEIGHTS_FILE,))
        assert "detrank" not in use.code
    for name, found in zip(LIGHT, run_plain(tmp_path, folders), strict=True):
        same(found, saved(name)[1], offset=1)


def test_the_saved_file_itself_loads_strictly_into_torchvisions_builder(saved) -> None:
    from safetensors.torch import load_file
    from torchvision.models import detection

    folder, _ = saved(LIGHT[0])
    module = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    module.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_builders_with_a_resnet50(name: str, tmp_path: Path) -> None:
    detector = trained(name)
    save_detector(detector, tmp_path / "saved", class_names=NAMES, lineage={})
    wanted = detector.predictions([IMAGE])[0]
    same(loaded_from(tmp_path / "saved").predictions([IMAGE])[0], wanted, tolerance=0)
    to_plain_folder(tmp_path / "saved", tmp_path / "plain")
    same(run_plain(tmp_path, [tmp_path / "plain"])[0], wanted, offset=1)


BODIES = ("resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "regnet_y_400mf")


@pytest.mark.slow
def test_other_backbones_in_a_pyramid(tmp_path: Path) -> None:
    """One backbone for each way of being put together, and timm's."""
    wanted, folders = [], []
    for index, backbone in enumerate(
        (*(f"torchvision/{name}" for name in BODIES), "timm/tf_efficientnet_lite0")
    ):
        detector = trained("detrank/retinanet" if index % 2 else "detrank/fasterrcnn_fpn", backbone)
        save_detector(detector, tmp_path / f"saved{index}", class_names=NAMES, lineage={})
        wanted.append(detector.predictions([IMAGE])[0])
        folders.append(tmp_path / f"plain{index}")
        to_plain_folder(tmp_path / f"saved{index}", folders[-1])
    for found, before in zip(run_plain(tmp_path, folders), wanted, strict=True):
        same(found, before, offset=1)


@pytest.mark.parametrize(
    "norm", ["gn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("frozen", "syncbn"))]
)
def test_norms_of_a_placed_detector(norm: str, tmp_path: Path) -> None:
    detector = trained("detrank/maskrcnn_fpn", "torchvision/resnet18", norm=norm)
    save_detector(detector, tmp_path / "saved", class_names=NAMES, lineage={})
    wanted = detector.predictions([IMAGE])[0]
    same(loaded_from(tmp_path / "saved").predictions([IMAGE])[0], wanted, tolerance=0)
    use = to_plain_folder(tmp_path / "saved", tmp_path / "plain")
    space: dict = {}
    exec(use.code.replace("'weights.safetensors'", repr(str(tmp_path / "plain" / WEIGHTS_FILE))), space)
    space["model"].rpn._post_nms_top_n = FEW
    with torch.no_grad():
        same(space["model"]([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0])[0], wanted, offset=1)


@pytest.mark.parametrize("name", OURS_ALONE)
def test_what_torchvision_has_no_parts_for_says_so(name: str, saved) -> None:
    with pytest.raises(Unusable) as refusal:
        plain_use(Manifest.read(saved(name)[0]))
    assert refusal.value.code == "unsuitable"
    assert "load_detector" in refusal.value.detail


def test_an_untrained_head_is_no_detector_for_others(saved) -> None:
    manifest = trained("detrank/fasterrcnn_fpn").manifest
    with pytest.raises(Unusable, match="never trained"):
        plain_use(manifest)


def test_another_epsilon_of_frozen_norms_goes_into_their_scales(tmp_path: Path) -> None:
    name = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"
    detector = trained(name, frozen_norm=True, frozen_bn_eps=0.0)
    from models_store.archs.common import freeze_norms

    freeze_norms(detector.module.backbone.body, 0.0)
    norms = [m for m in detector.module.modules() if isinstance(m, FrozenBatchNorm2d)]
    for norm in norms:
        norm.running_var.uniform_(0, 1e-4, generator=torch.Generator().manual_seed(1))
        norm.weight.mul_(1e-3)
    wanted = detector.predictions([IMAGE])[0]
    manifest = save_detector(detector, tmp_path / "saved", class_names=NAMES, lineage={})
    assert norms
    assert "frozen_bn_eps" not in manifest.options
    assert manifest.options["frozen_norm"]
    same(loaded_from(tmp_path / "saved").predictions([IMAGE])[0], wanted, tolerance=1e-3)
    # A checkpoint that was only converted keeps its epsilon; what is handed out has the usual one.
    exact = {k: v for k, v in detector.module.state_dict().items() if not k.endswith("num_batches_tracked")}
    from safetensors.torch import save_file

    kept = tmp_path / "converted"
    kept.mkdir()
    save_file(exact, kept / WEIGHTS_FILE)
    from models_store.load import digest_of

    fields = {
        "weights_sha256": digest_of(kept / WEIGHTS_FILE),
        "options": {"frozen_norm": True, "frozen_bn_eps": 0.0},
    }
    manifest.but(**fields).write(kept)
    folded = plain_state_dict(tmp_path / "saved")
    for key, tensor in plain_state_dict(kept).items():
        torch.testing.assert_close(tensor, folded[key])
    moved = next(k for k in exact if k.startswith("backbone.body.") and k.endswith("0.1.weight"))
    assert not torch.equal(exact[moved], folded[moved])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("detrank/fasterrcnn_fpn", 96),
        ("detrank/fasterrcnn_fpn", (80, 100)),
        ("torchvision/ssdlite320_mobilenet_v3_large", 192),
    ],
)
def test_the_size_it_was_trained_at_becomes_its_own(name: str, size, tmp_path: Path) -> None:
    detector = trained(name)
    wanted = detector.predictions([IMAGE], image_size=size)[0]
    assert not torch.equal(wanted["boxes"], detector.predictions([IMAGE])[0]["boxes"])
    save_detector(detector, tmp_path / "saved", class_names=NAMES, lineage={}, image_size=size)
    same(loaded_from(tmp_path / "saved").predictions([IMAGE])[0], wanted, tolerance=0)
    use = to_plain_folder(tmp_path / "saved", tmp_path / "plain")
    space: dict = {}
    exec(use.code.replace("'weights.safetensors'", repr(str(tmp_path / "plain" / WEIGHTS_FILE))), space)
    if hasattr(space["model"], "rpn"):
        space["model"].rpn._post_nms_top_n = FEW
    with torch.no_grad():
        same(space["model"]([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0])[0], wanted, offset=1)


def test_a_detrs_size_may_have_to_be_whole_patches(tmp_path: Path) -> None:
    detector = trained_detr("rf_detr")
    save_detector(detector, tmp_path / "a", class_names=NAMES, lineage={}, image_size=75)
    assert load_detector(tmp_path / "a").resized(60, 90, None) == detector.resized(60, 90, 75)


def test_refusals(tmp_path: Path) -> None:
    detector = trained("detrank/fasterrcnn_fpn")
    with pytest.raises(Unusable, match="2 classes"):
        save_detector(detector, tmp_path / "a", class_names=("one",), lineage={})
    with torch.no_grad():
        detector.module.roi_heads.box_predictor.bbox_pred.bias[0] = float("nan")
    with pytest.raises(Unusable) as refusal:
        save_detector(detector, tmp_path / "a", class_names=NAMES, lineage={})
    assert refusal.value.code == "not_finite"
    assert not (tmp_path / "a").exists()


def trained_detr(name: str, centred: bool = False) -> DetrDetector:
    family = family_of(name)
    module = random_detr(name)
    options: dict = {"config": module.config.to_dict()}
    if name == "deformable_detr":
        options["shared_heads"] = False
    architecture = ARCHITECTURES[architecture_name(family.model_type)]
    from models_store.build import build_module

    if centred:
        options["centred_sine"] = True
    ours = build_module(architecture, num_classes=3, input=architecture.input, backbone=None, options=options)
    ours.load_state_dict(module.state_dict())
    spec = replace(architecture.input, min_size=64, max_size=128)
    if spec.fixed_size is not None:
        spec = replace(spec, fixed_size=(64, 64))
    layers = Maps(ours, family).layers(torch.full((1, 3, *SIZES.get(name, (64, 96))), 0.1), trained=False)
    manifest = Manifest(
        architecture=architecture.name,
        format="transformers",
        kind="detector",
        input=spec,
        layers=layers,
        parameters=1,
        source={},
        weights_sha256="b" * 64,
        num_classes=3,
        has_background=False,
        options=options,
    )
    detector = DetrDetector(manifest, ours, family)
    detector.replace_head(len(NAMES), seed=7)
    return detector


QUICK = (("detr", False), ("deformable_detr", False), ("table-transformer", True))
REST = (*((name, False) for name in CONFIGS if name not in ("detr", "deformable_detr")), ("detr", True))


@pytest.mark.parametrize("cases", [QUICK, pytest.param(REST, marks=pytest.mark.slow)], ids=["quick", "rest"])
def test_transformers_alone_makes_the_same_detector(cases, tmp_path: Path) -> None:
    pixels = [torch.rand(1, 3, *SIZES.get(name, (64, 96))) for name, _ in cases]
    folders, wanted, prepared = [], [], []
    for index, (name, centred) in enumerate(cases):
        detector = trained_detr(name, centred)
        assert centred == any(isinstance(part, CentredSine) for part in detector.module.modules())
        save_detector(detector, tmp_path / f"saved{index}", class_names=NAMES, lineage=LINEAGE)
        folders.append(tmp_path / f"plain{index}")
        use = to_plain_folder(tmp_path / f"saved{index}", folders[-1])
        assert use.library == "transformers"
        loaded = load_detector(tmp_path / f"saved{index}")
        with torch.no_grad():
            before, after = (m(pixel_values=pixels[index]) for m in (detector.module, loaded.module))
        assert torch.equal(before.logits, after.logits)
        assert torch.equal(before.pred_boxes, after.pred_boxes)
        assert all(layer.trained for layer in loaded.manifest.layers)
        wanted.append(before)
        prepared.append(loaded.prepare([IMAGE]))
    given = {"pixels": pixels, "picture": torch.from_numpy(IMAGE).permute(2, 0, 1)}
    for found, before, ours, (name, _) in zip(
        run_plain(tmp_path, folders, given), wanted, prepared, cases, strict=True
    ):
        torch.testing.assert_close(found["logits"], before.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found["boxes"], before.pred_boxes, atol=1e-5, rtol=1e-5)
        assert found["prepared"].shape == ours.shape, name
        # Theirs rounds to whole grey levels, and RF-DETR's is the one that does not smooth before it shrinks.
        assert name == "rf_detr" or (found["prepared"] - ours).abs().max() < 0.05, name
