"""Fresh layers begin at the scale of the training images, whatever the body gives."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import MOBILENET, SMALL_DETR, fresh, fresh_detr, ids, recipe, small_plan
from test_resume import assert_same

from models_store.archs import ARCHITECTURES
from models_store.archs.initialise import initialise
from models_store.detector import Detector
from models_store.fresh import fresh_layers
from worker.data.dataset import Dataset
from worker.training import loop
from worker.training.average import moving
from worker.training.data_dependent_init import IMAGES, Begun, data_dependent_init
from worker.training.examples import examples_of
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.randomness import per_image_samplers
from worker.training.recipe import Augmentation
from worker.training.trained import Trained

RESNET = "torchvision/resnet18"
# Two-stage detectors learn from few proposals, which makes a test quick.
FEW = {"rpn_pre_nms_top_n_train": 100, "rpn_post_nms_top_n_train": 50}


def placed(architecture: str, backbone: str, **options: Any) -> Detector:
    """Everything but the body is fresh, as after placing a classifier's weights."""
    detector = fresh(architecture, backbone, **options)
    known = ARCHITECTURES[architecture]
    new = [n for n, _ in detector.module.named_parameters() if not n.startswith(known.body_prefix)]
    if known.family != "detr":
        initialise(detector.module, new, 0, focal=known.family == "one_stage")
    detector.manifest = detector.manifest.but(initialised_keys=tuple(new))
    return detector


def whole(architecture: str, **options: Any) -> Detector:
    """Only the head is fresh, as after loading a detector of other classes."""
    detector = fresh(architecture, **options)
    detector.replace_head(3, seed=0)
    return detector


def whole_detr(name: str) -> Detector:
    detector = fresh_detr(name)
    detector.replace_head(3, seed=0)
    return detector


FAMILIES: dict[str, Callable[[], Detector]] = {
    "faster r-cnn": lambda: placed(
        "detrank/fasterrcnn_fpn", MOBILENET, neck_channels=32, head_width=64, **FEW
    ),
    "faster r-cnn v2": lambda: placed("detrank/fasterrcnn_fpn_v2", MOBILENET, norm="frozen", **FEW),
    "faster r-cnn v2, moving norms": lambda: placed("detrank/fasterrcnn_fpn_v2", MOBILENET, norm="bn", **FEW),
    "mask r-cnn": lambda: placed("detrank/maskrcnn_fpn", MOBILENET, norm="frozen"),
    "mask r-cnn c4": lambda: placed("detrank/maskrcnn_c4", RESNET, norm="frozen"),
    "retinanet": lambda: placed("detrank/retinanet", MOBILENET),
    "one map": lambda: placed("detrank/retinanet", "timm/vit_tiny_patch16_224"),
    "detr": lambda: placed("detrank/detr", MOBILENET, config=SMALL_DETR),
    "deformable detr": lambda: placed("detrank/deformable_detr", MOBILENET, config=SMALL_DETR),
    "whole faster r-cnn": lambda: whole("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"),
    "whole fcos": lambda: whole("torchvision/fcos_resnet50_fpn"),
    "whole ssd": lambda: whole("detrank/ssdlite_mobilenet_v2"),
    "whole rt-detr": lambda: whole_detr("rt_detr"),
    "whole yolos": lambda: whole_detr("yolos"),
}
PLACED = [name for name in FAMILIES if not name.startswith("whole")]
PLAIN = Augmentation()


def begun(
    detector: Detector, dataset: Dataset, threads: int = 1, std: float = 1.0, **changes: Any
) -> dict[str, float]:
    """The factors where nothing is left alone."""
    return start_of(detector, dataset, threads, std, init_band=1.0, **changes).factors


def start_of(
    detector: Detector, dataset: Dataset, threads: int = 1, std: float = 1.0, **changes: Any
) -> Begun:
    plan = small_plan(detector, 14, recipe(augmentation=PLAIN, init_std=std), image_size=96, **changes)
    examples, _ = examples_of(dataset, ids(dataset, "train"), None, masks=False)
    with Pictures() as pictures, per_image_samplers(detector.module, 16) as samplers:
        return data_dependent_init(detector, plan, examples, pictures, samplers, 96, threads=threads)


def scaled_body(detector: Detector, scale: float) -> Detector:
    """The body's maps times `scale`, as another body might give them."""
    module = detector.module
    body = module.backbone.body if hasattr(module, "backbone") else module.model.backbone.model.body
    run = body.run
    body.run = lambda x, names: {name: found * scale for name, found in run(x, names).items()}
    return detector


def now(detector: Detector) -> dict[str, np.ndarray]:
    """Every tensor once, under its first name."""
    return {name: tensor.detach().numpy().copy() for name, tensor in moving(detector.module).items()}


