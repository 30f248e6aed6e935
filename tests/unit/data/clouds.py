"""The two hand-made pictures of hand_made.py, in the formats of cloud services and of VoTT, from their published descriptions."""

import json
from pathlib import Path

from tests.unit.data.hand_made import CLASSES, OTHER_SPLIT, SCENE, scene, text


def _beside(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")


def ground_truth(folder: Path) -> None:
    _beside(folder)
    for name, (split, width, height, boxes) in SCENE.items():
        rows = [
            {
                "class_id": CLASSES.index(c),
                "top": y1,
                "left": x1,
                "width": x2 - x1,
                "height": y2 - y1,
            }
            for c, x1, y1, x2, y2 in boxes
        ]
        line = {
            "source-ref": f"s3://bucket/{OTHER_SPLIT[split]}/{name}.png",
            "animals": {
                "image_size": [{"width": width, "height": height, "depth": 3}],
                "annotations": rows,
            },
            "animals-metadata": {
                "objects": [{"confidence": 1} for _ in rows],
                "class-map": {str(number): c for number, c in enumerate(CLASSES)},
                "type": "groundtruth/object-detection",
                "human-annotated": "yes",
            },
        }
        text(folder / OTHER_SPLIT[split] / "output.manifest", json.dumps(line) + "\n")


def azure(folder: Path) -> None:
    _beside(folder)
    for name, (split, width, height, boxes) in SCENE.items():
        rows = [
            {
                "label": c,
                "topX": x1 / width,
                "topY": y1 / height,
                "bottomX": x2 / width,
                "bottomY": y2 / height,
                "isCrowd": False,
            }
            for c, x1, y1, x2, y2 in boxes
        ]
        line = {
            "image_url": f"azureml://subscriptions/1/datastores/d/paths/{OTHER_SPLIT[split]}/{name}.png",
            "image_details": {"format": "png", "width": f"{width}px", "height": f"{height}px"},
            "label": rows,
        }
        text(folder / f"{split}_annotations.jsonl", json.dumps(line) + "\n")


def _asset(name: str) -> dict:
    _, width, height, boxes = SCENE[name]
    regions = [
        {
            "id": f"r{x1}",
            "type": "RECTANGLE",
            "tags": [c],
            "boundingBox": {"height": y2 - y1, "width": x2 - x1, "left": x1, "top": y1},
            "points": [{"x": x, "y": y} for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))],
        }
        for c, x1, y1, x2, y2 in boxes
    ]
    asset = {
        "format": "png",
        "id": f"0{name}",
        "name": f"{name}.png",
        "path": f"file:/home/me/{name}.png",
        "size": {"width": width, "height": height},
        "type": 1,
    }
    return {"asset": asset, "regions": regions, "version": "2.2.0"}


def vott(folder: Path) -> None:
    _beside(folder)
    tags = [{"name": c, "color": "#ff0000"} for c in CLASSES]
    content = {"name": "animals", "tags": tags, "assets": {f"0{name}": _asset(name) for name in SCENE}}
    text(folder / "vott-json-export/animals-export.json", json.dumps(content))


def vott_assets(folder: Path) -> None:
    _beside(folder)
    for name, (split, *_) in SCENE.items():
        text(folder / OTHER_SPLIT[split] / f"0{name}-asset.json", json.dumps(_asset(name)))
