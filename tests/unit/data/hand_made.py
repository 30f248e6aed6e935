"""Two hand-made pictures with three boxes, written in every format that ingestion reads."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

# name -> (split, width, height, [(class, x1, y1, x2, y2)]); continuous corners, upright
SCENE = {
    "a": ("train", 40, 30, [("cat", 4, 6, 20, 26), ("dog", 8, 2, 38, 12)]),
    "b": ("val", 32, 48, [("dog", 1, 2, 17, 34)]),
}
CLASSES = ["cat", "dog"]
OTHER_SPLIT = {"train": "train", "val": "valid"}


def picture(path: Path, width: int, height: int, seed: int = 0, **save: object) -> Path:
    """A picture of seeded noise, so that no two are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path, **save)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def scene(folder: Path, place: Callable[[str, str], str] = lambda split, name: f"images/{name}.png") -> None:
    """Write both pictures of the scene; `place` tells where, from split and name."""
    for seed, (name, (split, width, height, _)) in enumerate(SCENE.items()):
        picture(folder / place(split, name), width, height, seed)


def coco_content(
    names: list[str], file_name: Callable[[str], str] = lambda name: f"{name}.png", first_category: int = 1
) -> dict:
    images, annotations = [], []
    for identity, name in enumerate(names, start=7):
        _, width, height, boxes = SCENE[name]
        images.append({"id": identity, "file_name": file_name(name), "width": width, "height": height})
        for category, x1, y1, x2, y2 in boxes:
            annotations.append(
                {
                    "id": 100 - len(annotations),
                    "image_id": identity,
                    "iscrowd": 0,
                    "area": (x2 - x1) * (y2 - y1),
                    "category_id": CLASSES.index(category) + first_category,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=first_category)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(folder: Path) -> None:
    scene(folder, lambda split, name: f"{split}/{name}.png")
    text(folder / "annotations/instances_train2017.json", json.dumps(coco_content(["a"])))
    text(folder / "annotations/instances_val2017.json", json.dumps(coco_content(["b"], first_category=5)))


def roboflow(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")
    for name, (split, *_) in SCENE.items():
        content = coco_content([name], first_category=1)
        content["categories"] = [
            {"id": 0, "name": "animals", "supercategory": "none"},
            *({**row, "supercategory": "animals"} for row in content["categories"]),
        ]
        text(folder / OTHER_SPLIT[split] / "_annotations.coco.json", json.dumps(content))


def _voc_xml(name: str, shift: int = 1) -> str:
    _, width, height, boxes = SCENE[name]
    objects = "".join(
        f"<object><name>{category}</name><difficult>0</difficult><bndbox><xmin>{x1 + shift}</xmin><ymin>{y1 + shift}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for category, x1, y1, x2, y2 in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}.png</filename>{size}{objects}</annotation>"


def voc(folder: Path) -> None:
    scene(folder, lambda split, name: f"VOC2012/JPEGImages/{name}.png")
    for name, (split, *_) in SCENE.items():
        text(folder / f"VOC2012/Annotations/{name}.xml", _voc_xml(name))
        text(folder / f"VOC2012/ImageSets/Main/{split}.txt", f"{name}\n")
        text(folder / f"VOC2012/ImageSets/Main/cat_{split}.txt", f"{name} -1\n")


def voc_beside(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/{name}.png")
    for name, (split, *_) in SCENE.items():
        text(folder / OTHER_SPLIT[split] / f"{name}.xml", _voc_xml(name))


def _yolo_lines(name: str) -> str:
    _, width, height, boxes = SCENE[name]
    rows = (
        (
            CLASSES.index(category),
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        )
        for category, x1, y1, x2, y2 in boxes
    )
    return "".join(f"{label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n" for label, cx, cy, w, h in rows)


def yolo(folder: Path) -> None:
    scene(folder, lambda split, name: f"images/{split}/{name}.png")
    for name, (split, *_) in SCENE.items():
        text(folder / f"labels/{split}/{name}.txt", _yolo_lines(name))
    text(
        folder / "data.yaml",
        "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n",
    )


def yolo_roboflow(folder: Path) -> None:
    scene(folder, lambda split, name: f"{OTHER_SPLIT[split]}/images/{name}.png")
    for name, (split, *_) in SCENE.items():
        text(folder / OTHER_SPLIT[split] / f"labels/{name}.txt", _yolo_lines(name))
    text(folder / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")


def yolo_lists(folder: Path) -> None:
    scene(folder)
    for name, (split, *_) in SCENE.items():
        text(folder / f"labels/{name}.txt", _yolo_lines(name))
        text(folder / f"{split}.txt", f"./images/{name}.png\n")
    text(folder / "set.yaml", "train: train.txt\nval: val.txt\nnames: [cat, dog]\n")


def csv_corners(folder: Path) -> None:
    scene(folder)
    for name, (split, width, height, boxes) in SCENE.items():
        rows = "".join(
            f"{name}.png,{width},{height},{c},{x1},{y1},{x2},{y2}\n" for c, x1, y1, x2, y2 in boxes
        )
        text(folder / f"{split}_labels.csv", f"filename,width,height,class,xmin,ymin,xmax,ymax\n{rows}")


def csv_bbox(folder: Path) -> None:
    scene(folder)
    rows = "".join(
        f'{name},{split},{c},"[{x1}, {y1}, {x2 - x1}, {y2 - y1}]"\n'
        for name, (split, _, _, boxes) in SCENE.items()
        for c, x1, y1, x2, y2 in boxes
    )
    text(folder / "boxes.csv", f"image_id,split,class,bbox\n{rows}")


def mnist(folder: Path) -> None:
    scene(folder, lambda split, name: f"{split}/images/{name}.png")
    for name, (split, _, _, boxes) in SCENE.items():
        rows = "".join(f"{CLASSES.index(c) + 1},{x1},{y1},{x2},{y2}\n" for c, x1, y1, x2, y2 in boxes)
        text(folder / f"{split}/labels/{name}.txt", f"label,xmin,ymin,xmax,ymax\n{rows}")
    text(folder / "classes.txt", "cat\ndog\n")


BOXED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "coco": ("coco", coco),
    "roboflow": ("coco", roboflow),
    "voc": ("voc", voc),
    "voc beside the pictures": ("voc", voc_beside),
    "yolo": ("yolo", yolo),
    "yolo from roboflow": ("yolo", yolo_roboflow),
    "yolo with list files": ("yolo", yolo_lists),
    "csv of corners": ("csv", csv_corners),
    "csv of bbox": ("csv", csv_bbox),
    "mnist": ("mnist", mnist),
}