def passing(detector: Detector, dataset: Dataset) -> dict[str, tuple[float, float]]:
    """{fresh layer: (std of its output less bias, root mean square of its input)}, where it is first used."""
    found: dict[str, tuple[float, float]] = {}

    def look(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            bias = torch.zeros(()) if module.bias is None else module.bias
            if module.bias is not None and output.dim() == 4:
                bias = bias.view(1, -1, 1, 1)
            found.setdefault(name, (float((output - bias).std()), float(inputs[0].square().mean().sqrt())))

        return hook

    handles = [layer.module.register_forward_hook(look(layer.name)) for layer in fresh_layers(detector)]
    begun(detector, dataset)  # the same pass once more
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("family", PLACED)
def test_every_fresh_layer_has_unit_variance_whatever_the_body_gives(
    family: str, scale: float, toy: Dataset
) -> None:
    detector = scaled_body(FAMILIES[family](), scale)
    before = now(detector)
    factors = begun(detector, toy)
    layers = {layer.name: layer for layer in fresh_layers(detector)}
    # Without masks among the targets nothing goes through a mask branch.
    assert factors.keys() == {name for name in layers if "mask_" not in name}
    after = now(detector)
    found = passing(detector, toy)
    for name, (output, input_) in found.items():
        if layers[name].predictor:
            weight = np.std(after[f"{name}.weight"]) * input_
            assert weight == pytest.approx(np.std(before[f"{name}.weight"]), rel=0.02), name
        else:
            # The second pass proposes other regions, for its predictors were scaled once more.
            assert output == pytest.approx(1, rel=0.05), name
    # Weights are scaled, each layer by one factor, and nothing else is touched: neither biases nor statistics.
    for name, tensor in after.items():
        factor = factors.get(name.removesuffix(".weight"), 1.0)
        np.testing.assert_allclose(tensor, before[name] * np.float32(factor), rtol=1e-6, atol=0, err_msg=name)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - set(PLACED)))
def test_of_a_whole_detector_only_the_fresh_head_is_touched(family: str, toy: Dataset) -> None:
    detector = FAMILIES[family]()
    before = now(detector)
    factors = begun(detector, toy)
    new = set(detector.manifest.initialised_keys)
    assert factors
    assert {f"{name}.weight" for name in factors} <= new
    after = now(detector)
    changed = {name for name, tensor in after.items() if not np.array_equal(tensor, before[name])}
    assert changed == {f"{name}.weight" for name in factors}
    # Their first outputs are as large as they are meant to be for inputs of mean square 1.
    for name, (_, input_) in passing(detector, toy).items():
        weight = np.std(after[f"{name}.weight"]) * input_
        assert weight == pytest.approx(np.std(before[f"{name}.weight"]), rel=0.02), name


def two_stage() -> Detector:
    return FAMILIES["faster r-cnn"]()


def test_the_start_depends_on_the_seed_and_the_images_alone(toy: Dataset) -> None:
    detector = two_stage()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found = begun(detector, toy)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found == begun(two_stage(), toy, threads=3)
    assert found == begun(two_stage(), toy, micro_batch=1, precision="bfloat16")
    assert found != begun(two_stage(), toy, seed=1)


