"""The two hand-made pictures of hand_made.py, written in the formats of other tools from their published descriptions."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.unit.data.clouds import azure, ground_truth, vott, vott_assets
from tests.unit.data.hand_made import CLASSES, OTHER_SPLIT, SCENE, scene, text
from tests.unit.data.platforms import (
    darwin,
    darwin_1,
    detectron2,
    labelbox,
    labelbox_old,
    mmdetection,
    mmdetection_2,
    mot,
    mot_of_cvat,
    odgt,
    superannotate,
    yolo_ndjson,
)


def _beside(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")


def labelme(folder: Path) -> None:
    _beside(folder)
    for name, (split, width, height, boxes) in SCENE.items():
        shapes = [
            {
                "label": c,
                "points": [[x2, y1], [x1, y2]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {},
            }
            for c, x1, y1, x2, y2 in boxes
        ]
        content = {
            "version": "5.2.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\old\\{name}.png",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        text(folder / OTHER_SPLIT[split] / f"{name}.json", json.dumps(content))


def _via_regions(name: str) -> list[dict]:
    return [
        {
            "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
            "region_attributes": {"species": c},
        }
        for c, x1, y1, x2, y2 in SCENE[name][3]
    ]


def via_json(folder: Path) -> None:
    _beside(folder)
    for name, (split, *_) in SCENE.items():
        entry = {"filename": f"{name}.png", "size": 123, "regions": _via_regions(name), "file_attributes": {}}
        text(folder / OTHER_SPLIT[split] / "via_region_data.json", json.dumps({f"{name}.png123": entry}))


def via_project(folder: Path) -> None:
    _beside(folder)
    content = {
        f"{name}.png123": {
            "filename": f"{OTHER_SPLIT[split]}/{name}.png",
            "size": 123,
            # version 1 numbers the regions
            "regions": {str(place): region for place, region in enumerate(_via_regions(name))},
            "file_attributes": {},
        }
        for name, (split, *_) in SCENE.items()
    }
    project = {
        "_via_settings": {},
        "_via_img_metadata": content,
        "_via_attributes": {"region": {}, "file": {}},
    }
    text(folder / "via_project_1.json", json.dumps(project))


def via_project_3(folder: Path) -> None:
    _beside(folder)
    metadata = {
        f"-x{name}{place}": {
            "vid": name,
            "flg": 0,
            "z": [],
            "xy": [2, x1, y1, x2 - x1, y2 - y1],
            "av": {"1": str(CLASSES.index(c))},
        }
        for name, (*_, boxes) in SCENE.items()
        for place, (c, x1, y1, x2, y2) in enumerate(boxes)
    }
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "pname": "pets"},
        "config": {},
        "attribute": {
            "1": {"aname": "class", "type": 3, "options": {str(k): c for k, c in enumerate(CLASSES)}}
        },
        "file": {
            name: {
                "fid": name,
                "fname": f"{name}.png",
                "type": 2,
                "loc": 1,
                "src": f"{OTHER_SPLIT[split]}/{name}.png",
            }
            for name, (split, *_) in SCENE.items()
        },
        "view": {name: {"fid_list": [name]} for name in SCENE},
        "metadata": metadata,
    }
    text(folder / "via_project.json", json.dumps(content))


def via_csv(folder: Path) -> None:
    _beside(folder)
    for name, (split, *_) in SCENE.items():
        rows = [
            "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
        ]
        for place, region in enumerate(_via_regions(name)):
            cells = [
                json.dumps(region[key]).replace('"', '""')
                for key in ("shape_attributes", "region_attributes")
            ]
            rows.append(f'{name}.png,123,"{{}}",{len(SCENE[name][3])},{place},"{cells[0]}","{cells[1]}"')
        text(folder / OTHER_SPLIT[split] / "via.csv", "\n".join(rows) + "\n")


def createml(folder: Path) -> None:
    _beside(folder)
    for name, (split, *_, boxes) in SCENE.items():
        annotations = [
            {
                "label": c,
                "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
            }
            for c, x1, y1, x2, y2 in boxes
        ]
        content = [{"image": f"{name}.png", "annotations": annotations}]
        text(folder / OTHER_SPLIT[split] / "_annotations.createml.json", json.dumps(content))


def _ls_value(name: str, box: tuple) -> dict:
    _, width, height, _ = SCENE[name]
    c, x1, y1, x2, y2 = box
    return {
        "x": 100 * x1 / width,
        "y": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
        "rotation": 0,
        "rectanglelabels": [c],
    }


def label_studio(folder: Path) -> None:
    _beside(folder)
    tasks = []
    for identity, (name, (split, width, height, boxes)) in enumerate(SCENE.items(), start=1):
        results = [
            {
                "id": f"r{place}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": _ls_value(name, box),
            }
            for place, box in enumerate(boxes)
        ]
        tasks.append(
            {
                "id": identity,
                "annotations": [{"id": 1, "was_cancelled": False, "result": results}],
                "predictions": [],
                "data": {"image": f"/data/local-files/?d=pets/{OTHER_SPLIT[split]}/{name}.png"},
            }
        )
    text(folder / "project-1-at-2024.json", json.dumps(tasks))


def label_studio_min(folder: Path) -> None:
    _beside(folder)
    tasks = [
        {
            "image": f"/data/upload/3/0a1b2c3d-{name}.png",
            "id": identity,
            "label": [
                {**_ls_value(name, box), "original_width": width, "original_height": height} for box in boxes
            ],
            "annotator": 1,
        }
        for identity, (name, (_, width, height, boxes)) in enumerate(SCENE.items(), start=1)
    ]
    text(folder / "min.json", json.dumps(tasks))


def label_studio_csv(folder: Path) -> None:
    _beside(folder)
    rows = "image,id,label,annotator,annotation_id,created_at,updated_at,lead_time\n"
    for identity, (name, (split, width, height, boxes)) in enumerate(SCENE.items(), start=1):
        label = [
            {**_ls_value(name, box), "original_width": width, "original_height": height} for box in boxes
        ]
        cell = json.dumps(label).replace('"', '""')
        rows += f'http://x/{OTHER_SPLIT[split]}/{name}.png,{identity},"{cell}",1,{identity},2024-01-01,2024-01-01,3.5\n'
    text(folder / "project.csv", rows)


def supervisely(folder: Path) -> None:
    scene(folder, lambda split, name: f"{split}/img/{name}.png")
    meta = {
        "classes": [{"title": name, "shape": "rectangle", "color": "#0F0"} for name in CLASSES],
        "tags": [],
    }
    text(folder / "meta.json", json.dumps(meta))
    for name, (split, width, height, boxes) in SCENE.items():
        objects = [
            {
                "id": place,
                "classTitle": c,
                "geometryType": "rectangle",
                "tags": [],
                "points": {"exterior": [[x1, y1], [x2, y2]], "interior": []},
            }
            for place, (c, x1, y1, x2, y2) in enumerate(boxes)
        ]
        content = {
            "description": "",
            "tags": [],
            "size": {"height": height, "width": width},
            "objects": objects,
        }
        text(folder / split / "ann" / f"{name}.png.json", json.dumps(content))


def datumaro(folder: Path) -> None:
    scene(folder, lambda split, name: f"images/{split}/{name}.png")
    for name, (split, width, height, boxes) in SCENE.items():
        annotations = [
            {
                "id": place,
                "type": "bbox",
                "attributes": {"occluded": False},
                "group": 0,
                "label_id": CLASSES.index(c),
                "z_order": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for place, (c, x1, y1, x2, y2) in enumerate(boxes)
        ]
        content = {
            "info": {},
            "categories": {
                "label": {"labels": [{"name": c, "parent": ""} for c in CLASSES], "attributes": []}
            },
            "items": [
                {
                    "id": name,
                    "annotations": annotations,
                    "image": {"path": f"{name}.png", "size": [height, width]},
                }
            ],
        }
        text(folder / f"annotations/{split}.json", json.dumps(content))


def bdd100k(folder: Path) -> None:
    scene(folder, lambda split, name: f"images/100k/{split}/{name}.png")
    for name, (split, *_, boxes) in SCENE.items():
        labels = [
            {
                "id": str(place),
                "category": c,
                "attributes": {"occluded": False, "truncated": False, "crowd": False},
                "box2d": {"x1": x1, "y1": y1, "x2": x2 - 1, "y2": y2 - 1},
            }
            for place, (c, x1, y1, x2, y2) in enumerate(boxes)
        ]
        frames = [
            {"name": f"{name}.png", "attributes": {"weather": "clear"}, "timestamp": 1000, "labels": labels}
        ]
        text(folder / f"labels/det_20/det_{split}.json", json.dumps(frames))


def bdd100k_one(folder: Path) -> None:
    scene(folder, lambda split, name: f"images/100k/{split}/{name}.png")
    for name, (split, *_, boxes) in SCENE.items():
        objects = [
            {"id": place, "category": c, "box2d": {"x1": x1, "y1": y1, "x2": x2 - 1, "y2": y2 - 1}}
            for place, (c, x1, y1, x2, y2) in enumerate(boxes)
        ]
        content = {"name": f"{name}.png", "frames": [{"timestamp": 10000, "objects": objects}]}
        text(folder / f"labels/100k/{split}/{name}.json", json.dumps(content))


def lvis(folder: Path) -> None:
    scene(folder, lambda split, name: f"{split}2017/{name}.png")
    for name, (split, width, height, boxes) in SCENE.items():
        content = {
            "images": [
                {
                    "id": 397133,
                    "coco_url": f"http://images.cocodataset.org/{split}2017/{name}.png",
                    "width": width,
                    "height": height,
                    "neg_category_ids": [],
                    "not_exhaustive_category_ids": [],
                }
            ],
            "annotations": [
                {
                    "id": place,
                    "image_id": 397133,
                    "category_id": 5 + CLASSES.index(c),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": 1,
                }
                for place, (c, x1, y1, x2, y2) in enumerate(boxes)
            ],
            "categories": [
                {"id": 5 + index, "name": c, "synonyms": [c], "frequency": "f"}
                for index, c in enumerate(CLASSES)
            ],
        }
        text(folder / f"lvis_v1_{split}.json", json.dumps(content))


def cvat(folder: Path) -> None:
    _beside(folder)
    images = ""
    for identity, (name, (split, width, height, boxes)) in enumerate(SCENE.items()):
        shapes = "".join(
            f'<box label="{c}" source="manual" occluded="0" xtl="{x1}.00" ytl="{y1}.00" xbr="{x2}.00" ybr="{y2}.00" z_order="0"></box>'
            for c, x1, y1, x2, y2 in boxes
        )
        subset = {"train": "Train", "val": "Validation"}[split]
        images += f'<image id="{identity}" name="{name}.png" subset="{subset}" width="{width}" height="{height}">{shapes}</image>'
    labels = "".join(f"<label><name>{c}</name><attributes></attributes></label>" for c in CLASSES)
    head = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    text(
        folder / "annotations.xml",
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{head}{images}</annotations>',
    )


def kitti(folder: Path) -> None:
    scene(folder, lambda split, name: f"{split}/image_2/{name}.png")
    for name, (split, *_, boxes) in SCENE.items():
        rows = "".join(
            f"{c} 0.00 0 -1.57 {x1}.00 {y1}.00 {x2}.00 {y2}.00 1.5 1.6 3.9 1.0 1.5 20.0 -1.5\n"
            for c, x1, y1, x2, y2 in boxes
        )
        text(folder / f"{split}/label_2/{name}.txt", rows)


def dota(folder: Path) -> None:
    scene(folder, lambda split, name: f"{split}/images/{name}.png")
    for name, (split, *_, boxes) in SCENE.items():
        rows = "".join(f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {c} 0\n" for c, x1, y1, x2, y2 in boxes)
        text(folder / f"{split}/labelTxt/{name}.txt", f"imagesource:GoogleEarth\ngsd:0.146\n{rows}")


def oidv4(folder: Path) -> None:
    """One picture lies in the folder of each class it has; here one folder has both."""
    scene(
        folder,
        lambda split, name: (
            f"OID/Dataset/{OTHER_SPLIT[split]}ation/Cat/{name}.png"
            if split == "val"
            else f"OID/Dataset/{split}/Cat/{name}.png"
        ),
    )
    for name, (split, *_, boxes) in SCENE.items():
        place = "validation" if split == "val" else split
        rows = "".join(f"{c} {x1}.0 {y1}.0 {x2}.0 {y2}.0\n" for c, x1, y1, x2, y2 in boxes)
        text(folder / f"OID/Dataset/{place}/Cat/Label/{name}.txt", rows)


def keras_yolo(folder: Path) -> None:
    """As Roboflow's YOLOv4 PyTorch export."""
    _beside(folder)
    for name, (split, *_, boxes) in SCENE.items():
        words = " ".join(f"{x1},{y1},{x2},{y2},{CLASSES.index(c)}" for c, x1, y1, x2, y2 in boxes)
        text(folder / OTHER_SPLIT[split] / "_annotations.txt", f"{name}.png {words}\n")
        text(folder / OTHER_SPLIT[split] / "_classes.txt", "cat\ndog\n")


