"""Converted DETR-family checkpoints against outputs of the original published code, random weights, every layer."""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import models_store
from models_store.conversion import Request, convert_here
from models_store.detr.layerwise import layerwise
from models_store.limits import Limits
from models_store.load import digest_of

torch.set_num_threads(1)
AGREEMENT = 1e-4
DISAGREEMENT = 1e-2
CASES = {
    "deformable_detr": ("deformable_detr", "transformers/deformable_detr", 0),
    "detreg_deformable": ("detreg_deformable_detr", "transformers/deformable_detr", 0),
    "deformable_refine": ("deformable_detr", "transformers/deformable_detr", 0),
    "deformable_two_stage": ("deformable_detr", "transformers/deformable_detr", 0),
    "detr": ("detr", "transformers/detr", 0),
    "detreg_detr_prenorm": ("detreg_detr", "transformers/table_transformer", 0),
}
# With DETRANK_WRITE_DOCS=1 the measured rows go between these two lines of the page.
PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"
BEGIN, END = "<!-- golden detectors: begin -->", "<!-- golden detectors: end -->"
HEADER = (
    "| golden file | recognised as | converted to | tensors dropped | largest difference, every decoder layer |",
    "|---|---|---|---|---|",
)
Tensors = dict[str, Tensor]
Change = Callable[[Tensors], None]


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    folder = shared_data / "golden"
    if not (folder / "backbone_resnet50.npz").is_file():
        pytest.skip(f"no golden detectors in {folder}")
    return folder


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    if os.environ.get("DETRANK_WRITE_DOCS") == "1" and len(found) == len(CASES):
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else f"# Checkpoints\n\n{BEGIN}\n{END}\n"
        before, _, rest = page.partition(BEGIN)
        table = "\n".join((BEGIN, *HEADER, *found, END))
        PAGE.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


def original_file(golden: Path, case: str, into: Path, change: Change | None = None) -> tuple[Path, dict]:
    """The case's weights as its code saved them, and the stored inputs and outputs."""
    tensors: Tensors = {}
    for name in ("backbone_resnet50", case):
        with np.load(golden / f"{name}.npz") as stored:
            tensors |= {
                k.removeprefix("w/"): torch.from_numpy(stored[k].astype(np.float32))
                for k in stored.files
                if not k.startswith("io/") and k != "args"
            }
    with np.load(golden / f"{case}.npz") as stored:
        arguments = json.loads(str(stored["args"]))
        io = {k.removeprefix("io/"): torch.from_numpy(stored[k]) for k in stored.files if k.startswith("io/")}
    if change is not None:
        change(tensors)
    path = into / "checkpoint.pth"
    torch.save({"model": tensors, "args": argparse.Namespace(**arguments), "epoch": 0}, path)
    return path, io


def converted(path: Path, options: dict | None = None) -> models_store.Detector:
    out = path.parent / "converted"
    out.mkdir(exist_ok=True)
    overrides = {"options": options} if options else {}
    convert_here(Request(path, digest_of(path), path.name, out, None, None, overrides, Limits()))
    return models_store.load_detector(out)


@torch.no_grad()
def difference(detector: models_store.Detector, io: dict) -> float:
    """The largest over logits and boxes of the last and of every earlier decoder layer."""
    mask = io["pixel_mask"].long()
    last = detector.module(pixel_values=io["pixel_values"], pixel_mask=mask)
    all_layers = layerwise(detector.module, detector.family, io["pixel_values"], mask)
    pairs = [(last.logits, io["pred_logits"]), (last.pred_boxes, io["pred_boxes"])]
    earlier = sum(key.startswith("aux") and key.endswith("_logits") for key in io)
    assert earlier == len(all_layers.logits) - 1 > 0
    for index in range(earlier):
        pairs.append((all_layers.logits[index], io[f"aux{index}_logits"]))
        pairs.append((all_layers.boxes[index], io[f"aux{index}_boxes"]))
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


@pytest.mark.parametrize("case", CASES)
def test_every_decoder_layer_agrees_with_the_original_code(
    golden: Path, tmp_path: Path, case: str, rows: list[str]
) -> None:
    path, io = original_file(golden, case, tmp_path)
    detector = converted(path)
    found = difference(detector, io)
    assert found < AGREEMENT
    format_, architecture, dropped = CASES[case]
    manifest = detector.manifest
    assert (manifest.format, manifest.architecture, manifest.num_classes) == (format_, architecture, 91)
    assert sum(key.startswith("feature_embed.") for key in manifest.dropped_keys) == dropped
    assert manifest.initialised_keys == ()
    rows.append(f"| {case} | {format_} | {architecture} | {dropped} | {found:.1e} |")


