"""All that predictions are worth against the truth, in one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.coco import AT_50, AT_75, SIZES, Arrays, compare, truth_of
from worker.evaluation.corloc import correct_localisation
from worker.evaluation.matching import match
from worker.evaluation.prediction import Prediction, check
from worker.evaluation.voc import average_precision

RECALL = np.linspace(0.0, 1.0, 101)
DIGITS = 4  # of curves, which are for looking at
BY_CLASS = 5  # of a class's own curve one in so many points is kept: there may be hundreds of classes

Values = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every number is in [0, 1]; None where it is undefined, with the reason in `undefined` under its path.

    `box`, `mask`: COCO's twelve (`map ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium
    ar_large`); `mask` is None unless masks were evaluated. `per_class`: by class its `category`, `ap`, `ap50`, with
    masks `mask_ap` and `mask_ap50`, `objects` (crowds left out), `corloc`, `images`. `voc`: `map50_11point`,
    `map50_all_point` and both for each class. `corloc`: the mean over classes that occur. `curves`: IoU ("0.50",
    "0.75") to precision (101,) at RECALL, the mean over classes; `class_curves`: category to the same at .5.
    `images`, `objects`: how many were evaluated.
    """

    box: Values
    mask: Values | None
    per_class: list[dict[str, Any]]
    voc: dict[str, Any]
    corloc: float | None
    curves: dict[str, np.ndarray]
    class_curves: dict[str, np.ndarray]
    images: int
    objects: int
    undefined: dict[str, str]

    @property
    def map(self) -> float | None:
        """Box mAP@[.5:.95]."""
        return self.box["map"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with None for what is undefined; curves rounded to four digits, those of classes at every fifth recall."""
        return {
            "box": self.box,
            "mask": self.mask,
            "per_class": self.per_class,
            "voc": self.voc,
            "corloc": self.corloc,
            "curves": {
                "recall": [round(float(r), 2) for r in RECALL],
                "precision": {iou: np.round(curve, DIGITS).tolist() for iou, curve in self.curves.items()},
                "by_class": {
                    name: np.round(curve[::BY_CLASS], DIGITS).tolist()
                    for name, curve in self.class_curves.items()
                },
            },
            "images": self.images,
            "objects": self.objects,
            "undefined": self.undefined,
        }


def evaluate(
    dataset: Dataset, image_ids: Sequence[int], predictions: Sequence[Prediction], *, masks: bool = False
) -> Evaluation:
    """The predictions for `image_ids` against the dataset's annotations of them.

    An image without a Prediction has no detections; one without annotations makes every detection in it false. COCO's
    numbers take the 100 best detections of an image and class and are equal to pycocotools'; VOC's take all. Crowds
    count as COCO has them: whoever finds one is neither rewarded nor punished.

    Raises Unevaluable when the predictions are not about these images, or the dataset has nothing to compare with.
    """
    check(dataset, image_ids, predictions, masks=masks)
    truth = truth_of(dataset, image_ids)
    predictions = sorted(predictions, key=lambda prediction: prediction.image_id)
    box = compare(dataset, truth, predictions, masks=False)
    mask = compare(dataset, truth, predictions, masks=True) if masks else None
    matches = match(dataset, image_ids, predictions)
    voc = [average_precision(matches, label) for label in range(len(dataset.categories))]
    corloc = correct_localisation(dataset, matches)
    box_values, mask_values = box.values(), mask.values() if mask else None
    curves = {name: box.curve(iou) for name, iou in (("0.50", AT_50), ("0.75", AT_75))}
    class_curves = {name: box.curve(AT_50, label) for label, name in enumerate(dataset.categories)}
    return Evaluation(
        box=box_values,
        mask=mask_values,
        per_class=[
            _row(dataset, label, box, mask, int(matches.objects[label]), *corloc[label])
            for label in range(len(dataset.categories))
        ],
        voc={
            "map50_11point": _mean([one and one[0] for one in voc]),
            "map50_all_point": _mean([one and one[1] for one in voc]),
            "per_class": [
                {"category": name, "ap_11point": one and one[0], "ap_all_point": one and one[1]}
                for name, one in zip(dataset.categories, voc, strict=True)
            ],
        },
        corloc=_mean([share for share, _ in corloc]),
        curves={name: curve for name, curve in curves.items() if curve is not None},
        class_curves={name: curve for name, curve in class_curves.items() if curve is not None},
        images=len(set(image_ids)),
        objects=int(matches.objects.sum()),
        undefined=_reasons(dataset, len(set(image_ids)), matches.objects, box_values, mask_values),
    )


def _row(
    dataset: Dataset,
    label: int,
    box: Arrays,
    mask: Arrays | None,
    objects: int,
    corloc: float | None,
    images: int,
) -> dict[str, Any]:
    ap, ap50 = box.of_class(label)
    row = {"category": dataset.categories[label], "ap": ap, "ap50": ap50}
    if mask is not None:
        row["mask_ap"], row["mask_ap50"] = mask.of_class(label)
    return row | {"objects": objects, "corloc": corloc, "images": images}


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _reasons(
    dataset: Dataset, images: int, objects: np.ndarray, box: Values, mask: Values | None
) -> dict[str, str]:
    if not objects.sum():
        return {
            "": f"the {images} images hold no object (crowds left out), so nothing can be found or missed"
        }
    reasons = {}
    for kind, values in (("box", box), ("mask", mask or {})):
        for size, area in SIZES.items():
            if values and values[f"ap_{size}"] is None:
                reasons[f"{kind}.ap_{size}"] = reasons[f"{kind}.ar_{size}"] = (
                    f"no object has an area {area} pixels"
                )
    for name, count in zip(dataset.categories, objects.tolist(), strict=True):
        if not count:
            reasons[f"per_class.{name}"] = f"none of the {images} images holds an object of it"
    return reasons