def visdrone(folder: Path) -> None:
    scene(folder, lambda split, name: f"VisDrone2019-DET-{split}/images/{name}.png")
    for name, (split, *_, boxes) in SCENE.items():
        rows = "".join(
            f"{x1},{y1},{x2 - x1},{y2 - y1},1,{CLASSES.index(c) + 4},0,0\n" for c, x1, y1, x2, y2 in boxes
        )
        text(folder / f"VisDrone2019-DET-{split}/annotations/{name}.txt", rows)


def widerface(folder: Path) -> None:
    scene(folder, lambda split, name: f"WIDER_{split}/images/0--Parade/{name}.png")
    for name, (split, *_, boxes) in SCENE.items():
        rows = "".join(f"{x1} {y1} {x2 - x1} {y2 - y1} 0 0 0 0 0 0 \n" for _, x1, y1, x2, y2 in boxes)
        listing = f"0--Parade/{name}.png\n{len(boxes)}\n{rows}"
        text(folder / f"wider_face_split/wider_face_{split}_bbx_gt.txt", listing)


README = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: objects
    sequence:
    - name: bbox
      sequence: float32
      length: 4
    - name: category
      dtype:
        class_label:
          names:
            '0': cat
            '1': dog
---
# A dataset
"""


def hf_rows(name: str) -> dict:
    """Lists side by side, boxes in COCO's form, classes by number."""
    boxes = SCENE[name][3]
    return {
        "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, x1, y1, x2, y2 in boxes],
        "category": [CLASSES.index(c) for c, *_ in boxes],
    }


