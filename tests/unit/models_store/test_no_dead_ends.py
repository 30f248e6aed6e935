"""Every refusal names a next step, and following it works or is the final word."""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import FasterRCNN

import models_store
from models_store import Unusable, formats
from models_store.errors import A_STEP, NEXT
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.test_assembled import resnet
from tests.unit.models_store.test_unknowable import body_of

State = dict[str, Any]
SOURCES = Path(models_store.__file__).parent


def words_of(node: ast.expr) -> str:
    """A literal's words, of which what is filled in is left out."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(value) for value in node.values if isinstance(value, ast.Constant))
    if isinstance(node, ast.BinOp):
        return words_of(node.left) + words_of(node.right)
    return ""


def refusals() -> list[tuple[str, str, str]]:
    """(place, code, words) of each refusal that is written out in the sources."""
    found = []
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "Unusable"
                and len(node.args) > 1
            ):
                code, detail = words_of(node.args[0]), words_of(node.args[1])
                if code and detail:
                    found.append((f"{file.name}:{node.lineno}", code, detail))
    return found


def test_every_refusal_has_a_next_step():
    assert len(refusals()) > 100
    left = [place for place, code, words in refusals() if not A_STEP.search(words) and code not in NEXT]
    assert left == []
    assert Unusable("corrupt", "the file is odd").detail.endswith("or send it again")
    assert Unusable("corrupt", "odd: send it whole").detail == "odd: send it whole"


@dataclass(frozen=True)
class Case:
    """``make``: the file. ``says``: of its refusal. ``follow``: the file and the request as the advice has them; None for
    the final word: then nothing more can be done with this file."""

    make: Callable[[], State]
    says: str
    follow: Callable[[State], tuple[State, dict[str, Any]]] | None = None
    asked: dict[str, Any] = field(default_factory=dict)


def classifier() -> State:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


def detector() -> State:
    torch.manual_seed(0)
    return FasterRCNN(resnet(), 4).state_dict()


def without(state: State, part: str) -> State:
    return {key: value for key, value in state.items() if part not in key}


def asked(**request: Any) -> Callable[[State], tuple[State, dict[str, Any]]]:
    return lambda state: (state, request)


def instead(make: Callable[[], State]) -> Callable[[State], tuple[State, dict[str, Any]]]:
    return lambda state: (make(), {})


def changed_heads() -> State:
    return detector() | {"roi_heads.box_head.fc7.weight": torch.zeros(1024, 512)}


def own_detr() -> State:
    body = {f"backbone.0.body.{k}": v for k, v in body_of(torchvision.models.resnet18(weights=None)).items()}
    return body | {"transformer.decoder.mine.weight": torch.zeros(3, 3)}


def lora() -> State:
    return {"base_model.model.x.lora_A.weight": torch.zeros(2, 2)} | classifier()


def many_anchors() -> State:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    return FasterRCNN(
        resnet(), 4, rpn_anchor_generator=AnchorGenerator(((8, 16),) * 5, ((1.0, 2.0),) * 5)
    ).state_dict()


ANCHORS = {"sizes": [[8, 16]] * 5, "aspect_ratios": [1.0, 2.0]}
CASES = {
    "a classifier without one tensor": Case(
        lambda: without(classifier(), "features.3.squeeze.bias"),
        "send the whole state dict",
        instead(classifier),
    ),
    "a classifier under the wrong name": Case(
        classifier, "missing", asked(), {"hint": "torchvision/resnet18"}
    ),
    "a twin of other pixels": Case(
        lambda: timm.create_model("efficientnet_lite0").state_dict(),
        "give architecture=",
        asked(hint="timm/tf_efficientnet_lite0"),
    ),
    "a detector with other heads": Case(changed_heads, "take=body", asked(take="body")),
    "a detector of one's own": Case(own_detr, "take=body|not read|architecture", asked(take="body")),
    "unusual anchors": Case(many_anchors, "give options anchors", asked(options={"anchors": ANCHORS})),
    "the wrong architecture": Case(
        detector, "leave architecture out", asked(), {"hint": "torchvision/retinanet_resnet50_fpn"}
    ),
    "an average that is not there": Case(
        lambda: {"model": classifier(), "net": classifier()},
        "leave options weights out",
        asked(),
        {"weights": "ema"},
    ),
    "LoRA": Case(lora, "merge_and_unload", instead(classifier)),
    "CMC": Case(
        lambda: {"encoder1.x": torch.zeros(1), "encoder2.x": torch.zeros(1)}, "send a file of another method"
    ),
    "transformers without its folder": Case(
        lambda: {"model.decoder.layers.0.fc1.weight": torch.zeros(1)}, "send the whole folder"
    ),
    "nothing anybody knows": Case(lambda: {"x.weight": torch.zeros(3, 3)}, "other networks are not read"),
    "YOLOX over Darknet": Case(
        lambda: {"backbone.backbone.stem.0.x": torch.zeros(1), "head.cls_preds.0.weight": torch.zeros(1)},
        "send YOLOX nano",
    ),
    "an optimizer alone": Case(
        lambda: {"optimizer": {"state": {}}, "epoch": 1}, "torch.save\\(model.state_dict", instead(classifier)
    ),
}


def read(state: State, request: dict[str, Any]) -> formats.Recognised:
    found = formats.recognise(
        unwrap(state, ordered=True, weights=request.get("weights")),
        request.get("hint"),
        request.get("backbone"),
        take=request.get("take"),
    )
    for option, why in found.open_options.items():
        if option not in request.get("options", {}):
            raise Unusable("ambiguous", why)
    if found.open_input:
        raise Unusable("ambiguous", found.open_input)
    return found


@pytest.mark.parametrize("name", CASES)
def test_following_a_refusal_works_or_is_the_final_word(name):
    case = CASES[name]
    state = case.make()
    with pytest.raises(Unusable, match=case.says) as refusal:
        read(state, case.asked)
    if case.follow is not None:
        assert read(*case.follow(state)).tensors
        return
    # Nothing is promised of this file: no option, no architecture to give.
    assert "options" not in refusal.value.detail or "where it is one of theirs" in refusal.value.detail


def test_no_wrong_neighbour_is_blamed():
    """A file that lacks something is held against its own network, and not against the one of the same heads."""
    with pytest.raises(Unusable) as refusal:
        read(without(detector(), "backbone.body.layer4.1.conv2"), {})
    assert "resnet18" in refusal.value.detail
    assert "resnet50" not in refusal.value.detail


def test_a_folder_of_another_model_says_what_is_read(tmp_path, convert_inline):
    from models_store import archives

    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    torch.save({"x": Tensor([1.0])}, folder / "pytorch_model.bin")
    with pytest.raises(Unusable, match="object detectors that are read are detr"):
        convert_inline(archives.pack(folder, tmp_path))
