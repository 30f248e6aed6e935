"""The two hand-made pictures of hand_made.py, in the formats of labelling platforms, libraries and benchmarks, from their descriptions."""

import json
from pathlib import Path

from tests.unit.data.hand_made import CLASSES, OTHER_SPLIT, SCENE, scene, text


def _beside(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")


def _sides(x1: int, y1: int, x2: int, y2: int) -> dict[str, int]:
    return {"top": y1, "left": x1, "height": y2 - y1, "width": x2 - x1}


def labelbox_row(name: str) -> dict:
    split, width, height, boxes = SCENE[name]
    objects = [
        {
            "feature_id": f"f{x1}",
            "feature_schema_id": "s",
            "name": c,
            "annotation_kind": "ImageBoundingBox",
            "classifications": [],
            "bounding_box": _sides(x1, y1, x2, y2),
        }
        for c, x1, y1, x2, y2 in boxes
    ]
    annotations = {"objects": objects, "classifications": [], "relationships": []}
    label = {"label_kind": "Default", "version": "1.0.0", "id": "l", "annotations": annotations}
    return {
        "data_row": {
            "id": "clf",
            "global_key": f"0b7e-{name}",
            "external_id": f"{OTHER_SPLIT[split]}/{name}.png",
            "row_data": f"https://storage.example/0b7e-{name}-x",
        },
        "media_attributes": {"height": height, "width": width, "mime_type": "image/png"},
        "projects": {"p": {"name": "animals", "labels": [label]}},
    }


def labelbox(folder: Path) -> None:
    _beside(folder)
    text(folder / "export.ndjson", "".join(json.dumps(labelbox_row(name)) + "\n" for name in SCENE))


def labelbox_old(folder: Path) -> None:
    _beside(folder)
    content = [
        {
            "ID": "ck",
            "DataRow ID": "ck",
            "Labeled Data": f"https://storage.example/0b7e-{name}.png",
            "External ID": f"{name}.png",
            "Label": {
                "objects": [
                    {"featureId": "f", "schemaId": "s", "title": c, "value": f"{c}_", "bbox": _sides(*box)}
                    for c, *box in boxes
                ],
                "classifications": [],
            },
        }
        for name, (*_, boxes) in SCENE.items()
    ]
    text(folder / "export.json", json.dumps(content))


def yolo_ndjson(folder: Path) -> None:
    scene(folder)
    names = {str(number): name for number, name in enumerate(CLASSES)}
    lines = [{"type": "dataset", "task": "detect", "name": "animals", "class_names": names}]
    for name, (split, width, height, boxes) in SCENE.items():
        rows = [
            [
                CLASSES.index(c),
                (x1 + x2) / 2 / width,
                (y1 + y2) / 2 / height,
                (x2 - x1) / width,
                (y2 - y1) / height,
            ]
            for c, x1, y1, x2, y2 in boxes
        ]
        lines.append(
            {
                "type": "image",
                "file": f"{name}.png",
                "url": f"https://storage.example/{name}.png",
                "width": width,
                "height": height,
                "split": split,
                "annotations": {"boxes": rows},
            }
        )
    text(folder / "animals.ndjson", "".join(json.dumps(line) + "\n" for line in lines))


def _darwin_annotations(name: str) -> list[dict]:
    return [
        {
            "id": "i",
            "name": c,
            "bounding_box": {"x": x1, "y": y1, "w": x2 - x1, "h": y2 - y1},
            "slot_names": ["0"],
        }
        for c, x1, y1, x2, y2 in SCENE[name][3]
    ]


def darwin(folder: Path) -> None:
    _beside(folder)
    for name, (split, width, height, _) in SCENE.items():
        slot = {
            "type": "image",
            "slot_name": "0",
            "width": width,
            "height": height,
            "source_files": [{"file_name": f"{name}.png", "url": f"https://storage.example/{name}"}],
        }
        content = {
            "version": "2.0",
            "item": {"name": f"{name}.png", "path": "/", "slots": [slot]},
            "annotations": _darwin_annotations(name),
        }
        text(folder / OTHER_SPLIT[split] / f"{name}.json", json.dumps(content))


def darwin_1(folder: Path) -> None:
    _beside(folder)
    for name, (split, width, height, _) in SCENE.items():
        image = {
            "width": width,
            "height": height,
            "filename": f"{name}.png",
            "original_filename": f"{name}.png",
        }
        content = {
            "dataset": "animals",
            "image": {**image, "seq": 1},
            "annotations": _darwin_annotations(name),
        }
        text(folder / OTHER_SPLIT[split] / f"{name}.json", json.dumps(content))


def superannotate(folder: Path) -> None:
    _beside(folder)
    classes = [
        {"id": 40 + number, "name": c, "color": "#ff0000", "attribute_groups": []}
        for number, c in enumerate(CLASSES)
    ]
    text(folder / "classes/classes.json", json.dumps(classes))
    for name, (split, width, height, boxes) in SCENE.items():
        instances = [
            {
                "type": "bbox",
                "classId": 40 + CLASSES.index(c),
                "points": {"x1": x1, "x2": x2, "y1": y1, "y2": y2},
                "attributes": [],
            }
            for c, x1, y1, x2, y2 in boxes
        ]
        metadata = {"name": f"{name}.png", "width": width, "height": height, "status": "Completed"}
        content = {"metadata": metadata, "instances": instances, "tags": [], "comments": []}
        text(folder / OTHER_SPLIT[split] / f"{name}.json", json.dumps(content))


def detectron2(folder: Path) -> None:
    _beside(folder)
    text(folder / "classes.txt", "\n".join(CLASSES) + "\n")
    for name, (split, width, height, boxes) in SCENE.items():
        rows = [
            {
                "bbox": [x1, y1, x2, y2] if mode == 0 else [x1, y1, x2 - x1, y2 - y1],
                "bbox_mode": mode,
                "category_id": CLASSES.index(c),
                "iscrowd": 0,
            }
            for mode, (c, x1, y1, x2, y2) in enumerate(boxes)
        ]
        picture = {"file_name": f"{name}.png", "image_id": 1, "height": height, "width": width}
        text(folder / OTHER_SPLIT[split] / "dicts.json", json.dumps([{**picture, "annotations": rows}]))


def mmdetection(folder: Path) -> None:
    _beside(folder)
    for name, (split, width, height, boxes) in SCENE.items():
        rows = [
            {"bbox": box, "bbox_label": CLASSES.index(c), "ignore_flag": 0, "mask": []} for c, *box in boxes
        ]
        picture = {
            "img_path": f"{name}.png",
            "img_id": 0,
            "height": height,
            "width": width,
            "instances": rows,
        }
        content = {"metainfo": {"classes": CLASSES}, "data_list": [picture]}
        text(folder / OTHER_SPLIT[split] / "annotations.json", json.dumps(content))


def mmdetection_2(folder: Path) -> None:
    _beside(folder)
    text(folder / "classes.txt", "\n".join(CLASSES) + "\n")
    for name, (split, width, height, boxes) in SCENE.items():
        ann = {"bboxes": [box for _, *box in boxes], "labels": [CLASSES.index(c) for c, *_ in boxes]}
        content = [{"filename": f"{name}.png", "width": width, "height": height, "ann": ann}]
        text(folder / OTHER_SPLIT[split] / "middle.json", json.dumps(content))


def odgt(folder: Path) -> None:
    _beside(folder)
    for name, (split, *_, boxes) in SCENE.items():
        rows = [
            {
                "tag": c,
                "fbox": [x1, y1, x2 - x1, y2 - y1],
                "extra": {"box_id": 0, "occ": 0},
                "head_attr": {"ignore": 0},
            }
            for c, x1, y1, x2, y2 in boxes
        ]
        text(folder / f"annotation_{split}.odgt", json.dumps({"ID": name, "gtboxes": rows}) + "\n")


def _sequence(folder: Path, name: str, numbers: dict[str, int], first: int) -> None:
    split, _, _, boxes = SCENE[name]
    sequence = folder / OTHER_SPLIT[split] / f"SEQ-{name}"
    rows = [
        f"1,{track},{x1 + first},{y1 + first},{x2 - x1},{y2 - y1},1,{numbers[c]},0.9"
        for track, (c, x1, y1, x2, y2) in enumerate(boxes, start=1)
    ]
    text(sequence / "gt/gt.txt", "\n".join(rows) + "\n")


def mot(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/SEQ-{name}/frames/000001.png")
    for name, (split, width, height, _) in SCENE.items():
        _sequence(folder, name, {"cat": 1, "dog": 3}, 1)
        info = f"[Sequence]\nname=SEQ-{name}\nimDir=frames\nimWidth={width}\nimHeight={height}\nimExt=.png\n"
        text(folder / OTHER_SPLIT[split] / f"SEQ-{name}/seqinfo.ini", info)


def mot_of_cvat(folder: Path) -> None:
    """Names count from 0 and frames from 1; labels.txt names the classes, and pixels count from 0."""
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/SEQ-{name}/img1/frame_000000.png")
    for name, (split, *_) in SCENE.items():
        _sequence(folder, name, {"cat": 1, "dog": 2}, 0)
        text(folder / OTHER_SPLIT[split] / f"SEQ-{name}/gt/labels.txt", "\n".join(CLASSES) + "\n")