def imagefolder(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")
    text(folder / "README.md", README)
    for name, (split, width, height, _) in SCENE.items():
        row = {"file_name": f"{name}.png", "width": width, "height": height, "objects": hf_rows(name)}
        text(folder / OTHER_SPLIT[split] / "metadata.jsonl", json.dumps(row) + "\n")


def imagefolder_objects(folder: Path) -> None:
    """A list of objects, classes by name, in one file for both splits."""
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")
    lines = ""
    for name, (split, *_, boxes) in SCENE.items():
        objects = [{"bbox": [x1, y1, x2 - x1, y2 - y1], "label": c} for c, x1, y1, x2, y2 in boxes]
        lines += json.dumps({"file_name": f"{OTHER_SPLIT[split]}/{name}.png", "objects": objects}) + "\n"
    text(folder / "metadata.jsonl", lines)


def imagefolder_csv(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")
    infos = {
        "default": {
            "features": {"objects": {"feature": {"category": {"names": CLASSES, "_type": "ClassLabel"}}}}
        }
    }
    text(folder / "dataset_infos.json", json.dumps(infos))
    for name, (split, *_) in SCENE.items():
        cell = json.dumps(hf_rows(name)).replace('"', '""')
        text(folder / OTHER_SPLIT[split] / "metadata.csv", f'file_name,objects\n{name}.png,"{cell}"\n')


# name -> (format, writer, the classes it can tell)
FOREIGN: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "labelme": ("labelme", labelme, CLASSES),
    "via": ("via", via_json, CLASSES),
    "via project of version 1": ("via", via_project, CLASSES),
    "via project of version 3": ("via", via_project_3, CLASSES),
    "via csv": ("via", via_csv, CLASSES),
    "createml": ("createml", createml, CLASSES),
    "label studio": ("label_studio", label_studio, CLASSES),
    "label studio min": ("label_studio", label_studio_min, CLASSES),
    "label studio csv": ("label_studio", label_studio_csv, CLASSES),
    "supervisely": ("supervisely", supervisely, CLASSES),
    "datumaro": ("datumaro", datumaro, CLASSES),
    "bdd100k": ("bdd100k", bdd100k, CLASSES),
    "bdd100k, a file a picture": ("bdd100k", bdd100k_one, CLASSES),
    "lvis": ("lvis", lvis, CLASSES),
    "cvat": ("cvat", cvat, CLASSES),
    "kitti": ("kitti", kitti, CLASSES),
    "dota": ("dota", dota, CLASSES),
    "oidv4": ("oidv4", oidv4, CLASSES),
    "keras-yolo3": ("keras_yolo", keras_yolo, CLASSES),
    "visdrone": ("visdrone", visdrone, ["car", "van"]),
    "imagefolder": ("imagefolder", imagefolder, CLASSES),
    "imagefolder of objects": ("imagefolder", imagefolder_objects, CLASSES),
    "imagefolder csv": ("imagefolder", imagefolder_csv, CLASSES),
    "widerface": ("widerface", widerface, ["face", "face"]),
    "ground truth": ("ground_truth", ground_truth, CLASSES),
    "azure": ("azure", azure, CLASSES),
    "vott": ("vott", vott, CLASSES),
    "vott, a file a picture": ("vott", vott_assets, CLASSES),
    "labelbox": ("labelbox", labelbox, CLASSES),
    "labelbox of before 2023": ("labelbox", labelbox_old, CLASSES),
    "ultralytics ndjson": ("yolo_ndjson", yolo_ndjson, CLASSES),
    "darwin": ("darwin", darwin, CLASSES),
    "darwin 1.0": ("darwin", darwin_1, CLASSES),
    "superannotate": ("superannotate", superannotate, CLASSES),
    "detectron2": ("detectron2", detectron2, CLASSES),
    "mmdetection": ("mmdetection", mmdetection, CLASSES),
    "mmdetection 2": ("mmdetection", mmdetection_2, CLASSES),
    "odgt": ("odgt", odgt, CLASSES),
    "mot": ("mot", mot, ["pedestrian", "car"]),
    "mot of cvat": ("mot", mot_of_cvat, CLASSES),
}
