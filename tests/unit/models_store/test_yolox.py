"""YOLOX: files under the published names, held against a plain reconstruction that reads them by name."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from models_store import Unusable, load_detector
from models_store.archs.yolox import Yolox, points_of
from models_store.build import COUNTER
from models_store.manifest import Input
from models_store.save import save_detector
from models_store.trainable import parts
from models_store.yolox.losses import Points, assign
from models_store.yolox.network import Sizes
from tests.unit.models_store.family_table import furthest, measured

SIZES = {
    "plain": Sizes(base=8, blocks=(1, 2, 2, 1), neck_blocks=1, head=16),
    "depthwise": Sizes(base=8, blocks=(1, 1, 1, 1), neck_blocks=1, head=16, depthwise=True),
}
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
TARGET = {
    "boxes": torch.tensor([[10.0, 10.0, 70.0, 60.0], [60.0, 20.0, 110.0, 80.0]]),
    "labels": torch.tensor([0, 2]),
}
SEEN = {"min_size": 96, "max_size": 128}


def weights(kind: str, classes: int = 3) -> dict[str, Tensor]:
    """As the published code would save them: first convolutions for blue, green, red."""
    torch.manual_seed(0)
    state = Yolox(SIZES[kind], classes, Input()).state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.add_(torch.empty_like(tensor).normal_(0, 0.05))
    return state


class Plain:
    """The paper's figure 2 and the published names, by functions alone."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def base(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        if f"{key}.dconv.conv.weight" in self.state:
            return self.base(self.base(x, f"{key}.dconv", stride), f"{key}.pconv")
        weight = self.state[f"{key}.conv.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)
        norm = (self.state[f"{key}.bn.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *norm, eps=1e-3)
        return x * x.sigmoid()

    def csp(self, x: Tensor, key: str, shortcut: bool) -> Tensor:
        y, index = self.base(x, f"{key}.conv1"), 0
        while f"{key}.m.{index}.conv1.conv.weight" in self.state:
            inner = self.base(self.base(y, f"{key}.m.{index}.conv1"), f"{key}.m.{index}.conv2")
            y, index = (y + inner if shortcut else inner), index + 1
        return self.base(torch.cat([y, self.base(x, f"{key}.conv2")], 1), f"{key}.conv3")

    def maps(self, x: Tensor) -> list[Tensor]:
        body = "backbone.backbone."
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], dim=1)
        x, seen = self.base(x, body + "stem.conv"), []
        for k in (2, 3, 4, 5):
            x = self.base(x, f"{body}dark{k}.0", 2)
            if k == 5:
                y = self.base(x, f"{body}dark5.1.conv1")
                pooled = [F.max_pool2d(y, s, 1, s // 2) for s in (5, 9, 13)]
                x = self.base(torch.cat([y, *pooled], 1), f"{body}dark5.1.conv2")
            x = self.csp(x, f"{body}dark{k}.{2 if k == 5 else 1}", k != 5)
            seen.append(x)
        _, c3, c4, c5 = seen
        top = self.base(c5, "backbone.lateral_conv0")
        middle = self.csp(torch.cat([F.interpolate(top, scale_factor=2), c4], 1), "backbone.C3_p4", False)
        middle = self.base(middle, "backbone.reduce_conv1")
        p3 = self.csp(torch.cat([F.interpolate(middle, scale_factor=2), c3], 1), "backbone.C3_p3", False)
        p4 = self.csp(torch.cat([self.base(p3, "backbone.bu_conv2", 2), middle], 1), "backbone.C3_n3", False)
        p5 = self.csp(torch.cat([self.base(p4, "backbone.bu_conv1", 2), top], 1), "backbone.C3_n4", False)
        return [p3, p4, p5]

    def outputs(self, x: Tensor) -> Tensor:
        """(A, 5 + C): cx, cy, w, h in pixels, objectness and class scores."""
        rows = []
        for level, x_level in enumerate(self.maps(x)):
            stem = self.base(x_level, f"head.stems.{level}")
            branches = {}
            for name in ("cls", "reg"):
                y = stem
                for index in (0, 1):
                    y = self.base(y, f"head.{name}_convs.{level}.{index}")
                branches[name] = y
            found = []
            for name, branch in (("reg", "reg"), ("obj", "reg"), ("cls", "cls")):
                key = f"head.{name}_preds.{level}"
                found.append(
                    F.conv2d(branches[branch], self.state[key + ".weight"], self.state[key + ".bias"])
                )
            stride = 8 * 2**level
            for row in range(x_level.shape[-2]):
                for column in range(x_level.shape[-1]):
                    box, thing, classes = (f[0, :, row, column] for f in found)
                    centre = (box[:2] + torch.tensor([column, row])) * stride
                    rows.append(
                        torch.cat([centre, box[2:].exp() * stride, thing.sigmoid(), classes.sigmoid()])
                    )
        return torch.stack(rows)


def original_input(height: int, width: int) -> Tensor:
    """Blue first, in 0 to 255, grey below and to the right."""
    x = torch.from_numpy(IMAGE[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size=(96, 128), mode="bilinear", align_corners=False)
    return F.pad(x, (0, width - 128, 0, height - 96), value=114.0)


@pytest.fixture(params=SIZES)
def converted(request, convert_inline, tmp_path):
    state = weights(request.param)
    torch.save({"model": state, "start_epoch": 3, "optimizer": {"state": {}}}, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN)
    return state, manifest, tmp_path / "converted"


@torch.no_grad()
def test_maps_and_predictions_are_those_of_the_plain_reconstruction(converted):
    state, manifest, folder = converted
    assert (manifest.architecture, manifest.format, manifest.num_classes) == ("detrank/yolox", "yolox", 3)
    assert manifest.source["channel_order"] == "bgr"
    assert "channel_order, mean, std" in manifest.warnings[0]
    assert not manifest.has_background
    detector, plain = load_detector(folder), Plain(state)
    pixels = detector.prepare([IMAGE])
    assert pixels.shape == (1, 3, 96, 128)
    expected = plain.maps(original_input(96, 128))
    ours = detector.feature_maps(pixels, ["neck.p3", "neck.p4", "neck.p5"])
    for found, wanted in zip(ours.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    largest = max(furthest(found, wanted) for found, wanted in zip(ours.values(), expected, strict=True))
    rows = plain.outputs(original_input(96, 128))
    scores, labels = (rows[:, 5:] * rows[:, 4:5]).max(1)
    corners = torch.cat([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
    kept = torch.nonzero(scores >= 0.01).flatten()
    kept = kept[batched_nms(corners[kept], scores[kept], labels[kept], 0.65)][:100]
    found = detector.predictions([IMAGE])[0]
    torch.testing.assert_close(found["scores"], scores[kept], rtol=1e-4, atol=1e-5)
    limits = torch.tensor([128, 96, 128, 96])
    wanted = corners[kept].clamp(min=0).minimum(limits) * torch.tensor([120 / 128, 90 / 96] * 2)
    measured(
        "YOLOX (arXiv 2107.08430)",
        "published file" + (", depthwise (nano)" if any("dconv" in key for key in state) else ""),
        "a plain reconstruction by the published names",
        maps=largest,
        scores=furthest(found["scores"], scores[kept]),
    )
    # Nearly equal scores may change places, and with them what the next box is suppressed by.
    distance = torch.cdist(found["boxes"], wanted) + 1e3 * (found["labels"][:, None] != labels[kept])
    assert len(kept) > 20
    assert int((distance.min(1).values < 0.5).sum()) >= len(kept) - 2


def test_exchanged_branches_would_be_noticed(convert_inline, tmp_path):
    state = weights("plain")
    a, b = ("head.cls_convs.0.0.bn.weight", "head.reg_convs.0.0.bn.weight")
    torch.save(state | {a: state[b], b: state[a]}, tmp_path / "x.pth")
    convert_inline(tmp_path / "x.pth", overrides=SEEN)
    with torch.no_grad():
        right = Plain(state).outputs(original_input(96, 128))
        wrong = Plain(load_detector(tmp_path / "converted").module.state_dict()).outputs(
            original_input(96, 128)
        )
    assert float((right - wrong).abs().max()) > 1e-3


def test_layers_source_classes_and_parts(converted):
    _, _, folder = converted
    detector = load_detector(folder)
    names = [layer.name for layer in detector.layers]
    assert names == [*(f"backbone.c{k}" for k in range(1, 6)), "neck.p3", "neck.p4", "neck.p5", "neck.roi"]
    pixels = detector.prepare([IMAGE])
    boxes = [torch.tensor([[8.0, 8.0, 64.0, 64.0], [30.0, 10.0, 90.0, 70.0]])]
    maps = detector.feature_maps(pixels, detector.source_maps())
    found = detector.source_probabilities(maps, boxes, (96, 128))
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    roi = detector.object_features(detector.feature_maps(pixels, ["neck.p4"]), boxes, (96, 128), "neck.roi")
    assert roi.shape == (2, 64)
    which = parts(detector)
    assert which["backbone.C3_p4.conv1.conv.weight"] == "neck"
    assert (
        which[
            "backbone.backbone.dark5.0."
            + ("dconv." if "backbone.backbone.dark2.0.dconv.conv.weight" in which else "")
            + "conv.weight"
        ]
        == "body"
    )
    assert which["backbone.backbone.stem.conv.conv.weight"] == "stem"
    assert which["head.cls_preds.0.weight"] == "head"


def test_fine_tuning_lowers_the_loss_and_is_saved(converted, tmp_path):
    _, _, folder = converted
    detector = load_detector(folder)
    detector.replace_head(3, seed=0)
    trained = [p.requires_grad_() for n, p in detector.module.named_parameters() if n.startswith("head.")]
    optimiser = torch.optim.Adam(trained, lr=1e-2)
    seen = []
    for _ in range(25):
        optimiser.zero_grad()
        losses = detector.losses(
            [IMAGE, IMAGE[:, ::-1].copy()], [TARGET, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}]
        )
        assert set(losses) == {"loss_box", "loss_objectness", "loss_classification"}
        total = sum(losses.values())
        total.backward()
        optimiser.step()
        seen.append(float(total))
    assert seen[-1] < 0.6 * seen[0]
    detector.module.requires_grad_(False)
    save_detector(detector, tmp_path / "saved", class_names=("a", "b", "c"), lineage={})
    again = load_detector(tmp_path / "saved")
    torch.testing.assert_close(
        again.predictions([IMAGE])[0]["scores"], detector.predictions([IMAGE])[0]["scores"]
    )


def test_points_go_to_the_object_that_they_fit():
    """Two objects side by side, predictions that are right for the points inside them."""
    maps = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)]
    points = points_of(maps)
    wanted = torch.tensor([[0.0, 0.0, 30.0, 60.0], [32.0, 0.0, 62.0, 60.0]])
    right = points.centres[:, 0] > 31
    boxes = wanted[right.long()]
    logits = torch.where(right[:, None], torch.tensor([-4.0, 4.0]), torch.tensor([4.0, -4.0]))
    chosen, whose, overlap = assign(
        boxes, torch.full((len(boxes),), 3.0), logits, points, wanted, torch.tensor([0, 1])
    )
    assert torch.equal(whose, right[chosen].long())
    # Ten candidates with IoU 1 each: as many points.
    assert [(whose == k).sum().item() for k in (0, 1)] == [10, 10]
    torch.testing.assert_close(overlap, torch.ones(20))
    far = Points(points.centres + 1000, points.strides)
    assert len(assign(boxes, logits[:, 0], logits, far, wanted, torch.tensor([0, 1]))[0]) == 0


def test_what_is_not_read_says_so(convert_inline, tmp_path):
    state = weights("plain")
    torch.save({k: v for k, v in state.items() if "C3_n4.conv3" not in k}, tmp_path / "x.pth")
    with pytest.raises(Unusable, match="missing") as refusal:
        convert_inline(tmp_path / "x.pth")
    assert {e["key"].rsplit(".", 2)[0] for e in refusal.value.errors} == {"backbone.C3_n4.conv3"}
    darknet = {
        "backbone.backbone.stem.0.conv.weight": torch.zeros(2),
        "head.cls_preds.0.weight": torch.zeros(2),
    }
    torch.save(darknet, tmp_path / "y.pth")
    with pytest.raises(Unusable, match="Darknet-53"):
        convert_inline(tmp_path / "y.pth")


def test_the_first_weights_of_2021_can_be_said(convert_inline, tmp_path):
    state = weights("plain")
    torch.save(state, tmp_path / "x.pth")
    said = {
        "channel_order": "rgb",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "options": {"activation": "silu"},
    }
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN | said)
    assert manifest.warnings == ()
    detector = load_detector(tmp_path / "converted")
    pixels = detector.prepare([IMAGE])
    with torch.no_grad():
        expected = Plain(state).maps(pixels)[1]
    torch.testing.assert_close(
        detector.feature_maps(pixels, ["neck.p4"])["neck.p4"], expected, rtol=1e-4, atol=1e-4
    )
    assert not any(k.endswith(COUNTER) for k in manifest.dropped_keys)