def exchange(first: str, second: str) -> Change:
    def change(tensors: Tensors) -> None:
        a = [k for k in tensors if first in k]
        assert a
        for key in a:
            other = key.replace(first, second)
            tensors[key], tensors[other] = tensors[other], tensors[key]

    return change


def exchange_query_and_key(prefix: str) -> Change:
    def change(tensors: Tensors) -> None:
        keys = [k for k in tensors if k.startswith(prefix) and "in_proj_" in k]
        assert keys
        for key in keys:
            q, k, v = tensors[key].chunk(3)
            tensors[key] = torch.cat([k, q, v])

    return change


@pytest.mark.parametrize(
    ("case", "change"),
    [
        (
            "deformable_detr",
            exchange("transformer.decoder.layers.0.norm1", "transformer.decoder.layers.0.norm2"),
        ),
        ("deformable_detr", exchange_query_and_key("transformer.decoder.layers.0.self_attn")),
        ("deformable_refine", exchange("class_embed.0.", "class_embed.1.")),
        ("detr", exchange("transformer.decoder.layers.1.norm2", "transformer.decoder.layers.1.norm3")),
        ("detr", exchange_query_and_key("transformer.decoder.layers.1.multihead_attn")),
    ],
    ids=["deformable-norm", "deformable-qk", "refine-heads-of-two-layers", "detr-norm", "detr-qk"],
)
def test_a_mistake_in_the_map_would_be_seen(golden: Path, tmp_path: Path, case: str, change: Change) -> None:
    path, io = original_file(golden, case, tmp_path, change)
    assert difference(converted(path), io) > DISAGREEMENT


def test_detreg_positions_are_not_detrs(golden: Path, tmp_path: Path) -> None:
    path, io = original_file(golden, "detreg_detr_prenorm", tmp_path)
    assert difference(converted(path, {"centred_sine": False}), io) > DISAGREEMENT


@pytest.mark.parametrize(
    ("case", "key"),
    [
        ("detr", "transformer.decoder.layers.1.norm3.weight"),
        ("detr", "backbone.0.body.layer3.2.bn1.running_var"),
        ("deformable_refine", "transformer.decoder.bbox_embed.1.layers.2.bias"),
        ("deformable_two_stage", "transformer.pos_trans_norm.bias"),
    ],
)
def test_a_missing_tensor_is_named(golden: Path, tmp_path: Path, case: str, key: str) -> None:
    path, _ = original_file(golden, case, tmp_path, lambda tensors: tensors.pop(key))
    with pytest.raises(models_store.Unusable) as refusal:
        converted(path)
    assert refusal.value.code == "missing_keys"
    assert len(refusal.value.errors) == 1
    assert key.rpartition(".")[2] in refusal.value.errors[0]["key"]


def test_a_tensor_without_a_place_is_named(golden: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["transformer.adapter.weight"] = torch.zeros(2)

    path, _ = original_file(golden, "detr", tmp_path, change)
    with pytest.raises(models_store.Unusable) as refusal:
        converted(path)
    assert refusal.value.code == "unmapped_keys"
    assert [e["key"] for e in refusal.value.errors] == ["transformer.adapter.weight"]


def test_detr_wsod_heads_are_dropped_and_said(golden: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        for name, rows in (("mil.mil_score0", 91), ("refinement_agents.refine_score.0", 92)):
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.ones(rows, 64), torch.ones(rows)

    path, io = original_file(golden, "detr", tmp_path, change)
    detector = converted(path)
    assert detector.manifest.format == "detr_wsod"
    assert {"mil.mil_score0.weight", "refinement_agents.refine_score.0.bias"} <= set(
        detector.manifest.dropped_keys
    )
    assert any("never trained" in note for note in detector.manifest.notes)
    assert difference(detector, io) < AGREEMENT


@pytest.mark.slow
def test_the_limited_child_converts_it_too(golden: Path, tmp_path: Path) -> None:
    path, io = original_file(golden, "deformable_refine", tmp_path)
    models_store.convert(path, tmp_path / "out")
    assert difference(models_store.load_detector(tmp_path / "out"), io) < AGREEMENT