def test_a_recipe_says_another_scale_and_projections_of_queries_have_none_but_one(toy: Dataset) -> None:
    one, three = begun(two_stage(), toy), begun(two_stage(), toy, std=3.0)
    lateral, predictor = "backbone.fpn.inner_blocks.3.0", "rpn.head.cls_logits"
    assert three[lateral] == pytest.approx(3 * one[lateral])
    assert three[predictor] == pytest.approx(one[predictor] / 3)
    queries = FAMILIES["detr"]
    assert begun(queries(), toy) == begun(queries(), toy, std=3.0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_who_begins_near_the_aim_is_left_alone_and_who_is_far_off_begins_as_if_nothing_were(
    family: str, toy: Dataset
) -> None:
    make = FAMILIES[family]
    all_scaled = begun(make(), toy)
    near = make()
    before, wanted = now(near), {n: p.requires_grad for n, p in near.module.named_parameters()}
    found = start_of(near, toy, init_band=1e9)
    assert found.factors == {}
    assert found.distance is not None
    for name, tensor in now(near).items():
        assert np.array_equal(tensor, before[name]), name
    assert {n: p.requires_grad for n, p in near.module.named_parameters()} == wanted
    assert start_of(make(), toy, init_band=found.distance * 1.001) == found
    if found.distance > 1.002:
        far = make()
        assert start_of(far, toy, init_band=found.distance * 0.999) == Begun(all_scaled, found.distance)
        for name, factor in all_scaled.items():
            weight = before[f"{name}.weight"] * np.float32(factor)
            np.testing.assert_allclose(now(far)[f"{name}.weight"], weight, rtol=1e-6, err_msg=name)


def test_the_body_alone_decides_by_all_its_maps_together(toy: Dataset) -> None:
    laterals = [f"backbone.fpn.inner_blocks.{level}.0" for level in range(4)]
    found = start_of(two_stage(), toy, init_band=1.5)
    own = begun(two_stage(), toy)
    expected = np.exp(abs(np.mean([np.log(own[name]) for name in laterals])))
    assert found.distance == pytest.approx(expected)
    # a body of ten times the size is as much nearer or farther
    larger = start_of(scaled_body(two_stage(), 10.0), toy, init_band=1.5)
    sign = np.sign(np.mean([np.log(own[name]) for name in laterals]))
    assert larger.distance is not None
    assert np.log(larger.distance) == pytest.approx(abs(sign * np.log(expected) - np.log(10)), rel=1e-3)


def test_it_looks_at_no_more_images_than_it_says(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, looked = two_stage(), []
    losses = detector.losses
    monkeypatch.setattr(
        detector,
        "losses",
        lambda images, *rest, **more: looked.append(len(images)) or losses(images, *rest, **more),
    )
    begun(detector, toy)
    monkeypatch.setattr("worker.training.data_dependent_init.PIXELS", 3 * 96 * 96)
    begun(detector, toy)
    assert looked == [min(IMAGES, 14), 3]


def trained(detector: Detector, dataset: Dataset, plan: Plan, folder: Path) -> Trained:
    return train(
        detector,
        dataset,
        plan,
        Ids(ids(dataset, "train"), ids(dataset, "val")[:2], []),
        folder,
        Host(save_every_s=1e9),
    )


def plan_for(detector: Detector, **changes: Any) -> Plan:
    return small_plan(detector, 14, recipe(rois=16), evaluations=2, **changes)


def test_a_training_begins_with_it_or_bit_for_bit_without(toy: Dataset, tmp_path: Path) -> None:
    # Everything but the head stays where it began, so that what the neck began with can be seen at the end.
    begin = two_stage()
    plan = plan_for(begin, freeze="all_but_head", iterations=1, ema=0.9, init_band=1.0)
    assert plan.data_dependent_init
    necks = [name for name in now(begin) if name.startswith("backbone.fpn.")]
    with_it = trained(two_stage(), toy, plan, tmp_path / "with")
    without = trained(
        two_stage(), toy, dataclasses.replace(plan, data_dependent_init=False), tmp_path / "without"
    )
    near = trained(two_stage(), toy, dataclasses.replace(plan, init_band=1e9), tmp_path / "near")
    assert without.start == near.start.get("factors") == {}
    assert near.start["distance"] > 1
    assert with_it.start["seconds"] > 0
    for name in necks:
        own = now(begin)[name]
        assert np.array_equal(now(without.detector)[name], own), name
        assert np.array_equal(now(near.detector)[name], own), name
        factor = with_it.start["factors"].get(name.removesuffix(".weight"), 1.0)
        assert np.array_equal(now(with_it.detector)[name], own * np.float32(factor)), name
        assert (factor == 1.0) == name.endswith("bias"), name


def test_a_training_that_goes_on_does_not_begin_again(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(two_stage())
    whole = trained(two_stage(), toy, plan, tmp_path / "whole")
    paused = trained(two_stage(), toy, dataclasses.replace(plan, stop_at_iterations=2), tmp_path / "parts")
    assert paused.finished == "paused"

    def never(*args: object, **more: object) -> None:
        raise AssertionError("the state says how it began")

    monkeypatch.setattr(loop, "data_dependent_init", never)
    rest = trained(two_stage(), toy, plan, tmp_path / "parts")
    assert_same(rest, whole)
    assert rest.start["factors"] == whole.start["factors"]


def test_a_plan_of_before_there_was_a_choice_began_without(toy: Dataset) -> None:
    plan = plan_for(two_stage())
    always = plan.to_json()
    del always["init_band"], always["recipe"]["init_band"]
    assert Plan.from_json(always).identity() == dataclasses.replace(plan, init_band=1.0).identity()
    old = dict(always, recipe=dict(always["recipe"]))
    del old["data_dependent_init"], old["recipe"]["data_dependent_init"]
    assert not Plan.from_json(old).data_dependent_init
    assert Plan.from_json(old).identity() != plan.identity()
    off = dataclasses.replace(plan, data_dependent_init=False, init_band=1.0)
    assert Plan.from_json(old).identity() == off.identity()
