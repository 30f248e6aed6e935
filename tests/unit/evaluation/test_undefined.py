"""What has no value is None with a reason, and what makes no sense is refused."""

import json

import numpy as np
import pytest
from random_scenes import CLASSES, dataset_of, scenes

from worker.evaluation.errors import Unevaluable
from worker.evaluation.evaluate import evaluate
from worker.evaluation.prediction import Prediction, prediction_of
from worker.handlers.verification.several_processes import evaluation_of


def prediction(image_id: int = 1, **changes) -> Prediction:
    found = {
        "boxes": np.array([[1.0, 1, 9, 9]]),
        "scores": np.array([0.5]),
        "labels": np.array([0]),
    } | changes
    return Prediction(image_id, **found)


def test_no_predictions_at_all_is_zero_not_undefined() -> None:
    dataset, _ = scenes(0)
    ids = [i.id for i in dataset.images]
    for given in ([], [Prediction(1, np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int))]):
        found = evaluate(dataset, ids, given)
        assert found.map == found.voc["map50_11point"] == found.corloc == 0.0
        assert found.per_class[-1]["ap"] is None
        assert "object" in found.undefined["per_class.never"]
        assert found.objects == int((~dataset.iscrowd).sum())


def test_images_without_objects_have_no_map_and_say_why() -> None:
    dataset, _ = scenes(0)
    found = evaluate(dataset, [5, 10], [prediction(5)])
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert all(value is None for value in content["box"].values())
    assert content["voc"]["map50_11point"] is None
    assert content["corloc"] is None
    assert content["curves"]["precision"] == {}
    assert "no object" in content["undefined"][""]
    assert (found.images, found.objects) == (2, 0)


def test_only_crowds_are_no_objects() -> None:
    dataset, _ = scenes(0)
    crowd = dataset_of(dataset.images, [(1, 0, np.array([1.0, 1, 20, 20]), True)])
    assert evaluate(crowd, [1], [prediction()]).map is None


def test_sizes_without_an_object_say_so() -> None:
    dataset, _ = scenes(0)
    small = dataset_of(dataset.images, [(1, 0, np.array([1.0, 1, 20, 20]), False)])
    found = evaluate(small, [1], [prediction()])
    assert found.box["ap_small"] is not None
    assert found.box["ap_large"] is None
    assert "96²" in found.undefined["box.ap_large"]


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("unknown_image", prediction(2)),
        ("bad_label", prediction(labels=np.array([len(CLASSES)]))),
        ("bad_label", prediction(labels=np.array([-1]))),
        ("not_finite", prediction(scores=np.array([np.nan]))),
        ("not_finite", prediction(boxes=np.array([[0, 0, np.inf, 3]]))),
        ("bad_shape", prediction(boxes=np.zeros((2, 4)))),
    ],
)
def test_senseless_predictions_are_refused(code: str, wrong: Prediction) -> None:
    dataset, _ = scenes(0)
    with pytest.raises(Unevaluable) as refusal:
        evaluate(dataset, [1], [wrong])
    assert refusal.value.code == code


def test_twice_the_same_image_unknown_images_and_masks_that_are_not_there() -> None:
    dataset, _ = scenes(0)
    for code, ids, given, masks in (
        ("repeated_image", [1], [prediction(), prediction()], False),
        ("unknown_image", [99], [], False),
        ("no_masks", [1], [], True),
    ):
        with pytest.raises(Unevaluable) as refusal:
            evaluate(dataset, ids, given, masks=masks)
        assert refusal.value.code == code
    masked, _ = scenes(0, masks=True)
    with pytest.raises(Unevaluable, match="one mask for each"):
        evaluate(masked, [1], [prediction()], masks=True)


def test_labels_alone_cannot_be_evaluated() -> None:
    from dataclasses import replace

    dataset, _ = scenes(0)
    with pytest.raises(Unevaluable, match="image_labels"):
        evaluate(replace(dataset, supervision="image_labels"), [1], [])


def test_a_detectors_output_becomes_a_prediction() -> None:
    import torch

    masks = torch.zeros(1, 1, 6, 8)
    masks[0, 0, 2:4, 3:7] = 0.9
    output = {
        "boxes": torch.tensor([[3.0, 2, 7, 4]]),
        "scores": torch.tensor([0.5]),
        "labels": torch.tensor([1]),
    }
    found = prediction_of(4, output | {"masks": masks})
    assert found.boxes.tolist() == [[3, 2, 7, 4]]
    assert found.masks[0]["size"] == [6, 8]
    assert prediction_of(4, output).masks is None


def test_masks_of_another_size_are_refused() -> None:
    dataset, predictions = scenes(0, masks=True)
    wrong = Prediction(
        1,
        **{k: getattr(predictions[0], k)[:1] for k in ("boxes", "scores", "labels")},
        masks=[{"size": [3, 4], "counts": b"<"}],
    )
    with pytest.raises(Unevaluable, match="masks of") as refusal:
        evaluate(dataset, [1], [wrong], masks=True)
    assert refusal.value.code == "bad_shape"


def test_curves_of_classes_are_kept_thinned_and_come_back() -> None:
    dataset, found = scenes(0)
    evaluation = evaluate(dataset, [image.id for image in dataset.images], found)
    told = json.loads(json.dumps(evaluation.to_json()))
    assert set(told["curves"]["by_class"]) == set(evaluation.class_curves)
    for name, values in told["curves"]["by_class"].items():
        assert values == np.round(evaluation.class_curves[name][::5], 4).tolist()
    assert evaluation_of(told).to_json() == told
